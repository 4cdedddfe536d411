"""What the training of a language model did: in bits per character."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from fastlstm import training
from fastlstm.training._history import Panel


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


@dataclass(repr=False)
class History(training.History):
    """What a training run returns.

    In a notebook it shows its curve, or, without matplotlib, a table of it.

    Examples
    --------
    >>> from fastlstm.models import History, Record
    >>> History([Record(10, 5120, 0.5, 0.5, 2.1, 3.2), Record(20, 10240, 1.0, 1.0, 1.6, 2.5)])
    History(2 records, 20 steps, held out 2.500 bits per character, 1.0 s)
    """

    records: list[Record] = field(default_factory=list)
    """One per held-out evaluation; the last is the end of the run."""

    _RECORD: ClassVar[Any] = Record
    _AGAINST: ClassVar[tuple[str, ...]] = ("seconds", "step", "characters")
    _COLUMNS: ClassVar[tuple[str, ...]] = ("steps", "seconds", "training", "held out")

    @property
    def characters_per_second(self) -> float:
        """Mean speed over the whole run, evaluations included."""
        last = self.records[-1]
        return last.characters / last.seconds

    def _panels(self) -> list[Panel]:
        held_out = [record.held_out_bits for record in self.records]
        bits = [_bits(record.loss) for record in self.records]
        return [Panel("bits per character", [("held out", held_out), ("training", bits)])]

    def _measured(self, record: Record) -> list[str]:
        held_out = not math.isnan(record.held_out_bits)
        bits = record.held_out_bits if held_out else _bits(record.loss)
        return [f"{'held out' if held_out else 'training'} {bits:.3f} bits per character"]

    def _cells(self, record: Record) -> tuple[str, ...]:
        return f"{_bits(record.loss):.3f}", f"{record.held_out_bits:.3f}"


def _bits(nats: float) -> float:
    return nats / math.log(2)
