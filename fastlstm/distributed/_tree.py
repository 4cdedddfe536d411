"""A sum of shards by a binary tree over their numbers, the same for any number of processes.

A node (first, end) is a complete subtree: `end - first` is a power of two that divides `first`.
Its sum is that of its left half plus that of its right half.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Node = tuple[int, int]

_BLOCK = 1 << 15  # numbers added at a time: a few rows of them stay in the L2 cache


def nodes(first: int, end: int) -> list[Node]:
    """The largest nodes that the shards from `first` to `end` - 1 make up, in their order."""
    found = []
    while first < end:
        size = first & -first or end
        size = 1 << (min(size, end - first).bit_length() - 1)
        found.append((first, first + size))
        first += size
    return found


def add(leaves: Mapping[Node, Array], node: Node, out: Array) -> None:
    """The sum of `node` into `out`, from the sums (N,) of nodes below it."""
    depth = (node[1] - node[0]).bit_length() - 1
    spare = np.empty((max(0, depth - 1), _BLOCK), out.dtype)
    for start in range(0, len(out), _BLOCK):
        block = slice(start, start + _BLOCK)
        room = [out[block]]
        room += [row[: len(room[0])] for row in spare]
        total = _sum(leaves, *node, block, room)
        if total is not room[0]:  # the node is itself a leaf
            room[0][...] = total


def _sum(
    leaves: Mapping[Node, Array], first: int, end: int, block: slice, room: list[Array]
) -> Array:
    """A leaf, or the sum of two halves in the first array of `room`."""
    leaf = leaves.get((first, end))
    if leaf is not None:
        return leaf[block]
    middle = (first + end) // 2
    left = _sum(leaves, first, middle, block, room)
    right = _sum(leaves, middle, end, block, room[1:])
    total: Array = np.add(left, right, out=room[0])
    return total
