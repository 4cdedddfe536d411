"""What a call reads: a sequence or tokens, the lengths of its rows, and where states are reset."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation
from fastlstm._core import sequence
from fastlstm._layers.config import Config

Array = NDArray[Any]
Embedding = ArrayLike | None


class Inputs(NamedTuple):
    """The input of a call, time first, as the core takes it, and how the user has it."""

    x: Array | None
    """(T, B, I) array; with tokens (V, 1, I), or None for the unit matrix."""
    tokens: Array | None
    """(T, B) array of indices."""
    lengths: Array | None
    """(B,) array of integers."""
    reset: Array | None
    """(T, B) array of bool, contiguous."""
    time_batch: tuple[int, ...]
    """Steps and rows as the user has them: (T,), (T, B) or (B, T)."""
    batch_first: bool

    @property
    def size(self) -> tuple[int, int]:
        """Steps and rows."""
        sequence = self.x if self.tokens is None else self.tokens
        assert sequence is not None
        return sequence.shape[0], sequence.shape[1]

    @property
    def is_batch(self) -> bool:
        """Whether the user's sequences have rows."""
        return len(self.time_batch) == 2

    def part(
        self, steps: slice = slice(None)
    ) -> tuple[Array | None, Array | None, sequence.Rows | None]:
        """x, tokens and rows of these steps."""
        rows = None
        if self.lengths is not None or self.reset is not None:
            start, stop, _ = steps.indices(self.size[0])
            order = lengths = None
            if self.lengths is not None:
                order = np.argsort(-self.lengths, kind="stable")
                lengths = self.lengths[order] - start
            reset = None if self.reset is None else self.reset[start:stop]
            rows = sequence.Rows(order, lengths, stop - start, reset)
        if self.tokens is not None:
            return self.x, self.tokens[steps], rows
        assert self.x is not None
        return self.x[steps], None, rows

    def time_first(self, array: Array) -> Array:
        """A view (T, B, ...) of a sequence whose steps and rows are as the user has them."""
        return _time_first(array, self.time_batch, self.batch_first)

    def sequence_out(self, array: Array) -> Array:
        """A view of a sequence (T, B, ...) as the user has it."""
        if not self.is_batch:
            return array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first else array

    def clear_padding(self, array: Array) -> None:
        """Set to 0 what lies beyond the end of a row, in a sequence as the user has it."""
        if self.lengths is not None:
            padding = np.arange(self.size[0])[:, None] >= self.lengths
            self.time_first(array)[padding] = 0


def read_inputs(
    config: Config,
    x: ArrayLike,
    embedding: Embedding,
    lengths: ArrayLike | None,
    reset: ArrayLike | None,
) -> Inputs:
    """The input of a call, from the arguments of the user."""
    batch_first = config.batch_first
    steps_of_x, tokens, time_batch = _read_sequence(config, x, embedding)
    ordered = is_reset = None
    if lengths is not None:
        swapped = len(time_batch) == 2 and batch_first
        steps, rows = time_batch[::-1] if swapped else (*time_batch, 1)[:2]
        ordered = _validation.lengths(lengths, "lengths", steps, rows)
    if reset is not None:
        flags = _validation.flags(reset, "reset", time_batch)
        is_reset = np.array(_time_first(flags, time_batch, batch_first), order="C")
    return Inputs(steps_of_x, tokens, ordered, is_reset, time_batch, batch_first)


def _read_sequence(
    config: Config, x: ArrayLike, embedding: Embedding
) -> tuple[Array | None, Array | None, tuple[int, ...]]:
    """x and tokens, time first, and steps and rows as the user has them."""
    size, dtype, batch_first = config.input_size, config.dtype, config.batch_first
    if embedding is None:
        x = _validation.sequence(x, "x", size, dtype, batch_first)
        time_batch = x.shape[:-1]
        return _time_first(x, time_batch, batch_first), None, time_batch
    table = None
    if not isinstance(embedding, str):
        table = _validation.table(embedding, "embedding", size, dtype)
    elif embedding != "one-hot":
        raise ValueError(f"embedding: expected an array or 'one-hot', got {embedding!r}")
    count = size if table is None else len(table)
    tokens = _validation.tokens(x, "x", count, batch_first)
    ordered = np.ascontiguousarray(_time_first(tokens, tokens.shape, batch_first))
    return None if table is None else table[:, None], ordered, tokens.shape


def _time_first(array: Array, time_batch: tuple[int, ...], batch_first: bool) -> Array:
    if len(time_batch) == 1:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array
