"""The training loop of a language model: truncated BPTT, schedule, held-out evaluations."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from fastlstm._parameters import Array, Gradients, Parameters
from fastlstm.optim import Adam, clip_grad_norm
from fastlstm.training._batches import Codes, TrainingRows
from fastlstm.training._checkpoint import Checkpoints, Moment
from fastlstm.training._history import History, Progress, Record
from fastlstm.training._interrupt import ENDING, deferred_interrupt
from fastlstm.training._plan import Plan


class Trainable(Protocol):
    """What the loop needs of a model."""

    @property
    def trainable(self) -> list[Parameters]:
        """What the optimizer updates."""

    @property
    def _generators(self) -> Sequence[np.random.Generator]:
        """What draws random choices in `gradients`."""

    def _zero_state(self, rows: int) -> tuple[Array, ...]:
        """The state before a text, [L, rows, H] each."""

    def gradients(
        self, inputs: Any, targets: Any, state: Any
    ) -> tuple[float, list[Gradients], Any]:
        """The loss of a chunk, gradients in the order of `trainable`, and the state after it."""


def train(
    model: Trainable,
    codes: Codes,
    plan: Plan,
    evaluate: Callable[[], float] | None,
    progress: Progress | None,
    checkpoints: Checkpoints | None = None,
) -> History:
    """Train `model` by Adam on `codes`, with the learning rate falling linearly to 0.

    The state of each row is carried from chunk to chunk, gradients are not.  Signals end the
    run after the current step, so that the weights are always those of whole steps.

    Raises
    ------
    SystemExit
        The process was asked to end, and the run is saved.
    """
    run = _Run(model, codes, plan, evaluate)
    with deferred_interrupt(ending=checkpoints is not None) as stop:
        if checkpoints is not None and (moment := checkpoints.read(run.moment())):
            run.go_on(moment)
            if progress is not None and hasattr(progress, "resumed"):
                progress.resumed(run.step)
        signum = 0
        while run.done < 1 and not signum:
            now = run.advance()
            signum = stop()
            if checkpoints is not None and (signum or run.done >= 1 or checkpoints.due(run.step)):
                checkpoints.write(run.moment())
            if signum == signal.SIGINT and run.done < 1:
                # After saving: a run that is resumed has no record of where it stopped.
                now = run.end_here(now)
            if progress is not None:
                progress(now)
        if stop() in ENDING:
            raise SystemExit(128 + stop())
    return run.history


class _Run:
    """A training run between two steps."""

    def __init__(
        self, model: Trainable, codes: Codes, plan: Plan, evaluate: Callable[[], float] | None
    ) -> None:
        self.history, self.step, self.done = History(), 0, 0.0
        self._model, self._plan, self._evaluate = model, plan, evaluate
        self._rows = TrainingRows(codes, plan.batch_size, plan.chunk)
        self._optimizer = Adam(model.trainable, plan.lr)
        self._state: Any = None
        self._losses: list[float] = []  # since the last record
        self._bits = math.nan
        self._start = time.perf_counter()

    def advance(self) -> Record:
        """Make a step, and measure the held-out text if it is time to."""
        plan = self._plan
        self._optimizer.lr = plan.lr * (1 - self.done)
        loss, grads, self._state = self._model.gradients(*self._rows.next(), self._state)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} after {self.step} steps: try a smaller learning rate"
            )
        clip_grad_norm(grads, plan.clip_norm)
        self._optimizer.step(grads)
        self.step += 1
        self._losses.append(loss)

        seconds = time.perf_counter() - self._start
        self.done = plan.done(self.step, seconds)
        characters = self.step * plan.batch_size * plan.chunk
        now = Record(self.step, characters, seconds, self.done, loss, self._bits)
        due = self.done * plan.evaluations >= len(self.history.records) + 1
        return self._recorded(now) if due else now

    def end_here(self, now: Record) -> Record:
        """Stop before it is time to; the history has a record of it."""
        self.history.stopped = True
        return self._recorded(now) if self._losses else now

    def _recorded(self, now: Record) -> Record:
        """Measure, and write it to the history."""
        self._bits = math.nan if self._evaluate is None else self._evaluate()
        loss = math.fsum(self._losses) / len(self._losses)
        self._losses.clear()
        self.history.records.append(now._replace(loss=loss, held_out_bits=self._bits))
        return self.history.records[-1]

    def moment(self) -> Moment:
        """Where it stands, to be saved."""
        state = (
            self._model._zero_state(self._plan.batch_size) if self._state is None else self._state
        )
        return Moment(
            step=self.step,
            read=self._rows.read,
            seconds=time.perf_counter() - self._start,
            done=self.done,
            weights=[parameters.flat for parameters in self._model.trainable],
            optimizer=self._optimizer.state_dict(),
            generators=[generator.bit_generator.state for generator in self._model._generators],
            state=state,
            records=self.history.records,
            losses=self._losses,
        )

    def go_on(self, moment: Moment) -> None:
        """Stand where another process stood."""
        self.step, self.done, self._rows.read = moment.step, moment.done, moment.read
        self._optimizer.load_state_dict(moment.optimizer)
        for parameters, flat in zip(self._model.trainable, moment.weights, strict=True):
            parameters.flat = flat
        for generator, state in zip(self._model._generators, moment.generators, strict=True):
            generator.bit_generator.state = state
        self._state, self._losses = moment.state, moment.losses
        self.history.records = moment.records
        self._bits = moment.records[-1].held_out_bits if moment.records else math.nan
        self._start = time.perf_counter() - moment.seconds
