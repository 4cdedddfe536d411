"""Training: one loop for models of your own, and what it returns."""

from fastlstm.training._fit import fit
from fastlstm.training._history import History, Record

__all__ = ["History", "Record", "fit"]
