"""Weights from Keras 3 and back: LSTM, GRU, SimpleRNN and Bidirectional.

Keras itself is not imported: a layer of Keras is read through its own methods, and lists of
arrays need no Keras at all.
"""

from fastlstm.keras._read import from_keras
from fastlstm.keras._write import to_keras_weights

__all__ = ["from_keras", "to_keras_weights"]
