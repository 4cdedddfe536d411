"""Which earlier steps an output depends on: the size of its gradient by what they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer
from fastlstm._layers.config import WEIGHT_TYPES
from fastlstm.training._progress import open_bar
from fastlstm.viewer._cells import Part

Array = NDArray[Any]
# The gradient of the loss at each row's place by the outputs (rows, Hout) of the last layer there.
Loss = Callable[[Array, Array], Array]

ROWS = 64  # places whose gradients are computed at the same time, of windows of
WINDOW = 128  # so many steps; fewer of longer ones
KEPT = 8  # steps with the largest gradients, shown for each place


def why_no_gradients(layer: Layer[Any, Any, Any]) -> str:
    """What a layer has that leaves no gradients to show; nothing, if it has them."""
    if layer.weights_dtype in WEIGHT_TYPES[1:]:
        return f"weights of {layer.weights_dtype}, which cannot be trained"
    return "zoneout, which is random in training" if any(getattr(layer, "zoneout", ())) else ""


class Influence:
    """Gradients of a loss at some places by what a layer reads.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Without dropout, and with gradients.
    parts : sequence of Part
        Of its trace.
    x : (T, I) array
        What it read.
    reach : int
        Steps that are looked at, up to the place and, if the layer reads both ways, as many from
        there on.  With several layers that read both ways, what leaves this window and comes back
        is missed.
    loss : callable
    """

    def __init__(
        self, layer: Layer[Any, Any, Any], parts: Sequence[Part], x: Array, reach: int, loss: Loss
    ) -> None:
        self._layer, self._x, self._reach, self._loss = layer, x, reach, loss
        self._reverse = [part.reverse for part in parts]
        names = ["hidden", "cell"] if "cell" in parts[0].values else ["hidden"]
        self._before = [[part.before(name) for part in parts] for name in names]

    def of(self, places: Array) -> tuple[Array, Array]:
        """Return steps and shares, (places, KEPT) each: the largest first, 0 where there are fewer.

        A share is the norm of d loss / d x_t over the sum of these norms over the window.
        """
        steps = np.zeros((len(places), KEPT), np.intp)
        shares = np.zeros((len(places), KEPT))
        window = min(len(self._x), 2 * self._reach if self._layer.bidirectional else self._reach)
        count = max(1, min(ROWS, ROWS * WINDOW // window))
        bar = open_bar(len(places), unit="place", delay=2)
        for begin in range(0, len(places), count):
            rows = slice(begin, begin + count)
            starts, norms = self._norms(places[rows])
            order = np.argsort(-norms, axis=1, kind="stable")[:, :KEPT]
            total = norms.sum(axis=1, keepdims=True)
            found = np.take_along_axis(norms, order, 1) / np.where(total > 0, total, 1)
            steps[rows, : order.shape[1]] = order + starts[:, None]
            shares[rows, : order.shape[1]] = found
            if bar is not None:
                bar.update(len(starts))
        if bar is not None:
            bar.close()
        steps[shares == 0] = 0
        return steps, shares

    def _norms(self, places: Array) -> tuple[Array, Array]:
        """Where each row's window starts, and |d loss / d x_t| in it, (rows, window)."""
        layer, x = self._layer, self._x
        starts = np.maximum(0, places - self._reach + 1)
        both = layer.bidirectional
        ends = np.minimum(len(x), places + self._reach) if both else places + 1
        lengths = ends - starts
        inside = np.minimum(starts[:, None] + np.arange(int(lengths.max())), len(x) - 1)

        def laid_out(array: Array) -> Array:
            """Rows first, from the layout of the layer, and back."""
            return array if layer.batch_first else array.swapaxes(0, 1)

        states = self._states(starts, ends - 1)
        y, _, tape = layer.forward(laid_out(x[inside]), states, lengths=lengths)
        row, dy = np.arange(len(places)), np.zeros_like(laid_out(y))
        dy[row, places - starts] = self._loss(laid_out(y)[row, places - starts], places)
        dx, _, _ = layer.backward(tape, laid_out(dy))
        assert dx is not None
        return starts, np.linalg.norm(laid_out(dx).astype(np.float64), axis=2)

    def _states(self, first: Array, last: Array) -> Any:
        """Those the trace has before windows, so that their outputs are those of the whole.

        Parts that read backward begin at the last step of a window.
        """
        states = [
            np.stack(
                [p[last if back else first] for p, back in zip(parts, self._reverse, strict=True)]
            )
            for parts in self._before
        ]
        return tuple(states) if len(states) > 1 else states[0]
