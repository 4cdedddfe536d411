"""What is learned from: sequences, their targets, and how much each counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.sklearn._sequences import Sequences

Array = NDArray[Any]


@dataclass(frozen=True)
class Examples:
    """Sequences, a target for each or for each of their steps, and how much every target counts."""

    sequences: Sequences
    targets: Array
    """(N,) or (N, K) array: of a sequence, or of its steps, after those of the one before."""
    weights: Array
    """(N,) array."""
    of_steps: bool = False
    """Whether there is a target for each step."""

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, rows: Array) -> Examples:
        """Some of them."""
        places = self._places(rows)
        return Examples(
            self.sequences.take(rows), self.targets[places], self.weights[places], self.of_steps
        )

    def batch(self, rows: Array) -> tuple[Array, Array | None, Array, Array]:
        """The arguments of `Network.gradients` for some of them."""
        places = self._places(rows)
        return *self.sequences.batch(rows), self.targets[places], self.weights[places]

    def arrays(self) -> list[Array]:
        """All that they are."""
        of = self.sequences
        return [of.steps, of.starts, of.lengths, self.targets, self.weights]

    def merged(self) -> Examples:
        """Equal ones as one with the sum of their weights, in an order that they alone decide.

        The mean loss is the same, but for rounding.  Training amplifies that: without this, a
        weight of 2 and a repeated example would end in different networks.
        """
        found: dict[tuple[bytes, bytes], int] = {}
        sums: list[Array] = []
        for row in range(len(self)):
            x, _ = self.sequences.batch(np.array([row]))
            places = self._places(np.array([row]))
            first = found.setdefault((x.tobytes(), self.targets[places].tobytes()), row)
            sums.append(self.weights[places])
            if first != row:
                sums[first] = sums[first] + sums[row]
        rows = np.array([found[key] for key in sorted(found)])
        merged = self.take(rows)
        return replace(merged, weights=np.concatenate([sums[row] for row in rows]))

    def _places(self, rows: Array) -> Array:
        """Where the targets of some sequences are."""
        if not self.of_steps:
            return rows
        lengths = self.sequences.lengths
        starts = np.cumsum(lengths) - lengths
        return runs(starts[rows], lengths[rows])


def runs(starts: Array, lengths: Array) -> Array:
    """The numbers from each start on, so many as its length, one run after another."""
    shifts = starts - (np.cumsum(lengths) - lengths)
    return np.repeat(shifts, lengths) + np.arange(lengths.sum())
