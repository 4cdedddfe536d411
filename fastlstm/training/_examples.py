"""What a model of one's own is trained on: examples, or batches that are made on demand."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm.training._batches import ShuffledRows

Array = NDArray[Any]


class Examples:
    """Shuffled batches of arrays and lists.

    Attributes
    ----------
    generator : Generator
        Of the order.
    per_epoch : int
        Batches of an epoch.
    size : int
        Examples of the last batch.
    read : int
        Batches so far.
    """

    def __init__(self, parts: tuple[Any, ...], count: int, batch_size: int, seed: Any) -> None:
        self.generator = np.random.default_rng(seed)
        self._parts = parts
        self._rows = ShuffledRows(count, batch_size, self.generator.permutation)
        self.per_epoch: int | None = self._rows.per_epoch
        self.size = 0

    @property
    def read(self) -> int:
        return self._rows.read

    def next(self) -> tuple[Any, ...]:
        """A batch."""
        rows = self._rows.next()
        self.size = len(rows)
        return tuple(
            part[rows] if isinstance(part, np.ndarray) else [part[row] for row in rows]
            for part in self._parts
        )

    def state(self) -> tuple[Array, ...]:
        """What tells the batches to come, beside the generator."""
        return (self._rows.order.astype(np.float64),)  # as files have numbers

    def go_on(self, read: int, state: tuple[Array, ...]) -> None:
        """Stand where `state` was told."""
        self._rows.read, self._rows.order = read, state[0].astype(np.intp)

    def fingerprint(self) -> str:
        """What tells these examples from others, in an error too."""
        digest = hashlib.blake2b(digest_size=6)
        for part in self._parts:
            _feed(digest, part)
        return f"{len(self._rows.order):,} examples with hash {digest.hexdigest()}"


def _feed(digest: Any, item: Any) -> None:
    """Read all of an item into a digest: arrays by their bytes, others by what they consist of."""
    try:
        array = np.asarray(item)
    except ValueError:  # a list of items of unequal shapes
        array = np.empty((), object)
    if not array.dtype.hasobject:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    elif isinstance(item, Mapping):
        _feed(digest, [*item.items()])
    elif isinstance(item, Iterable):
        parts = list(item)
        digest.update(f"{type(item).__name__} of {len(parts)}".encode())
        for part in parts:
            _feed(digest, part)
    else:
        digest.update(pickle.dumps(item))


class Generated:
    """Batches that a function makes of a generator; attributes as those of `Examples`."""

    per_epoch: int | None = None
    size = 1

    def __init__(self, make: Callable[[np.random.Generator], Any], seed: Any) -> None:
        self.generator = np.random.default_rng(seed)
        self._make = make
        self.read = 0

    def next(self) -> tuple[Any, ...]:
        """A batch."""
        batch = self._make(self.generator)
        if not isinstance(batch, tuple):
            raise TypeError(
                f"data: expected a function that returns a tuple, got {type(batch).__name__}"
            )
        self.read += 1
        return batch

    def state(self) -> tuple[Array, ...]:
        """Nothing but the generator tells the batches to come."""
        return ()

    def go_on(self, read: int, state: tuple[Array, ...]) -> None:
        """Stand where `state` was told."""
        self.read = read

    def fingerprint(self) -> str:
        """A function has none."""
        return "made by a function"


def examples_of(data: Any, batch_size: int, seed: int | None) -> Examples | Generated:
    """What the argument of `fit` means.

    Raises
    ------
    TypeError, ValueError
        It cannot be meant.
    """
    if seed is not None:
        seed = _validation.integer(seed, "seed", 0)
    if callable(data):
        return Generated(data, seed)
    if not isinstance(data, tuple) or not data:
        raise TypeError(
            "data: expected a tuple of arrays or lists, such as (X, y), or a function that makes "
            f"a batch, got {type(data).__name__}"
        )
    parts = tuple(part if isinstance(part, list) else np.asarray(part) for part in data)
    for i, part in enumerate(parts):
        if isinstance(part, np.ndarray) and not part.ndim:
            raise TypeError(f"data[{i}]: expected an array or a list, got {type(data[i]).__name__}")
    counts = [len(part) for part in parts]
    if len(set(counts)) != 1 or not counts[0]:
        raise ValueError(
            "data: expected the same number of examples in each part, at least one, "
            f"got {' and '.join(map(str, counts))}"
        )
    return Examples(parts, counts[0], batch_size, seed)
