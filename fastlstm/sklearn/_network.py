"""A recurrent layer and a linear one that reads its hidden states; what they are trained on."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._core import heads
from fastlstm._core.threads import get_num_threads
from fastlstm._layers.base import Layer
from fastlstm._parameters import Gradients, Parameters
from fastlstm._shards import ShardGradients, Shards
from fastlstm.heads._sums import sum_in_order
from fastlstm.sklearn._readout import Borders, LastStep, Readout
from fastlstm.sklearn._sequences import Sequences

Array = NDArray[Any]

MOST_SEED = (1 << 31) - 1  # below it, a RandomState draws the seeds of parts
_VALUES = 1 << 20  # of a layer's output that are computed at a time: 8 MiB


class Network:
    """Sequences -> recurrent layer -> its last hidden state, or all of them -> linear -> outputs.

    The linear part is computed in float64, by sums whose order depends on nothing but the number
    of their terms: like the layer, it gives the same bits in any batch and with any threads.  What
    training computes has the same bits on any machine, too.

    Parameters
    ----------
    layer : LSTM, GRU, RNN or SLSTM
        Batch first.
    outputs : int
        K.
    rng : RandomState
        Of the initial weights of the linear layer.
    readout : Readout
        Which hidden states the linear layer reads.
    """

    def __init__(
        self,
        layer: Layer[Any, Any, Any],
        outputs: int,
        rng: np.random.RandomState,
        readout: Readout | None = None,
    ) -> None:
        self.layer = layer
        self.readout = LastStep() if readout is None else readout
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
        """(n, K) array of float64; (N, K) for all steps, one sequence after another."""
        width = sequences.lengths.max() * self.out["weight"].shape[1]
        rows = max(1, _VALUES // int(width))
        parts = []
        for start in range(0, len(sequences), rows):
            chunk = np.arange(start, min(start + rows, len(sequences)))
            x, lengths = sequences.batch(chunk)
            parts.append(self._linear(self._read(*self._outputs_of(x, lengths), lengths)))
        return np.concatenate(parts)

    def gradients(
        self, x: Array, lengths: Array | None, targets: Array, weights: Array
    ) -> tuple[float, list[Gradients]]:
        """The loss of a batch, and its gradients in the order of `trainable`.

        Targets are classes (N,), for ``-weight * log p(class)``, or numbers (N, K), for the mean
        over K of ``weight * (output - target)**2 / 2``.  The loss is their sum, divided by B.  If
        there is a target for each step, weights of 1 / (mean length of all sequences) make it the
        mean over the steps of an epoch, where each counts the same, whatever batch it is in.
        """
        y, state, tape = self.layer.forward(x, lengths=lengths)
        read = self._read(y, state, lengths)
        size = len(y) * math.prod(targets.shape[1:])
        losses, dread, flat = self._head(read, targets, weights, size, None)
        gradient = self.readout.back(self.layer, dread, y, lengths)
        _, _, layer = self.layer.backward(tape, *gradient, input_gradient=False)
        return sum_in_order(losses), [layer, Gradients(self._shapes, flat[0].astype(y.dtype))]

    def shard_gradients(
        self, x: Array, lengths: Array | None, targets: Array, weights: Array, shards: Shards
    ) -> tuple[Array, list[ShardGradients]]:
        """The parts that shards of a batch have in the loss, and in its gradients.

        All arguments are of the rows of these shards.
        """
        y, state, tape = self.layer.forward(x, lengths=lengths, shards=shards)
        borders = self.readout.borders(shards, y, lengths)
        read = self._read(y, state, lengths)
        size = shards.batch * math.prod(targets.shape[1:])
        losses, dread, flat = self._head(read, targets, weights, size, borders)
        gradient = self.readout.back(self.layer, dread, y, lengths)
        _, _, layer = self.layer.backward(tape, *gradient, input_gradient=False)
        parts = zip(borders.starts[:-1], borders.starts[1:], strict=True)
        sums = np.array([sum_in_order(losses[a:b]) for a, b in parts])
        return sums, [layer, ShardGradients(self._shapes, flat.astype(y.dtype), shards)]

    def _head(
        self, read: Array, targets: Array, weights: Array, size: int, shards: Borders | None
    ) -> tuple[Array, Array, Array]:
        """Losses by `size`, and gradients of their sum: of what is read, and of `out`."""
        weight, bias = (self.out[name].astype(np.float64) for name in ("weight", "bias"))
        parts = () if shards is None else (len(shards.starts) - 1,)
        flat = np.zeros((math.prod(parts), weight.size + bias.size))
        dweight = flat[:, : weight.size].reshape(*parts, *weight.shape)
        dbias = flat[:, weight.size :].reshape(*parts, *bias.shape)
        losses, dread = np.empty(len(read)), np.empty_like(read)
        if len(read):
            classes = targets.ndim == 1
            heads.head(
                self.layer.isa,
                self.layer._scratch,
                read,
                weight,
                bias,
                np.ascontiguousarray(targets, np.intp if classes else np.float64),
                losses,
                dread,
                dweight,
                dbias,
                get_num_threads(),
                1 / size,
                np.ascontiguousarray(weights, np.float64),
                shards,  # type: ignore[arg-type]  # of shards it reads what borders have
            )
        return losses * weights / size, dread, flat

    def _outputs_of(self, x: Array, lengths: Array | None) -> tuple[Array, Any]:
        """The layer's outputs and final states."""
        return self.layer(x, lengths=lengths)

    def _read(self, y: Array, state: Any, lengths: Array | None) -> Array:
        return self.readout.read(self.layer, y, state, lengths)

    def _linear(self, read: Array) -> Array:
        weight, bias = (self.out[name].astype(np.float64) for name in ("weight", "bias"))
        # No BLAS: its sums depend on the size of the batch and on the number of threads.
        result: Array = np.einsum("bh,kh->bk", read, weight) + bias
        return result
