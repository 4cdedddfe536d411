"""How far back a gradient reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation
from fastlstm._layers.base import Layer

Array = NDArray[Any]


def gradient_flow(layers: Mapping[str, Layer[Any, Any, Any]], x: ArrayLike) -> Any:
    """Draw how far back a gradient reaches, for several layers: `gradient_norms` on a log scale.

    Parameters
    ----------
    layers : mapping of str to LSTM, GRU or RNN
        With the labels they get.
    x : (T, B, I) array

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> layers = {"LSTM": fastlstm.LSTM(2, 8, seed=0), "RNN": fastlstm.RNN(2, 8, seed=0)}
    >>> figure = plot.gradient_flow(layers, np.ones((30, 4, 2), np.float32))
    """
    from fastlstm._figure import Picture

    figure: Any = Picture(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, layer in layers.items():
        norms = gradient_norms(layer, x)
        axes.plot(np.arange(len(norms)) - (len(norms) - 1), norms, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step, 0 is that of the loss")
    axes.set_ylabel("gradient by the state, last = 1")
    axes.grid(linewidth=0.4)
    axes.legend()
    return figure


def gradient_norms(layer: Layer[Any, Any, Any], x: ArrayLike) -> Array:
    """How much the hidden state of each step matters for the last output.

    The loss is the sum of the last step's outputs, so that its gradient by them is 1.  It comes
    back to earlier steps through the recurrence alone.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Of one direction, with time first.
    x : (T, B, I) array

    Returns
    -------
    (T,) array
        In float64: the norm, over rows, layers and units, of the gradient by the state after each
        step, with that after the last step as 1.  An LSTM's cell state is a part of its state.

    Raises
    ------
    TypeError, ValueError
        If `layer` is bidirectional or has the batch first, or `x` the wrong dtype or shape.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> x = np.ones((30, 4, 2), np.float32)
    >>> norms = plot.gradient_norms(fastlstm.RNN(2, 8, seed=0), x)
    >>> float(norms[-1]), bool(norms[0] < 1e-3)
    (1.0, True)
    """
    if layer.bidirectional or layer.batch_first:
        raise ValueError("layer: expected one direction, and time first")
    x = _validation.sequence(x, "x", layer.input_size, layer.dtype, False)
    if x.ndim != 3 or not len(x):
        raise ValueError(f"x: expected (T, B, {layer.input_size}), T > 0, got {x.shape}")
    y, state = layer(x[:1])
    states = [state]
    for x_t in x[1:]:
        states.append(layer(x_t[None], states[-1])[1])
    norms = np.empty(len(x))
    norms[-1] = np.sqrt(y.size)
    for t in range(len(x) - 1):  # the last output alone, as seen from the state after step t
        y, _, tape = layer.forward(x[t + 1 :], states[t])
        dy = np.zeros_like(y)
        dy[-1] = 1
        parts = [np.ravel(part) for part in layer.backward(tape, dy, input_gradient=False)[1]]
        # The squares of small float32 gradients would be 0.
        norms[t] = np.linalg.norm(np.concatenate(parts).astype(np.float64))
    result: Array = norms / norms[-1]
    return result
