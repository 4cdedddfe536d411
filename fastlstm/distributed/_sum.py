"""The sum of gradients over all processes, in the order of the tree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastlstm._core import memory
from fastlstm._shards import ShardGradients, Shards
from fastlstm.distributed import _tree

Array = NDArray[Any]


class Engine(Protocol):
    """What a sum needs of a `Group`."""

    rank: int
    size: int

    def _alltoall(
        self, send: Array, sent: Sequence[int], receive: Array, received: Sequence[int]
    ) -> None: ...

    def _allgather(self, send: Array, receive: Array) -> None: ...


def sum_of(group: Engine, parts: Sequence[ShardGradients], shards: Shards) -> Array:
    """One vector of all parts, one after another: their sums over all shards of all processes."""
    return _exchange(group, _own_sums(parts, shards), shards)


def bytes_of(array: Array) -> Array:
    """The bytes of a contiguous array, in its memory."""
    return array.reshape(-1).view(np.uint8)


def _exchange(group: Engine, own: Array, shards: Shards) -> Array:
    """The sum (N,) of all shards, from the sums (nodes, N) of the nodes of each process.

    Each process finishes a slice of it.
    """
    if group.size == 1:
        total: Array = own[0]
        return total
    n, dtype = own.shape[1], own.dtype
    width = -(-n // group.size)  # the last slices may be smaller
    borders = [min(rank * width, n) for rank in range(group.size + 1)]
    slices = list(itertools.pairwise(borders))
    mine = borders[group.rank + 1] - borders[group.rank]
    nodes = [
        _tree.nodes(of.first, of.end)
        for of in (Shards(shards.batch, shards.count, r, group.size) for r in range(group.size))
    ]
    received = memory.empty((sum(map(len, nodes)), mine), dtype)
    send = own if len(own) == 1 else np.concatenate([own[:, a:b].ravel() for a, b in slices])
    group._alltoall(
        bytes_of(send),
        [len(own) * (b - a) * dtype.itemsize for a, b in slices],
        bytes_of(received),
        [len(of_rank) * mine * dtype.itemsize for of_rank in nodes],
    )
    finished = np.zeros(width, dtype)
    leaves = dict(zip(itertools.chain(*nodes), received, strict=True))
    _tree.add(leaves, (0, shards.count), finished[:mine])
    total = memory.empty((group.size * width,), dtype)
    group._allgather(bytes_of(finished), bytes_of(total))
    return total[:n]


def _own_sums(parts: Sequence[ShardGradients], shards: Shards) -> Array:
    """(nodes, N) array: the sum of each node that this process has all shards of."""
    nodes = _tree.nodes(shards.first, shards.end)
    width = sum(part.array.shape[1] for part in parts)
    sums = memory.empty((len(nodes), width), parts[0].array.dtype)
    start = 0
    for part in parts:
        end = start + part.array.shape[1]
        leaves = {(s, s + 1): row for s, row in enumerate(part.array, shards.first)}
        for node, row in zip(nodes, sums, strict=True):
            _tree.add(leaves, node, row[start:end])
        start = end
    return sums
