"""What enters the gates of a cell: from its input, from its hidden state before, and biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Contributions(NamedTuple):
    """What the sums of the gates are made of; each (T, B, gates, H), laid out like a trace."""

    input: Array
    """W x_t of each gate."""
    hidden: Array
    """U h_(t-1) of each gate."""
    bias: Array
    """The rest."""


class CellWeights(NamedTuple):
    """Of one layer and direction, the gates below each other."""

    input: Array
    """W, (gates * H, I)."""
    hidden: Array
    """U, (gates * H, Hout)."""
    bias_ih: Array
    bias_hh: Array


def cell_weights(parameters: Mapping[str, Array], level: int, reverse: bool) -> CellWeights:
    """Those of a layer and direction, as floats; biases are zeros where it has none."""
    suffix = f"l{level}{'_reverse' * reverse}"

    def matrix(name: str) -> Array:
        stored = parameters[f"{name}_{suffix}"]
        if f"{name}_{suffix}_scale" not in parameters:
            return stored
        return np.asarray(stored, np.float32) * parameters[f"{name}_{suffix}_scale"][:, None]

    matrices = matrix("weight_ih"), matrix("weight_hh")
    zeros = np.zeros(len(matrices[0]), matrices[0].dtype)
    of_x, of_h = (parameters.get(f"bias_{part}_{suffix}", zeros) for part in ("ih", "hh"))
    return CellWeights(*matrices, of_x, of_h)


def split(
    weights: CellWeights,
    units: int,
    read: Array,
    before: Array,
    reset: Array | None,
    reset_after: bool,
) -> Contributions:
    """Split what enters the functions of the plain cell.

    Parameters
    ----------
    weights : CellWeights
    units : int
        H.
    read, before : (..., I) and (..., Hout) arrays
        Inputs, and hidden states before.
    reset : (..., H) array, or None
        The reset gate of a GRU, which lets the past into its candidate, the last of its gates:
        before the product with U, or after it and the bias (`reset_after`).
    """
    gates = len(weights.bias_ih) // units
    shape = (*read.shape[:-1], gates, units)
    given = (read @ weights.input.T).reshape(shape)
    hidden = (before @ weights.hidden.T).reshape(shape)
    of_x, of_h = (part.reshape(gates, units) for part in (weights.bias_ih, weights.bias_hh))
    bias = np.broadcast_to(of_x + of_h, shape).copy()
    if reset is not None and reset_after:
        hidden[..., 2, :] *= reset
        bias[..., 2, :] = of_x[2] + reset * of_h[2]
    elif reset is not None:
        hidden[..., 2, :] = (reset * before) @ weights.hidden[2 * units :].T
    return Contributions(given, hidden, bias)
