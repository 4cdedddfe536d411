"""What a call reads: a sequence or tokens, the lengths of its rows, and where states start anew."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._core import sequence

Array = NDArray[Any]


class Inputs(NamedTuple):
    """The input of a call, time first, as the core takes it."""

    x: Array | None
    """(T, B, I) array; with tokens (V, 1, I), or None for the unit matrix."""
    tokens: Array | None
    """(T, B) array of indices."""
    lengths: Array | None
    """(B,) array of integers."""
    reset: Array | None
    """(T, B) array of bool, contiguous."""

    @property
    def size(self) -> tuple[int, int]:
        """Steps and rows."""
        sequence = self.x if self.tokens is None else self.tokens
        assert sequence is not None
        return sequence.shape[0], sequence.shape[1]

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

    def padding(self) -> Array:
        """(T, B) array of bool: what lies beyond the end of a row.  There must be lengths."""
        assert self.lengths is not None
        return np.arange(self.size[0])[:, None] >= self.lengths
