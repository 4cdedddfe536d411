"""Groups of threads: what `fastlstm.distributed` does, without an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastlstm._shards import ShardGradients
from fastlstm.distributed import Group

Array = Any


class Desk:
    """Where threads meet, and leave their bytes for each other."""

    def __init__(self, size: int, timeout: float) -> None:
        self.barrier = threading.Barrier(size, timeout=timeout)
        self.parcels: list[list[Array]] = [[] for _ in range(size)]


class ThreadGroup(Group):
    """One thread of several; it counts the bytes that it sends to others."""

    def __init__(self, rank: int, size: int, desk: Desk) -> None:
        self.rank, self.size, self.sent = rank, size, 0
        self._desk = desk

    def _exchange_parcels(self, parcels: list[Array]) -> list[Array]:
        """What each thread left for this one."""
        self.sent += sum(p.nbytes for rank, p in enumerate(parcels) if rank != self.rank)
        self._meet()
        self._desk.parcels[self.rank] = parcels
        self._meet()
        return [parcels[self.rank] for parcels in self._desk.parcels]

    def _meet(self) -> None:
        try:
            self._desk.barrier.wait()
        except threading.BrokenBarrierError:
            raise TimeoutError(f"{self} waited in vain") from None

    def _alltoall(
        self, send: Array, sent: Sequence[int], receive: Array, received: Sequence[int]
    ) -> None:
        assert (sum(sent), sum(received)) == (send.size, receive.size)
        parcels = self._exchange_parcels(np.split(send.copy(), np.cumsum(sent)[:-1]))
        assert [parcel.size for parcel in parcels] == list(received)
        receive[...] = np.concatenate(parcels)

    def _allgather(self, send: Array, receive: Array) -> None:
        receive[...] = np.concatenate(self._exchange_parcels([send.copy()] * self.size))

    def _broadcast(self, buffer: Array) -> None:
        buffer[...] = self._exchange_parcels([buffer.copy()] * self.size)[0]


def outcomes(size: int, work: Callable[[ThreadGroup], Any], timeout: float = 20) -> list[Any]:
    """What `work` returns, or the exception that it raises, in each thread of a group."""
    desk = Desk(size, timeout)

    def outcome(rank: int) -> Any:
        try:
            return work(ThreadGroup(rank, size, desk))
        except BaseException as error:
            return error

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(outcome, range(size)))


def in_threads(size: int, work: Callable[[ThreadGroup], Any]) -> list[Any]:
    """What `work` returns in each thread of a group; the first error is raised."""
    found = outcomes(size, work)
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
    return found


def gradients_of(group: Group, of_shards: Array, batch: int = 64) -> ShardGradients:
    """Those that a process of `group` has, of gradients (S, N) of all shards."""
    shards = group.shards(batch, len(of_shards))
    own = of_shards[shards.first : shards.end]
    return ShardGradients({"w": (of_shards.shape[1],)}, own, shards)


def tree_sum(of_shards: Array) -> Array:
    """By the definition: the left half plus the right half."""
    if len(of_shards) == 1:
        return of_shards[0]
    middle = len(of_shards) // 2
    return tree_sum(of_shards[:middle]) + tree_sum(of_shards[middle:])
