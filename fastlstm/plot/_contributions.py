"""How much the input and the state before contribute to every gate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation
from fastlstm._layers.base import Layer
from fastlstm._layers.contributions import Contributions, cell_weights, split
from fastlstm._layers.inputs import Embedding
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.trace import GRUTrace, Trace

Array = NDArray[Any]


def contributions(
    layer: Layer[Any, Any, Any], x: ArrayLike, *, embedding: Embedding = None, index: int = 0
) -> Contributions:
    """Split what enters the sigmoids and tanhs of a layer: from its input, from its state, bias.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        An LSTM without options that change its gates, such as `layer_norm`.
    x : (T, B, I) array, or (B, T, I) with `batch_first`, or (T, I)
        Read from the state zero on.
    embedding : (V, I) array or "one-hot", optional
        As for calling the layer; `x` has tokens then.
    index : int, default 0
        Of the layer and direction, as in the list that `LSTM.trace` returns.

    Returns
    -------
    Contributions
        Arrays `input`, `hidden` and `bias`, each (T, B, gates, H), with the gates in the order of
        the parameters, and steps and rows as in `x`.  Their sum is what enters the function of a
        gate: ``sigmoid(sum[..., 1, :])`` is ``trace.forget``.  Of a GRU's candidate, `hidden` has
        been multiplied by the reset gate, and so has its part of the bias.

    Raises
    ------
    TypeError, ValueError
        If `layer` has such options or weights of fewer bits, if it has no such `index`, or as
        calling the layer does.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> lstm = fastlstm.LSTM(2, 3, seed=0)
    >>> x = np.ones((5, 1, 2), np.float32)
    >>> parts = plot.contributions(lstm, x)
    >>> parts.input.shape
    (5, 1, 4, 3)
    >>> forget = 1 / (1 + np.exp(-sum(parts)[:, :, 1]))
    >>> bool(np.allclose(forget, lstm.trace(x)[0].forget, atol=1e-6))
    True
    """
    _check_layer(layer)
    index = _validation.integer(index, "index", 0)
    if index >= layer.num_layers * layer._directions:
        most = layer.num_layers * layer._directions - 1
        raise ValueError(f"index: expected 0 to {most}, got {index}")
    traces = layer.trace(x, embedding=embedding)
    number, direction = divmod(index, layer._directions)
    if number:
        below = traces[(number - 1) * layer._directions : number * layer._directions]
        read = np.concatenate([trace.hidden for trace in below], axis=-1)
    else:
        read = _read(layer, x, embedding)
    trace = traces[index]
    weights = cell_weights(layer.parameters.snapshot(), number, bool(direction))
    before = _states_before(trace, bool(direction))
    reset = trace.reset if isinstance(trace, GRUTrace) else None
    return split(weights, layer.hidden_size, read, before, reset, layer._cell == "gru")


def _check_layer(layer: Any) -> None:
    if not isinstance(layer, Layer) or layer._cell == "slstm":
        raise TypeError(f"layer: expected an LSTM, GRU or RNN, got {type(layer).__name__}")
    if isinstance(layer, LSTM) and layer._cell != "lstm":
        raise ValueError(f"layer: expected gates of the plain cell, got {layer!r}")
    if layer.weights_dtype != layer.dtype.name:
        raise ValueError(f"layer: expected weights of {layer.dtype}, got {layer.weights_dtype}")


def _read(layer: Layer[Any, Any, Any], x: ArrayLike, embedding: Embedding) -> Array:
    """What the first layer reads; the layer has checked it."""
    if embedding is None:
        return np.asarray(x, layer.dtype)
    one_hot = isinstance(embedding, str)
    table = np.eye(layer.input_size) if one_hot else np.asarray(embedding)
    rows: Array = table.astype(layer.dtype)[np.asarray(x)]
    return rows


def _states_before(trace: Trace, reverse: bool) -> Array:
    """The hidden states that each step begins with."""
    hidden = trace.hidden.swapaxes(0, 1) if trace.batch_first else trace.hidden
    before = np.zeros_like(hidden)
    if reverse:
        before[:-1] = hidden[1:]
    else:
        before[1:] = hidden[:-1]
    return before.swapaxes(0, 1) if trace.batch_first else before
