"""Models built on the layers: a language model of characters."""

from fastlstm.models._history import History, Record
from fastlstm.models._language_model import LanguageModel

__all__ = ["History", "LanguageModel", "Record"]
