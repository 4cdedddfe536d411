"""Which earlier steps an output depends on: the size of its gradient by what they read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer
from fastlstm._layers.config import WEIGHT_TYPES
from fastlstm.viewer._cells import Part

Array = NDArray[Any]
# The gradient of the loss at each row's place by the outputs (rows, Hout) of the last layer there.
Loss = Callable[[Array, Array], Array]

ROWS = 64  # places whose gradients are computed at the same time, of windows of
WINDOW = 128  # so many steps; fewer of longer ones
KEPT = 8  # steps with the largest gradients, shown for each place


def influences(
    layer: Layer[Any, Any, Any],
    parts: Sequence[Part],
    x: Array,
    places: Array,
    reach: int,
    loss: Loss,
) -> tuple[Array, Array]:
    """Return steps and shares, (places, KEPT) each: the largest first, and 0 where there are fewer.

    A share is the norm of d loss / d x_t over the sum of these norms over all steps that are
    looked at: at most `reach` up to the place and, if the layer reads both ways, as many from there
    on.  With several layers that read both ways, what leaves the window and comes back is missed.
    """
    steps = np.zeros((len(places), KEPT), np.intp)
    shares = np.zeros((len(places), KEPT))
    window = min(len(x), 2 * reach if layer.bidirectional else reach)
    count = max(1, min(ROWS, ROWS * WINDOW // window))
    for begin in _progress(range(0, len(places), count)):
        rows = slice(begin, begin + count)
        starts, norms = _norms(layer, parts, x, places[rows], reach, loss)
        order = np.argsort(-norms, axis=1, kind="stable")[:, :KEPT]
        total = norms.sum(axis=1, keepdims=True)
        found = np.take_along_axis(norms, order, 1) / np.where(total > 0, total, 1)
        steps[rows, : order.shape[1]] = order + starts[:, None]
        shares[rows, : order.shape[1]] = found
    steps[shares == 0] = 0
    return steps, shares


def _progress(blocks: range) -> Iterable[int]:
    """In a terminal, with a bar if it takes longer than two seconds."""
    from tqdm import tqdm

    shown: Iterable[int] = tqdm(blocks, "what mattered", delay=2, leave=False, disable=None)
    return shown


def without_chance(layer: Layer[Any, Any, Any]) -> Layer[Any, Any, Any] | None:
    """A copy whose `forward` draws nothing; None where there is no such, or it has no gradients."""
    if layer.weights_dtype in WEIGHT_TYPES[1:] or any(getattr(layer, "zoneout", ())):
        return None
    copied = copy.deepcopy(layer)
    copied.dropout = 0.0
    if getattr(copied, "recurrent_dropout", 0):
        setattr(copied, "recurrent_dropout", 0.0)  # noqa: B010  (of the LSTM alone)
    return copied


def _norms(
    layer: Layer[Any, Any, Any],
    parts: Sequence[Part],
    x: Array,
    places: Array,
    reach: int,
    loss: Loss,
) -> tuple[Array, Array]:
    """Where each row's window starts, and |d loss / d x_t| in it, (rows, window)."""
    starts = np.maximum(0, places - reach + 1)
    ends = np.minimum(len(x), places + reach) if layer.bidirectional else places + 1
    lengths = ends - starts
    inside = np.minimum(starts[:, None] + np.arange(int(lengths.max())), len(x) - 1)

    def laid_out(array: Array) -> Array:
        """Rows first, from the layout of the layer, and back."""
        return array if layer.batch_first else array.swapaxes(0, 1)

    # Each row begins in the states the trace has there, so that its outputs are those of the whole.
    states = _states(parts, starts, ends - 1)
    y, _, tape = layer.forward(laid_out(x[inside]), states, lengths=lengths)
    row, dy = np.arange(len(places)), np.zeros_like(laid_out(y))
    dy[row, places - starts] = loss(laid_out(y)[row, places - starts], places)
    dx, _, _ = layer.backward(tape, laid_out(dy))
    assert dx is not None
    return starts, np.linalg.norm(laid_out(dx).astype(np.float64), axis=2)


def _states(parts: Sequence[Part], first: Array, last: Array) -> Any:
    """The states before the first steps or, of parts that read backward, before the last ones."""
    names = ["hidden", "cell"] if "cell" in parts[0].values else ["hidden"]
    states = [
        np.stack([part.before(name)[last if part.reverse else first] for part in parts])
        for name in names
    ]
    return tuple(states) if len(states) > 1 else states[0]
