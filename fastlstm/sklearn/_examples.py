"""What is learned from: sequences, their targets, and how much each counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.sklearn._sequences import Sequences

Array = NDArray[Any]


@dataclass(frozen=True)
class Examples:
    """Sequences, a target for each, (n,) or (n, K), and weights, (n,)."""

    sequences: Sequences
    targets: Array
    weights: Array

    def __len__(self) -> int:
        return len(self.weights)

    def take(self, rows: Array) -> Examples:
        """Some of them."""
        return Examples(self.sequences.take(rows), self.targets[rows], self.weights[rows])

    def batch(self, rows: Array) -> tuple[Array, Array | None, Array, Array]:
        """The arguments of `Network.gradients` for some of them."""
        return *self.sequences.batch(rows), self.targets[rows], self.weights[rows]

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
        sums: list[float] = []
        for row in range(len(self)):
            x, _ = self.sequences.batch(np.array([row]))
            place = found.setdefault((x.tobytes(), self.targets[row].tobytes()), row)
            sums.append(self.weights[row])
            if place != row:
                sums[place] += self.weights[row]
        rows = np.array([found[key] for key in sorted(found)])
        return Examples(self.sequences.take(rows), self.targets[rows], np.array(sums)[rows])
