"""Which earlier steps an output depends on: the size of its gradient by what they read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer
from fastlstm._layers.config import WEIGHT_TYPES
from fastlstm.viewer._cells import Part

Array = NDArray[Any]
# The gradient of the loss at each row's place by the outputs (rows, Hout) of the last layer there.
Loss = Callable[[Array, Array], Array]

ROWS = 64  # places whose gradients are computed at the same time
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
    looked at: those up to the place, at most `reach` of them, and all of them, in both
    directions, if the layer reads both ways.
    """
    steps = np.zeros((len(places), KEPT), np.intp)
    shares = np.zeros((len(places), KEPT))
    for begin in range(0, len(places), ROWS):
        rows = slice(begin, begin + ROWS)
        starts, norms = _norms(layer, parts, x, places[rows], reach, loss)
        order = np.argsort(-norms, axis=1, kind="stable")[:, :KEPT]
        total = norms.sum(axis=1, keepdims=True)
        found = np.take_along_axis(norms, order, 1) / np.where(total > 0, total, 1)
        steps[rows, : order.shape[1]] = order + starts[:, None]
        shares[rows, : order.shape[1]] = found
    steps[shares == 0] = 0
    return steps, shares


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
    if layer.bidirectional:
        starts, lengths = np.zeros_like(places), np.full_like(places, len(x))
    else:
        starts = np.maximum(0, places - reach + 1)
        lengths = places - starts + 1
    inside = np.minimum(starts[:, None] + np.arange(int(lengths.max())), len(x) - 1)

    def laid_out(array: Array) -> Array:
        """Rows first, from the layout of the layer, and back."""
        return array if layer.batch_first else array.swapaxes(0, 1)

    # Each row begins in the state the trace has there, so that its outputs are those of the whole.
    y, _, tape = layer.forward(laid_out(x[inside]), _states(layer, parts, starts), lengths=lengths)
    row, dy = np.arange(len(places)), np.zeros_like(laid_out(y))
    dy[row, places - starts] = loss(laid_out(y)[row, places - starts], places)
    dx, _, _ = layer.backward(tape, laid_out(dy))
    assert dx is not None
    return starts, np.linalg.norm(laid_out(dx).astype(np.float64), axis=2)


def _states(layer: Layer[Any, Any, Any], parts: Sequence[Part], starts: Array) -> Any:
    """The states before each start, (L*D, rows, units)."""
    names = ["hidden", "cell"] if "cell" in parts[0].values else ["hidden"]
    if layer.bidirectional:
        return None
    states = [np.stack([part.before(name)[starts] for part in parts]) for name in names]
    return tuple(states) if len(states) > 1 else states[0]
