"""The training loop of a language model: truncated BPTT, schedule, held-out evaluations."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastlstm._parameters import Array, Gradients, Parameters
from fastlstm._shards import ShardGradients, Shards
from fastlstm.optim import Adam, clip_grad_norm
from fastlstm.training._batches import Codes, TrainingRows
from fastlstm.training._checkpoint import Checkpoints, Moment
from fastlstm.training._history import History, Progress, Record
from fastlstm.training._interrupt import ENDING, deferred_interrupt
from fastlstm.training._plan import Plan
from fastlstm.training._together import agree, on_rank_0

if TYPE_CHECKING:
    from fastlstm.distributed import Group

_STEPS_BETWEEN_CHECKS = 100  # that processes have the same weights: a hash, of a thousandth's cost


class Trainable(Protocol):
    """What the loop needs of a model."""

    @property
    def trainable(self) -> list[Parameters]:
        """What the optimizer updates."""

    @property
    def _generators(self) -> Sequence[np.random.Generator]:
        """What draws random choices in `gradients` and `shard_gradients`."""

    def _zero_state(self, rows: int) -> tuple[Array, ...]:
        """The state before a text, [L, rows, H] each."""

    def gradients(
        self, inputs: Any, targets: Any, state: Any
    ) -> tuple[float, list[Gradients], Any]:
        """The loss of a chunk, gradients in the order of `trainable`, and the state after it."""

    def shard_gradients(
        self, inputs: Any, targets: Any, state: Any, shards: Shards
    ) -> tuple[Array, list[ShardGradients], Any]:
        """The same of each shard of this process; the losses are sums over its characters."""


def train(
    model: Trainable,
    codes: Codes,
    plan: Plan,
    evaluate: Callable[[], float] | None,
    progress: Progress | None,
    group: Group,
    shards: Shards | None = None,
    checkpoints: Checkpoints | None = None,
) -> History:
    """Train `model` by Adam on `codes`, with the learning rate falling linearly to 0.

    The state of each row is carried from chunk to chunk, gradients are not.  Signals end the
    run after a step, so that the weights are always those of whole steps.  All processes of the
    group return the same; process 0 measures, writes checkpoints, and tells the progress.

    Raises
    ------
    SystemExit
        A process was asked to end, and the run is saved.
    """
    run = _Run(model, codes, plan, evaluate, progress, group, shards)
    with deferred_interrupt(ending=checkpoints is not None) as stop:
        run.begin(checkpoints)
        signum = 0
        while run.done < 1 and not signum:
            signum = run.advance(stop)
            if checkpoints is not None and (signum or run.done >= 1 or checkpoints.due(run.step)):
                run.save(checkpoints)
            if signum == signal.SIGINT and run.done < 1:
                run.stop_here()  # after saving: a run that goes on has no record of it
        signum = max(signum, run.end(stop))
        if signum in ENDING:
            raise SystemExit(128 + signum)
    return run.history


class _Run:
    """A training run between two steps."""

    def __init__(
        self,
        model: Trainable,
        codes: Codes,
        plan: Plan,
        evaluate: Callable[[], float] | None,
        progress: Progress | None,
        group: Group,
        shards: Shards | None,
    ) -> None:
        self.history, self.step, self.done = History(), 0, 0.0
        self._model, self._plan, self._evaluate = model, plan, evaluate
        self._group, self._shards = group, shards
        self._progress = progress if group.rank == 0 else None
        self._own = slice(None) if shards is None else shards.rows
        self._rows = TrainingRows(codes, plan.batch_size, plan.chunk, self._own)
        self._optimizer = Adam(model.trainable, plan.lr)
        self._state: Any = None  # of the own rows
        self._losses: list[float] = []  # since the last record
        self._now: Record | None = None  # of the last step, until the progress is told
        self._bits = math.nan
        self._start = time.perf_counter()

    def begin(self, checkpoints: Checkpoints | None) -> None:
        """Begin, or go on from a checkpoint; all processes as process 0 does."""
        if checkpoints is not None:
            begin, zero = checkpoints.begin, self._model._zero_state(self._plan.batch_size)
            moment = on_rank_0(self._group, lambda: begin(self._moment(zero)))
            if moment is not None:
                self._go_on(moment)
                agree(self._group, self._tell_resumed)
                return
        if self._group.size > 1:
            self._begin_with(*self._group.share(self._beginning()))

    def advance(self, stop: Callable[[], int]) -> int:
        """Make a step, and measure the held-out text if it is time to.

        Returns
        -------
        int
            The number of the signal that ends the run after this step, 0 if there is none.
        """
        plan = self._plan
        self._optimizer.lr = plan.lr * (1 - self.done)
        (loss, grads), signum = agree(self._group, self._own_gradients, stop)
        if self._shards is not None:
            loss = self._group.total(loss) / (plan.batch_size * plan.chunk)
            grads = self._group.sum(grads)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} after {self.step} steps: try a smaller learning rate"
            )
        clip_grad_norm(grads, plan.clip_norm)
        self._optimizer.step(grads)
        self.step += 1
        self._losses.append(loss)
        if self.step % _STEPS_BETWEEN_CHECKS == 0:
            self._check_same()

        seconds = time.perf_counter() - self._start
        if math.isfinite(plan.seconds):  # clocks differ, and the learning rate follows
            seconds = self._group.share(seconds)
        self.done = plan.done(self.step, seconds)
        characters = self.step * plan.batch_size * plan.chunk
        now = Record(self.step, characters, seconds, self.done, loss, self._bits)
        due = self.done * plan.evaluations >= len(self.history.records) + 1
        self._now = self._recorded(now) if due else now
        return signum

    def _own_gradients(self) -> tuple[Any, Any]:
        """Losses and gradients of the rows of this process."""
        self._tell()
        rows = self._rows.next()
        for state in self._state or ():
            state[:, self._plan.resets(self.step)[self._own]] = 0
        if self._shards is None:
            loss, grads, self._state = self._model.gradients(*rows, self._state)
            return loss, grads
        model, shards = self._model, self._shards
        losses, parts, self._state = model.shard_gradients(*rows, self._state, shards)
        return losses, parts

    def _recorded(self, now: Record) -> Record:
        """Measure, and write where it stands to the history."""
        loss = math.fsum(self._losses) / len(self._losses)
        self._losses.clear()
        bits = math.nan
        if self._evaluate is not None:
            bits = on_rank_0(self._group, self._evaluate)
        now = self._group.share(now._replace(loss=loss, held_out_bits=bits))
        self._bits = bits
        self.history.records.append(now)
        return now

    def stop_here(self) -> None:
        """Stop before it is time to; the history has a record of it."""
        self.history.stopped = True
        if self._losses and self._now is not None:
            self._now = self._recorded(self._now)

    def end(self, stop: Callable[[], int]) -> int:
        """Tell the rest; the number of a signal that came during the last step, or 0."""
        if self._now is not None:
            self._check_same()
        _, signum = agree(self._group, self._tell, stop)
        return signum

    def _tell(self) -> None:
        now, self._now = self._now, None
        if self._progress is not None and now is not None:
            self._progress(now)

    def _tell_resumed(self) -> None:
        resumed = getattr(self._progress, "resumed", None)
        if resumed is not None:
            resumed(self.step)

    def _check_same(self) -> None:
        if self._group.size > 1:
            weights = [parameters.flat for parameters in self._model.trainable]
            self._group.check_same(weights, f"weights after {self.step} steps")

    def save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint."""
        state = self._state
        if self._group.size > 1:
            self._check_same()
            parts = zip(*self._group.gather(state), strict=True)
            state = tuple(np.concatenate(arrays, axis=1) for arrays in parts)

        def write() -> None:
            if self._group.rank == 0:
                checkpoints.write(self._moment(state))

        agree(self._group, write)

    def _moment(self, state: tuple[Array, ...]) -> Moment:
        """Where it stands; `state` is that of all rows."""
        weights, generators = self._beginning()
        return Moment(
            step=self.step,
            read=self._rows.read,
            seconds=time.perf_counter() - self._start,
            done=self.done,
            weights=weights,
            optimizer=self._optimizer.state_dict(),
            generators=generators,
            state=state,
            records=self.history.records,
            losses=self._losses,
        )

    def _go_on(self, moment: Moment) -> None:
        """Stand where another process stood."""
        self._begin_with(moment.weights, moment.generators)
        self.step, self.done, self._rows.read = moment.step, moment.done, moment.read
        self._optimizer.load_state_dict(moment.optimizer)
        self._state = tuple(array[:, self._own] for array in moment.state)
        self._losses, self.history.records = moment.losses, moment.records
        self._bits = moment.records[-1].held_out_bits if moment.records else math.nan
        self._start = time.perf_counter() - moment.seconds

    def _beginning(self) -> tuple[list[Array], list[Any]]:
        """What a run begins with: weights, and states of generators."""
        weights = [parameters.flat for parameters in self._model.trainable]
        return weights, [drawing.bit_generator.state for drawing in self._model._generators]

    def _begin_with(self, weights: Sequence[Array], generators: Sequence[Any]) -> None:
        for parameters, flat in zip(self._model.trainable, weights, strict=True):
            parameters.flat = flat
        for drawing, state in zip(self._model._generators, generators, strict=True):
            drawing.bit_generator.state = state
