"""What a training run is to do: the arguments of a run, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._validation import bound, non_negative


@dataclass(frozen=True)
class Plan:
    """How to train; either `steps` or `seconds` is infinite."""

    steps: float
    seconds: float
    batch_size: int
    chunk: int
    lr: float
    clip_norm: float
    evaluations: int
    reset_every: int | None

    @classmethod
    def of(
        cls,
        characters: int,
        *,
        steps: int | None,
        seconds: float | None,
        epochs: float | None,
        batch_size: int,
        chunk: int,
        lr: float,
        clip_norm: float,
        evaluations: int,
        reset_every: int | None,
    ) -> Self:
        """The plan that arguments of `fit` ask for, for a text of so many characters.

        Raises
        ------
        TypeError, ValueError
            An argument cannot be meant.
        """
        lengths = [length for length in (steps, seconds, epochs) if length is not None]
        if len(lengths) != 1:
            raise ValueError(f"steps, seconds, epochs: expected one of them, got {len(lengths)}")
        batch_size = _validation.integer(batch_size, "batch_size", 1)
        chunk = _validation.integer(chunk, "chunk", 1)
        _validation.check_size(batch_size * chunk, np.dtype(np.intp), "batch_size, chunk")
        total = math.inf if steps is None else _validation.integer(steps, "steps", 1)
        if epochs is not None:
            total = math.ceil(_length("epochs", epochs) * characters / (batch_size * chunk))
        return cls(
            steps=total,
            seconds=math.inf if seconds is None else _length("seconds", seconds),
            batch_size=batch_size,
            chunk=chunk,
            lr=non_negative("lr", lr),
            clip_norm=bound("clip_norm", clip_norm),
            evaluations=_validation.integer(evaluations, "evaluations", 1),
            reset_every=(
                None if reset_every is None else _validation.integer(reset_every, "reset_every", 1)
            ),
        )

    def resets(self, step: int) -> NDArray[np.bool_]:
        """Rows of the batch whose state is zero before this step: each in its turn."""
        if self.reset_every is None:
            return np.zeros(self.batch_size, np.bool_)
        rows = np.arange(self.batch_size) % self.reset_every
        return np.asarray(rows == step % self.reset_every)

    def done(self, step: int, seconds: float) -> float:
        """Part of the run that lies behind, 0 to 1."""
        return min(1.0, max(step / self.steps, seconds / self.seconds))


def _length(name: str, value: Any) -> float:
    result = bound(name, value)
    if not 0 < result < math.inf:
        raise ValueError(f"{name}: expected a finite number > 0, got {value}")
    return result
