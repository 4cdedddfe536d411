"""The training loop: steps of an optimizer, a schedule, evaluations, checkpoints, signals."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastlstm._parameters import Array
from fastlstm.optim import clip_grad_norm
from fastlstm.optim._base import Optimizer
from fastlstm.training._best import Best
from fastlstm.training._checkpoint import Checkpoints, Moment
from fastlstm.training._history import History, Progress
from fastlstm.training._interrupt import ENDING, deferred_interrupt
from fastlstm.training._plan import Plan
from fastlstm.training._task import Task
from fastlstm.training._together import agree, on_rank_0

if TYPE_CHECKING:
    from fastlstm.distributed import Group

_STEPS_BETWEEN_CHECKS = 100  # that processes have the same weights: a hash, of a thousandth's cost


def train(
    task: Task,
    optimizer: Optimizer,
    plan: Plan,
    group: Group,
    evaluate: Callable[[], float] | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> History:
    """Train what `task` has by an optimizer of it.

    Signals end the run after a step, so that the weights are always those of whole steps.  All
    processes of the group return the same; process 0 measures, writes checkpoints, and tells the
    progress.  With patience and `evaluate`, of which the higher is the better, the weights are
    those of the best record afterwards.

    Raises
    ------
    FloatingPointError
        The loss is not finite any more.
    SystemExit
        A process was asked to end, and the run is saved.
    """
    run = _Run(task, optimizer, plan, group, evaluate, progress)
    with deferred_interrupt(ending=checkpoints is not None) as stop:
        run.begin(checkpoints)
        signum = 0
        while not run.is_over and not signum:
            signum = run.advance(stop)
            if checkpoints is not None and (signum or run.is_over or checkpoints.due(run.step)):
                run.save(checkpoints)
            if signum == signal.SIGINT and not run.is_over:
                run.stop_here()  # after saving: a run that goes on has no record of it
        signum = max(signum, run.end(stop))
        if signum in ENDING:
            raise SystemExit(128 + signum)
    return run.history


class _Run:
    """A training run between two steps."""

    def __init__(
        self,
        task: Task,
        optimizer: Optimizer,
        plan: Plan,
        group: Group,
        evaluate: Callable[[], float] | None,
        progress: Progress | None,
    ) -> None:
        self.history, self.step, self._done = task.new_history(), 0, 0.0
        self._task, self._optimizer, self._plan, self._group = task, optimizer, plan, group
        self._evaluate = evaluate
        self._progress = progress if group.rank == 0 else None
        self._best = Best(plan.patience, plan.tol)
        self._losses: list[tuple[float, int]] = []  # since the last record, of so many examples
        self._now: Any = None  # the record of the last step, until the progress is told
        self._score = math.nan
        self._start = time.perf_counter()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do, or to hope for."""
        return self._done >= 1 or self._best.is_over

    def begin(self, checkpoints: Checkpoints | None) -> None:
        """Begin, or go on from a checkpoint; all processes as process 0 does."""
        if checkpoints is not None:
            begin, first = checkpoints.begin, self._task.first_state()
            moment = on_rank_0(self._group, lambda: begin(self._moment(first), self._record))
            if moment is not None:
                self._go_on(moment)
                agree(self._group, self._tell_resumed)
                return
        if self._group.size > 1:
            self._begin_with(*self._group.share(self._beginning()))

    def advance(self, stop: Callable[[], int]) -> int:
        """Make a step, and a record if it is time to.

        Returns
        -------
        int
            The number of the signal that ends the run after this step, 0 if there is none.
        """
        plan = self._plan
        self._optimizer.lr = plan.rate(self._done)
        (loss, grads), signum = agree(self._group, self._own_gradients, stop)
        loss, grads = self._task.join(self._group, loss, grads)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} after {self.step} steps: {self._task.advice}"
            )
        if plan.clip_norm is not None:
            clip_grad_norm(grads, plan.clip_norm)
        self._optimizer.step(grads)
        self.step += 1
        self._losses.append((loss, self._task.size))
        if self.step % _STEPS_BETWEEN_CHECKS == 0:
            self._check_same()

        seconds = time.perf_counter() - self._start
        if math.isfinite(plan.seconds):  # clocks differ, and the learning rate follows
            seconds = self._group.share(seconds)
        self._done = plan.done(self.step, seconds)
        now = self._record(
            self.step, self._task.progress(self.step), seconds, self._done, loss, self._score
        )
        due = plan.is_due(self.step, self._done, len(self.history.records))
        self._now = self._recorded(now) if due else now
        return signum

    @property
    def _record(self) -> Any:
        return self.history._RECORD

    def _own_gradients(self) -> tuple[Any, Any]:
        """Losses and gradients of the next batch, of what this process has of it."""
        self._tell()
        return self._task.gradients(self.step)

    def _recorded(self, now: Any) -> Any:
        """Measure, and write where it stands to the history."""
        sizes = math.fsum(size for _, size in self._losses)
        loss = math.fsum(loss * size for loss, size in self._losses) / sizes
        self._losses.clear()
        score = math.nan
        if self._evaluate is not None:
            score = float(on_rank_0(self._group, self._evaluate))
        now = self._record(*self._group.share((*now[:-2], loss, score)))
        self._score = score
        self.history.records.append(now)
        self._see(loss, score, self._weights)
        return now

    def _see(self, loss: float, score: float, weights: Callable[[], Sequence[Array]]) -> None:
        """A record more: of scores the best is kept, of losses there is none worth keeping."""
        if self._evaluate is None:
            self._best.see(-loss)
        else:
            self._best.see(score, weights)

    def stop_here(self) -> None:
        """Stop before it is time to; the history has a record of it."""
        self.history.stopped = True
        if self._losses and self._now is not None:
            self._now = self._recorded(self._now)

    def end(self, stop: Callable[[], int]) -> int:
        """Take the best weights, tell the rest; the number of a signal that came, or 0."""
        if self._now is not None:
            self._check_same()
        if self._best.weights is not None:
            self._task.set_weights(self._best.weights)
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
            self._group.check_same(self._weights(), f"weights after {self.step} steps")

    def save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint."""
        if self._group.size > 1:
            self._check_same()
        state = self._task.whole_state(self._group)

        def write() -> None:
            if self._group.rank == 0:
                checkpoints.write(self._moment(state))

        agree(self._group, write)

    def _moment(self, state: tuple[Array, ...]) -> Moment:
        """Where it stands; `state` is the task's, of all processes."""
        weights, generators = self._beginning()
        return Moment(
            step=self.step,
            read=self._task.read,
            seconds=time.perf_counter() - self._start,
            done=self._done,
            weights=weights,
            best=self._best.weights or [],
            optimizer=self._optimizer.state_dict(),
            generators=generators,
            state=state,
            records=self.history.records,
            losses=self._losses,
        )

    def _go_on(self, moment: Moment) -> None:
        """Stand where another process stood."""
        self._begin_with(moment.weights, moment.generators)
        self.step, self._done = moment.step, moment.done
        self._optimizer.load_state_dict(moment.optimizer)
        self._task.go_on(moment.read, moment.state)
        self._losses, self.history.records = moment.losses, moment.records
        for record in moment.records:
            self._see(record[-2], record[-1], lambda: moment.best)
        self._score = moment.records[-1][-1] if moment.records else math.nan
        self._start = time.perf_counter() - moment.seconds

    def _weights(self) -> list[Array]:
        return self._task.weights()

    def _beginning(self) -> tuple[list[Array], list[Any]]:
        """What a run begins with: weights, and states of generators."""
        generators = self._task.generators
        return self._weights(), [drawing.bit_generator.state for drawing in generators]

    def _begin_with(self, weights: Sequence[Array], generators: Sequence[Any]) -> None:
        self._task.set_weights(weights)
        for drawing, state in zip(self._task.generators, generators, strict=True):
            drawing.bit_generator.state = state
