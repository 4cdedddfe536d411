"""Heads: what makes predictions and losses of the outputs of a layer."""

from fastlstm.heads._crf import CRF
from fastlstm.heads._ctc import ctc_decode, ctc_loss

__all__ = ["CRF", "ctc_decode", "ctc_loss"]
