"""Batches: chunks of a text, and examples in a random order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[Any]  # character numbers, in the smallest unsigned type that holds them
Rows = NDArray[np.intp]


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

    def next(self) -> tuple[Rows, Rows]:
        """Return inputs and targets, [T, rows] each, and move on by T characters."""
        places = self._places + self.read % len(self._codes)
        chunk = self._codes.take(places, mode="wrap").astype(np.intp)
        self.read += self._steps
        return chunk[:-1], chunk[1:]


class ShuffledRows:
    """Endless batches of n examples, each once in an epoch.

    Parameters
    ----------
    count : int
        How many there are, n.
    batch_size : int
        Of all batches but the last one of an epoch.
    permutation : callable
        Returns the order of an epoch, (n,).

    Attributes
    ----------
    read : int
        Batches so far.
    order : (n,) array
        Of this epoch.
    """

    def __init__(self, count: int, batch_size: int, permutation: Callable[[int], Rows]) -> None:
        self.per_epoch = math.ceil(count / batch_size)
        self._batch_size, self._permutation = batch_size, permutation
        self.read, self.order = 0, np.arange(count)

    def next(self) -> Rows:
        """The numbers of the examples of the next batch."""
        place = self.read % self.per_epoch
        if place == 0:
            self.order = self._permutation(len(self.order))
        self.read += 1
        return self.order[place * self._batch_size : (place + 1) * self._batch_size]
