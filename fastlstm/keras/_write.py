"""Weights for layers of Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _conversion
from fastlstm._conversion import DirectionWeights
from fastlstm._layers.cells import cell_name
from fastlstm._layers.gru import GRU
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.rnn import RNN
from fastlstm.keras._names import ACTIVATIONS, order_of, spelled_out

Array = NDArray[Any]


def to_keras_weights(layer: LSTM | GRU | RNN) -> list[list[Array]]:
    """Return the weights for ``set_weights`` of layers of Keras.

    Parameters
    ----------
    layer : LSTM, GRU or RNN

    Returns
    -------
    list of list of array
        For each layer of the stack: ``kernel`` (I, gates*H), ``recurrent_kernel`` (H, gates*H)
        and, with `bias`, ``bias``; the same for the second direction after them, as Bidirectional
        has them.  Two biases are one in Keras and are summed; not those of a GRU with
        `reset_after`, which has (2, 3H) there.

    Raises
    ------
    TypeError, ValueError
        If `layer` is no layer, or has an option that Keras has not.

    Notes
    -----
    Make the layer of Keras with the same ``use_bias`` and ``reset_after``, with ``activation`` and
    ``recurrent_activation`` if they are not the default ones, and with
    ``return_sequences=True`` below another layer.

    Examples
    --------
    >>> import fastlstm
    >>> from fastlstm.keras import to_keras_weights
    >>> [weights] = to_keras_weights(fastlstm.GRU(2, 3))
    >>> [array.shape for array in weights]
    [(2, 9), (3, 9), (2, 9)]
    """
    cell = cell_name(layer)
    _conversion.check_plain(layer, "Keras")
    known = [spelled_out(activation) for activation in ACTIVATIONS.values()]
    for activation in getattr(layer, "activations", ()):
        if spelled_out(activation) not in known:
            raise ValueError(f"layer: Keras has no activation {activation!r}")
    return [
        [array for part in parts for array in _arrays_of(part, cell, layer)]
        for parts in _conversion.parts_of(layer)
    ]


def _arrays_of(part: DirectionWeights, cell: str, layer: LSTM | GRU | RNN) -> list[Array]:
    """The arrays of one layer and direction, as Keras has them."""
    arrays = [part["weight_ih"].T, part["weight_hh"].T]
    if layer.bias and getattr(layer, "reset_after", False):
        arrays.append(np.stack([part["bias_ih"], part["bias_hh"]]))
    elif layer.bias:
        arrays.append(_conversion.summed(part["bias_ih"], part["bias_hh"]))
    return [_conversion.reordered(array, order_of(cell)) for array in arrays]
