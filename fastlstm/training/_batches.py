"""Batches that read a text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[Any]  # character numbers, in the smallest unsigned type that holds them


class TrainingRows:
    """Endless chunks of a text for truncated BPTT: row b reads on from b/B of the text.

    During an epoch each row reads its own contiguous part; then it reads on in the next part,
    and at the end of the text from the start, so that the state can always be carried on.

    Parameters
    ----------
    codes : (n,) array
        The text.
    rows, steps : int
        Rows of a batch, and time steps of a chunk.
    own : slice
        The rows that are read here.

    Attributes
    ----------
    read : int
        Characters each row has read; assign to it to go on from there.
    """

    def __init__(self, codes: Codes, rows: int, steps: int, own: slice = slice(None)) -> None:
        self._codes = codes
        starts = len(codes) * np.arange(rows) // rows
        # One step more: the target is the next character.
        self._places = starts[own] + np.arange(steps + 1)[:, None]
        self._steps = steps
        self.read = 0

    def next(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return inputs and targets, [T, rows] each, and move on by T characters."""
        places = self._places + self.read % len(self._codes)
        chunk = self._codes.take(places, mode="wrap").astype(np.intp)
        self.read += self._steps
        return chunk[:-1], chunk[1:]
