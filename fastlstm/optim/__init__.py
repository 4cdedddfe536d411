"""Optimizers with the meanings and defaults of torch.optim, on flat vectors, in place.

A float32 below 1.2e-38 counts as zero, a float64 below 2.2e-308: of gradients, weights and state.
"""

from fastlstm.optim._adagrad import Adagrad
from fastlstm.optim._adam import Adam, AdamW
from fastlstm.optim._clip import clip_grad_norm
from fastlstm.optim._rmsprop import RMSprop
from fastlstm.optim._sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop", "clip_grad_norm"]
