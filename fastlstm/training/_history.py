"""What a training run did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Record(NamedTuple):
    """Where a training run stood at one moment."""

    step: int
    """Updates of the weights so far."""
    characters: int
    """Characters read so far."""
    seconds: float
    """Time since the start, evaluations included."""
    done: float
    """Part of the run, 0 to 1."""
    loss: float
    """Mean training loss in nats per character, of this step or since the last record."""
    held_out_bits: float
    """Held-out bits per character at the last evaluation; NaN before it or without one."""


Progress = Callable[[Record], object]


@dataclass
class History:
    """What a training run returns."""

    records: list[Record] = field(default_factory=list)
    """One per held-out evaluation; the last is the end of the run."""
    stopped: bool = False
    """Whether Ctrl-C ended it before its time."""

    @property
    def characters_per_second(self) -> float:
        """Mean speed over the whole run, evaluations included."""
        last = self.records[-1]
        return last.characters / last.seconds
