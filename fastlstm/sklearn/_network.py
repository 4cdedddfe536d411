"""A recurrent layer and a linear one that reads its last hidden state; what they are trained on."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._core import heads
from fastlstm._core.threads import get_num_threads
from fastlstm._layers.base import Layer
from fastlstm._layers.lstm import LSTM
from fastlstm._parameters import Gradients, Parameters
from fastlstm._shards import ShardGradients, Shards
from fastlstm.sklearn._sequences import Sequences

Array = NDArray[Any]

_VALUES = 1 << 20  # of a layer's output that are computed at a time: 8 MiB


class Network:
    """Sequences -> recurrent layer -> its last hidden state -> linear -> outputs.

    The linear part is computed in float64, by sums whose order depends on nothing but the number
    of their terms: like the layer, it gives the same bits in any batch and with any threads.  What
    training computes has the same bits on any machine, too.

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
        self, x: Array, lengths: Array | None, targets: Array, weights: Array
    ) -> tuple[float, list[Gradients]]:
        """The loss of a batch, and its gradients in the order of `trainable`.

        Targets are classes (B,), for the mean of ``-weight * log p(class)``, or numbers (B, K), for
        that of ``weight * (output - target)**2 / 2``.
        """
        y, state, tape = self.layer.forward(x, lengths=lengths)
        losses, dstate, flat = self._head(state, targets, weights, targets.size, None)
        _, _, layer = self.layer.backward(tape, np.zeros_like(y), dstate, input_gradient=False)
        return _sum_in_order(losses), [layer, Gradients(self._shapes, flat[0].astype(y.dtype))]

    def shard_gradients(
        self, x: Array, lengths: Array | None, targets: Array, weights: Array, shards: Shards
    ) -> tuple[Array, list[ShardGradients]]:
        """The parts that shards of a batch have in the loss, and in its gradients.

        All arguments are of the rows of these shards.
        """
        y, state, tape = self.layer.forward(x, lengths=lengths, shards=shards)
        size = shards.batch * math.prod(targets.shape[1:])
        losses, dstate, flat = self._head(state, targets, weights, size, shards)
        _, _, layer = self.layer.backward(tape, np.zeros_like(y), dstate, input_gradient=False)
        borders = zip(shards.starts[:-1], shards.starts[1:], strict=True)
        sums = np.array([_sum_in_order(losses[a:b]) for a, b in borders])
        return sums, [layer, ShardGradients(self._shapes, flat.astype(y.dtype), shards)]

    def _head(
        self, state: Any, targets: Array, weights: Array, size: int, shards: Shards | None
    ) -> tuple[Array, Any, Array]:
        """Parts of the mean of `size` losses, and gradients: of final states, and of `out`."""
        last = self._last(state)
        weight, bias = (self.out[name].astype(np.float64) for name in ("weight", "bias"))
        parts = () if shards is None else (len(shards.starts) - 1,)
        flat = np.zeros((math.prod(parts), weight.size + bias.size))
        dweight = flat[:, : weight.size].reshape(*parts, *weight.shape)
        dbias = flat[:, weight.size :].reshape(*parts, *bias.shape)
        losses, dlast = np.empty(len(last)), np.empty_like(last)
        if len(last):
            classes = targets.ndim == 1
            heads.head(
                self.layer.isa,
                self.layer._scratch,
                last,
                weight,
                bias,
                np.ascontiguousarray(targets, np.intp if classes else np.float64),
                losses,
                dlast,
                dweight,
                dbias,
                get_num_threads(),
                1 / size,
                np.ascontiguousarray(weights, np.float64),
                shards,
            )
        return losses * weights / size, self._final_gradient(dlast), flat

    def _linear(self, last: Array) -> Array:
        weight, bias = (self.out[name].astype(np.float64) for name in ("weight", "bias"))
        # No BLAS: its sums depend on the size of the batch and on the number of threads.
        result: Array = np.einsum("bh,kh->bk", last, weight) + bias
        return result

    def _last(self, state: Any) -> Array:
        """(B, D*H) array of float64: the last layer's final hidden states, both directions'."""
        h_n = state[0] if isinstance(self.layer, LSTM) else state
        top = h_n[-self.layer._directions :].swapaxes(0, 1)
        width = self.out["weight"].shape[1]
        return np.array(top, np.float64, order="C").reshape(len(top), width)

    def _final_gradient(self, dlast: Array) -> Any:
        """The gradient of the final states, from that of `_last`."""
        layer, directions = self.layer, self.layer._directions
        shape = (layer.num_layers * directions, len(dlast), layer.hidden_size)
        dh = np.zeros(shape, layer.dtype)
        dh[-directions:] = dlast.reshape(len(dlast), directions, layer.hidden_size).swapaxes(0, 1)
        return (dh, np.zeros_like(dh)) if isinstance(layer, LSTM) else dh


def _sum_in_order(values: Array) -> float:
    """A sum that is the same on any machine."""
    return float(np.add.accumulate(values)[-1]) if len(values) else 0.0
