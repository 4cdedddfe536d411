"""Optimizers with the meanings and defaults of torch.optim, in place.

They train the `Parameters` of a layer; plain arrays, each alone or in a mapping with names; or a
list of any of these, which is one model.  Plain arrays are written to, so they have to be writable,
C-contiguous, of float32 or float64, and no two of them may share memory.  `step` takes gradients in
the same form.

    >>> import numpy as np
    >>> import fastlstm
    >>> gru = fastlstm.GRU(2, 3, seed=0)
    >>> scale = {"gain": np.ones(3, np.float32)}
    >>> optimizer = fastlstm.optim.SGD([gru.parameters, scale], lr=0.25)
    >>> y, _, tape = gru.forward(np.ones((5, 2), np.float32))
    >>> _, _, grads = gru.backward(tape, scale["gain"] * np.ones_like(y))
    >>> optimizer.step([grads, {"gain": np.full(3, 2, np.float32)}])
    >>> scale["gain"]
    array([0.5, 0.5, 0.5], dtype=float32)

A float32 below 1.2e-38 counts as zero, a float64 below 2.2e-308: of gradients, weights and state.
"""

from fastlstm.optim._adagrad import Adagrad
from fastlstm.optim._adam import Adam, AdamW
from fastlstm.optim._clip import clip_grad_norm
from fastlstm.optim._rmsprop import RMSprop
from fastlstm.optim._sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop", "clip_grad_norm"]
