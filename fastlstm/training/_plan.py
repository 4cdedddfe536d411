"""What a training run is to do: the arguments of a run, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from fastlstm import _validation
from fastlstm._validation import bound

Schedule = Literal["constant", "linear", "cosine"] | Callable[[float], float]

_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}


@dataclass(frozen=True)
class Plan:
    """How to train; either `steps` or `seconds` is infinite."""

    steps: float
    seconds: float
    lr: float
    """At the start."""
    clip_norm: float | None
    evaluations: int | None
    """Records, evenly spaced; None: one after every epoch."""
    schedule: Schedule = "constant"
    """What the learning rate is multiplied with, for the part of the run that is done."""
    steps_per_epoch: int | None = None
    patience: int | None = None
    """Records without an improvement by `tol` that end the run."""
    tol: float = 0.0

    def done(self, step: int, seconds: float) -> float:
        """Part of the run that lies behind, 0 to 1."""
        return min(1.0, max(step / self.steps, seconds / self.seconds))

    def rate(self, done: float) -> float:
        """The learning rate of the next step."""
        if isinstance(self.schedule, str):
            return self.lr * _SCHEDULES[self.schedule](done)
        factor = self.schedule(done)
        if not (isinstance(factor, Real) and 0 <= factor < math.inf):
            raise ValueError(
                f"schedule: expected it to return a finite number of at least 0, got {factor!r}"
            )
        return self.lr * float(factor)

    def epoch(self, step: int) -> int:
        """Whole epochs that lie behind."""
        return step // self.steps_per_epoch if self.steps_per_epoch else 0

    def is_due(self, step: int, done: float, records: int) -> bool:
        """Whether it is time for a record, after so many of them."""
        if self.evaluations is None:
            assert self.steps_per_epoch is not None
            return step % self.steps_per_epoch == 0 or done >= 1
        return done * self.evaluations >= records + 1


def check_schedule(schedule: Any) -> Schedule:
    """Refuse what is neither a name nor a function."""
    if not callable(schedule) and schedule not in list(_SCHEDULES):
        *others, last = map(repr, _SCHEDULES)
        names = f"{', '.join(others)}, {last}"
        raise ValueError(f"schedule: expected {names} or a function, got {schedule!r}")
    chosen: Schedule = schedule
    return chosen


def length_of_run(
    steps: int | None, seconds: float | None, epochs: float | None, steps_per_epoch: float
) -> tuple[float, float]:
    """Steps and seconds, one of them infinite.

    Raises
    ------
    TypeError, ValueError
        Not exactly one of the three is given, or it cannot be meant.
    """
    lengths = [length for length in (steps, seconds, epochs) if length is not None]
    if len(lengths) != 1:
        raise ValueError(f"steps, seconds, epochs: expected one of them, got {len(lengths)}")
    if steps is not None:
        return _validation.integer(steps, "steps", 1), math.inf
    if epochs is not None:
        return math.ceil(_length("epochs", epochs) * steps_per_epoch), math.inf
    return math.inf, _length("seconds", seconds)


def _length(name: str, value: Any) -> float:
    result = bound(name, value)
    if not 0 < result < math.inf:
        raise ValueError(f"{name}: expected a finite number > 0, got {value}")
    return result
