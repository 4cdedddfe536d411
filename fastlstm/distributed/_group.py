"""Processes that train one model together: what they tell each other, and how they add."""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn, Self, overload

import numpy as np
from numpy.typing import NDArray

from fastlstm import _config
from fastlstm._core import threads
from fastlstm._parameters import Gradients
from fastlstm._shards import ShardGradients, Shards
from fastlstm.distributed._sum import bytes_of, sum_of

Array = NDArray[Any]

# A new thread has none: searches that fit in threads are not taken for one training.
_entered: ContextVar[tuple[Group, ...]] = ContextVar("fastlstm.distributed", default=())


def current() -> Group | None:
    """The group of the innermost ``with group:`` around the caller, None if there is none."""
    entered = _entered.get()
    return entered[-1] if entered else None


class Group(ABC):
    """Processes that train one model together, each with some shards of every batch.

    `mpi`, `torch` and `alone` make one.  The engine only moves bytes, all additions are made here,
    in an order that does not depend on the number of processes; so neither does a bit of the
    result.  ``with group:`` makes it the group of the estimators that are fitted within.

    Every process has to make the same calls in the same order, except those of `abort` and
    `shards`; a process without shards is no exception.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and of all processes.

    Notes
    -----
    Another engine takes a subclass with three methods that are collective: all processes call
    them, and leave them when the bytes are there.  Buffers are arrays (n,) of uint8:

    * ``_alltoall(send, sent, receive, received)``: `send` has ``sent[r]`` bytes for each process r,
      one after another, and `receive` likewise ``received[r]`` from it;
    * ``_allgather(send, receive)``: `receive` gets the bytes of all, in the order of their ranks;
      there are as many of each;
    * ``_broadcast(buffer)``: `buffer` gets the bytes that it has in process 0.

    Examples
    --------
    >>> from fastlstm import distributed
    >>> distributed.alone()
    Alone(rank=0, size=1)
    """

    rank: int
    size: int
    _summed: frozenset[tuple[Any, ...]] = frozenset()  # of what kinds all processes had gradients

    @abstractmethod
    def _alltoall(
        self, send: Array, sent: Sequence[int], receive: Array, received: Sequence[int]
    ) -> None: ...

    @abstractmethod
    def _allgather(self, send: Array, receive: Array) -> None: ...

    @abstractmethod
    def _broadcast(self, buffer: Array) -> None: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, size={self.size})"

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *error: object) -> None:
        _entered.set(_entered.get()[:-1])

    def abort(self, code: int = 1) -> NoReturn:
        """End this process at once, and with it the others, as far as the engine can.

        For a process that cannot go on, after a `TimeoutError` for example: to end in the usual
        way may be to wait for the others again.

        Parameters
        ----------
        code : int, default 1
            The exit status.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def shards(self, batch: int, count: int) -> Shards:
        """Return how a batch is cut, and which shards of it this process has.

        Parameters
        ----------
        batch : int
            Rows of the whole batch.
        count : int
            Shards of it, a power of two.

        Returns
        -------
        Shards

        Raises
        ------
        TypeError, ValueError
            An argument is no such number.
        """
        return Shards(batch, count, self.rank, self.size)

    @overload
    def sum(self, gradients: ShardGradients) -> Gradients: ...
    @overload
    def sum(self, gradients: Sequence[ShardGradients]) -> list[Gradients]: ...
    def sum(
        self, gradients: ShardGradients | Sequence[ShardGradients]
    ) -> Gradients | list[Gradients]:
        """Add the gradients of all shards of all processes.

        Parameters
        ----------
        gradients : ShardGradients, or a sequence of them
            Of the shards that this process has.  Several (of a layer, and of what reads it) are
            sent together.

        Returns
        -------
        Gradients, or list of Gradients
            The sum, in every process, with the same bits for any number of them.

        Raises
        ------
        TypeError, ValueError
            Not gradients of one dtype and of the shards of this process.
        TimeoutError
            Another process did not come.

        Notes
        -----
        With N numbers, and P processes that have a complete subtree each, a process sends
        2N(P-1)/P numbers, as many as in a ring all-reduce.

        Examples
        --------
        >>> import numpy as np
        >>> from fastlstm import distributed
        >>> group = distributed.alone()
        >>> shards = group.shards(batch=8, count=4)
        >>> of_shards = np.arange(8.0).reshape(4, 2)
        >>> gradients = distributed.ShardGradients({"w": (2,)}, of_shards, shards)
        >>> group.sum(gradients)["w"]
        array([12., 16.])
        """
        parts = [gradients] if isinstance(gradients, ShardGradients) else list(gradients)
        shards = self._shards_of(parts)
        key = (*_key(shards)[:2], *((part.array.dtype.name, part.array.shape[1]) for part in parts))
        if key not in self._summed:  # or a process would wait for bytes that do not come
            self.check({"gradients to sum": key})
            self._summed |= {key}
        total = sum_of(self, parts, shards)
        borders = itertools.accumulate((part.array.shape[1] for part in parts), initial=0)
        sums = [
            Gradients(part.shapes, total[start:end])
            for part, (start, end) in zip(parts, itertools.pairwise(borders), strict=True)
        ]
        return sums[0] if isinstance(gradients, ShardGradients) else sums

    def _shards_of(self, parts: Sequence[ShardGradients]) -> Shards:
        """The shards that all parts are of."""
        dtypes = sorted({part.array.dtype.name for part in parts})
        if len(dtypes) != 1:
            raise TypeError(f"gradients: expected one dtype, got {', '.join(dtypes) or 'none'}")
        shards = parts[0].shards
        own = self.shards(shards.batch, shards.count)
        for part in parts:
            if _key(part.shards) != _key(own):
                raise ValueError(f"gradients: expected those of {own}, got {part.shards}")
        return shards

    def total(self, values: NDArray[np.float64]) -> float:
        """Add a number of each shard: the losses.

        Parameters
        ----------
        values : (n,) array of float64
            Of the shards that this process has.

        Returns
        -------
        float
            The sum over all shards of all processes, in the order of `sum`.

        Raises
        ------
        ValueError
            The shards of all are no power of two.
        TimeoutError
            Another process did not come.
        """
        data = self._gather_bytes(np.asarray(values, np.float64).tobytes())
        sums = np.frombuffer(b"".join(data))
        if not len(sums) or len(sums) & (len(sums) - 1):
            raise ValueError(f"values: expected a power of two in all processes, got {len(sums)}")
        while len(sums) > 1:
            sums = sums[0::2] + sums[1::2]
        return float(sums[0])

    def gather(self, value: Any) -> list[Any]:
        """Return what all processes gave, in the order of their ranks.

        Parameters
        ----------
        value : picklable

        Returns
        -------
        list
        """
        return [pickle.loads(data) for data in self._gather_bytes(pickle.dumps(value))]

    def _gather_bytes(self, data: bytes) -> list[bytes]:
        sizes = self._gather_array(np.array(len(data), np.int64))
        padded = np.zeros(sizes.max(), np.uint8)
        padded[: len(data)] = np.frombuffer(data, np.uint8)
        rows = self._gather_array(padded)
        return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]

    def _gather_array(self, array: Array) -> Array:
        """(P, ...) array of equal ones."""
        gathered = np.empty((self.size, *array.shape), array.dtype)
        self._allgather(bytes_of(array), bytes_of(gathered))
        return gathered

    def share(self, value: Any) -> Any:
        """Return what process 0 gave, in every process.

        Parameters
        ----------
        value : picklable
            Of process 0; those of the others are ignored.
        """
        data = pickle.dumps(value) if self.rank == 0 else b""
        size = np.array(len(data), np.int64)
        self._broadcast(bytes_of(size))
        buffer = np.zeros(size, np.uint8)
        buffer[: len(data)] = np.frombuffer(data, np.uint8)
        self._broadcast(buffer)
        return value if self.rank == 0 else pickle.loads(buffer.tobytes())

    def vote(self, error: BaseException | None, stop: int) -> int:
        """Agree on how to go on at the end of a step: all of them, or none.

        Parameters
        ----------
        error : exception or None
            What went wrong in this process.
        stop : int
            Why this process was asked to stop, the number of a signal; 0 if it was not.

        Returns
        -------
        int
            The largest `stop` of all processes.

        Raises
        ------
        BaseException
            `error` itself.
        RuntimeError
            An error of other processes; it names them.

        Examples
        --------
        >>> from fastlstm import distributed
        >>> distributed.alone().vote(None, 15)
        15
        """
        votes = self._gather_array(np.array(stop if error is None else -1, np.int64))
        if votes.min() >= 0:
            return int(votes.max())
        errors = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        raise RuntimeError("; ".join(f"rank {r}: {text}" for r, text in enumerate(errors) if text))

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise an error in every process if they would not compute the same.

        Versions of fastlstm have to be equal; either all processes or none have fused
        multiply-add (instruction sets other than `baseline` do); and so have to be `settings`.

        Parameters
        ----------
        settings : mapping
            Names and values, which are compared as `repr` writes them.

        Raises
        ------
        ValueError
            It names what differs, its values, and the ranks that have them.

        Examples
        --------
        >>> from fastlstm import distributed
        >>> distributed.alone().check({"lr": 0.01})
        """
        own = {"fastlstm": _config.__version__, "instruction set": threads.arithmetic()}
        own |= {name: repr(value) for name, value in settings.items()}
        all_ = self.gather(own)
        differences = []
        for name in dict.fromkeys(itertools.chain(*all_)):
            values = [of_rank.get(name, "not set") for of_rank in all_]
            if len(set(values)) > 1:
                differences.append(f"{name}: {_who_has_what(values)}")
        if differences:
            raise ValueError(f"expected equal processes, got {'; '.join(differences)}")

    def check_same(self, arrays: Iterable[Array], what: str) -> None:
        """Raise an error in every process if arrays have not the same bits in all of them.

        Parameters
        ----------
        arrays : iterable of arrays
        what : str
            Their name, for the message.

        Raises
        ------
        RuntimeError
            It names the ranks that differ.
        """
        hashed = hashlib.blake2b(digest_size=8)
        for array in arrays:
            hashed.update(f"{array.dtype.str} {array.shape}".encode())
            hashed.update(bytes_of(np.ascontiguousarray(array)).data)
        digests = self.gather(hashed.hexdigest())
        if len(set(digests)) > 1:
            found = _who_has_what(digests)
            raise RuntimeError(f"{what}: expected the same bits in all processes, got {found}")


def _key(shards: Shards) -> tuple[int, ...]:
    return shards.batch, shards.count, shards.first, shards.end


def _who_has_what(values: Sequence[str]) -> str:
    """``'1 on ranks 0 and 2, 2 on rank 1'``."""
    return ", ".join(
        f"{value} on {_ranks([rank for rank, other in enumerate(values) if other == value])}"
        for value in dict.fromkeys(values)
    )


def _ranks(ranks: Sequence[int]) -> str:
    """``'rank 1'``, ``'ranks 0, 1 and 5'``, of many the first ones."""
    names = [str(rank) for rank in ranks[:8]]
    if len(ranks) > len(names):
        names.append(f"{len(ranks) - len(names)} more")
    *others, last = names
    return f"ranks {', '.join(others)} and {last}" if others else f"rank {last}"
