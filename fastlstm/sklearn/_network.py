"""A recurrent layer and a linear one that reads its last hidden state; what they are trained on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer
from fastlstm._layers.lstm import LSTM
from fastlstm._parameters import Gradients, Parameters
from fastlstm.sklearn._sequences import Sequences

Array = NDArray[Any]
Loss = Callable[[Array, Array, Array], tuple[float, Array]]

_VALUES = 1 << 20  # of a layer's output that are computed at a time: 8 MiB


class Network:
    """Sequences -> recurrent layer -> its last hidden state -> linear -> outputs.

    The linear part is computed in float64, by sums whose order depends on nothing but the number
    of their terms: like the layer, it gives the same bits in any batch and with any threads.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Batch first.
    outputs : int
        K.
    rng : RandomState
        Of the initial weights of the linear layer.
    """

    def __init__(
        self, layer: Layer[Any, Any, Any], outputs: int, rng: np.random.RandomState
    ) -> None:
        self.layer = layer
        width = layer._directions * layer.hidden_size
        self._shapes = {"weight": (outputs, width), "bias": (outputs,)}
        self.out = Parameters(self._shapes, layer.dtype)
        self.out.flat = rng.uniform(-(width**-0.5), width**-0.5, self.out.flat.size)

    @property
    def trainable(self) -> list[Parameters]:
        """What an optimizer updates."""
        return [self.layer.parameters, self.out]

    def quantize(self, weights_dtype: str) -> Network:
        """A network for prediction, whose layer has weights of fewer bits, and reads float32."""
        layer = self.layer
        if layer.dtype != np.float32:
            # Dropout, which prediction has not, might warn.
            options = {**layer._configuration(), "dtype": "float32", "dropout": 0.0}
            layer = type(layer)(**options)
            with np.errstate(over="ignore"):  # `quantize` refuses infinity
                layer.load_state_dict(self.layer.state_dict())
        small = copy.copy(self)
        small.layer, small.out = layer.quantize(weights_dtype), copy.deepcopy(self.out)
        return small

    def outputs(self, sequences: Sequences) -> Array:
        """(n, K) array of float64."""
        width = sequences.lengths.max() * self.out["weight"].shape[1]
        rows = max(1, _VALUES // int(width))
        parts = []
        for start in range(0, len(sequences), rows):
            chunk = np.arange(start, min(start + rows, len(sequences)))
            x, lengths = sequences.batch(chunk)
            parts.append(self._linear(self._last(self.layer(x, lengths=lengths)[1])))
        return np.concatenate(parts)

    def gradients(
        self, x: Array, lengths: Array | None, targets: Array, weights: Array, loss: Loss
    ) -> tuple[float, list[Gradients]]:
        """The loss of a batch, and its gradients in the order of `trainable`."""
        y, state, tape = self.layer.forward(x, lengths=lengths)
        last = self._last(state)
        value, slope = loss(self._linear(last), targets, weights)
        out = Gradients(self._shapes, np.empty_like(self.out.flat))
        out["weight"][...] = np.einsum("bk,bh->kh", slope, last)
        out["bias"][...] = slope.sum(axis=0)
        dlast = np.einsum("bk,kh->bh", slope, self.out["weight"].astype(np.float64))
        dstate = self._final_gradient(dlast)
        _, _, layer = self.layer.backward(tape, np.zeros_like(y), dstate, input_gradient=False)
        return value, [layer, out]

    def _linear(self, last: Array) -> Array:
        weight, bias = (self.out[name].astype(np.float64) for name in ("weight", "bias"))
        # No BLAS: its sums depend on the size of the batch and on the number of threads.
        result: Array = np.einsum("bh,kh->bk", last, weight) + bias
        return result

    def _last(self, state: Any) -> Array:
        """(B, D*H) array of float64: the last layer's final hidden states, both directions'."""
        h_n = state[0] if isinstance(self.layer, LSTM) else state
        top = h_n[-self.layer._directions :].swapaxes(0, 1)
        return np.array(top, np.float64, order="C").reshape(len(top), -1)

    def _final_gradient(self, dlast: Array) -> Any:
        """The gradient of the final states, from that of `_last`."""
        layer, directions = self.layer, self.layer._directions
        shape = (layer.num_layers * directions, len(dlast), layer.hidden_size)
        dh = np.zeros(shape, layer.dtype)
        dh[-directions:] = dlast.reshape(len(dlast), directions, -1).swapaxes(0, 1)
        return (dh, np.zeros_like(dh)) if isinstance(layer, LSTM) else dh


def cross_entropy(logits: Array, classes: Array, weights: Array) -> tuple[float, Array]:
    """The mean of ``-weight * log p(class)``, and its gradient.

    Parameters
    ----------
    logits : (B, K) array
    classes : (B,) array of int
    weights : (B,) array
    """
    log_p, rows = log_softmax(logits), np.arange(len(logits))
    slope = np.exp(log_p)
    slope[rows, classes] -= 1
    slope *= (weights / len(logits))[:, None]
    return float(-(weights * log_p[rows, classes]).mean()), slope


def log_softmax(logits: Array) -> Array:
    """(n, K) array: the logarithms of probabilities."""
    below = logits - logits.max(axis=1, keepdims=True)
    result: Array = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
    return result


def squared_error(outputs: Array, targets: Array, weights: Array) -> tuple[float, Array]:
    """The mean of ``weight * (output - target)**2 / 2``, and its gradient.

    Parameters
    ----------
    outputs, targets : (B, K) arrays
    weights : (B,) array
    """
    error = outputs - targets
    slope = weights[:, None] * error / error.size
    return float((slope * error).sum() / 2), slope
