"""Models built on the layers: a language model of characters."""

from fastlstm.models._language_model import LanguageModel
from fastlstm.training._history import History, Record

__all__ = ["History", "LanguageModel", "Record"]
