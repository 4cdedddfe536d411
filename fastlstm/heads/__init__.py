"""Heads: what makes predictions and losses of the outputs of a layer."""

from fastlstm.heads._crf import CRF
from fastlstm.heads._ctc import ctc_decode, ctc_loss
from fastlstm.heads._linear import Linear
from fastlstm.heads._losses import cross_entropy, mse

__all__ = [
    "CRF",
    "Linear",
    "cross_entropy",
    "ctc_decode",
    "ctc_loss",
    "mse",
]
