"""Packed sequences of torch as padded arrays with lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class PackedRows:
    """Where the values of a packed sequence are in a padded one: (S, ...) and (T, B, ...).

    Parameters
    ----------
    batch_sizes : (T,) array of int
        How many rows are alive at each step; rows are sorted, the longest first.
    """

    def __init__(self, batch_sizes: Array) -> None:
        alive = np.arange(batch_sizes[0]) < batch_sizes[:, None]
        self._shape = alive.shape
        self._places = np.flatnonzero(alive)
        self.lengths = alive.sum(axis=0)

    def padded(self, data: Array) -> Array:
        """(T, B, ...) array; what lies beyond the end of a row is zero."""
        steps, rows = self._shape
        array = np.zeros((steps * rows, *data.shape[1:]), data.dtype)
        array[self._places] = data
        return array.reshape(steps, rows, *data.shape[1:])

    def packed(self, array: Array) -> Array:
        """(S, ...) array, a copy."""
        return array.reshape(-1, *array.shape[2:]).take(self._places, axis=0)
