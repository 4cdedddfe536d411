"""A batch cut into shards, whose gradients are added in an order that is always the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._parameters import Gradients

Array = NDArray[Any]


class Shards:
    """How a batch of B rows is cut into S shards, and which of them one of P processes computes.

    Shard s has the rows from s*B//S to (s+1)*B//S, whatever P is; process p has the shards from
    p*S//P to (p+1)*S//P.

    Parameters
    ----------
    batch : int
        B, rows of the whole batch.
    count : int
        S, a power of two.
    rank, size : int
        p and P.

    Attributes
    ----------
    first, end : int
        The process has the shards from `first` to `end` - 1.
    rows : slice
        Their rows in the whole batch.
    starts : (end - first + 1,) array of intp
        The borders of these shards, counted from their first row.
    most_rows : int
        Rows of the largest of all S shards.

    Raises
    ------
    TypeError, ValueError
        An argument is no such number.

    Examples
    --------
    >>> shards = Shards(60, 8, rank=1, size=2)
    >>> shards.rows, shards.starts.tolist()
    (slice(30, 60, None), [0, 7, 15, 22, 30])
    """

    def __init__(self, batch: int, count: int, rank: int = 0, size: int = 1) -> None:
        self.batch = _validation.integer(batch, "batch", 0)
        self.count = _validation.integer(count, "shards", 1)
        if self.count & (self.count - 1):
            raise ValueError(f"shards: expected a power of two, got {count}")
        size = _validation.integer(size, "size", 1)
        rank = _validation.integer(rank, "rank", 0)
        if rank >= size:
            raise ValueError(f"rank: expected a number below {size}, got {rank}")
        self.first, self.end = (p * self.count // size for p in (rank, rank + 1))
        borders = np.arange(self.first, self.end + 1) * self.batch // self.count
        self.rows = slice(int(borders[0]), int(borders[-1]))
        self.starts = (borders - borders[0]).astype(np.intp)
        self.most_rows = -(-self.batch // self.count)

    def __repr__(self) -> str:
        return f"Shards({self.first} to {self.end - 1} of {self.count}, batch={self.batch})"


class ShardGradients(Sequence[Gradients]):
    """The gradients of the shards that one process has.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        As of `Gradients`.
    array : (shards.end - shards.first, N) array
        A row for each shard.
    shards : Shards
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], array: Array, shards: Shards) -> None:
        self.shapes = dict(shapes)
        self.array = array
        self.shards = shards

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, i: int) -> Gradients: ...
    @overload
    def __getitem__(self, i: slice) -> list[Gradients]: ...
    def __getitem__(self, i: int | slice) -> Gradients | list[Gradients]:
        if isinstance(i, slice):
            return [Gradients(self.shapes, flat) for flat in self.array[i]]
        return Gradients(self.shapes, self.array[i])

    def __iter__(self) -> Iterator[Gradients]:
        return iter(self[:])

    def of(self, name: str) -> Array:
        """The gradients of one parameter, of all these shards: a view, ``(shards, *shape)``."""
        names = list(self.shapes)
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        place = names.index(name)
        start = sum(sizes[:place])
        part = self.array[:, start : start + sizes[place]]
        return part.reshape(len(part), *self.shapes[name])

    def __repr__(self) -> str:
        return f"ShardGradients({self.array.shape[1]} x {self.array.dtype.name}, {self.shards!r})"
