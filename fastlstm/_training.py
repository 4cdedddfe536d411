"""The training loop of a language model: truncated BPTT, schedule, held-out evaluations."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlstm._text import Codes, TrainingRows
from fastlstm.optim import Adam, clip_grad_norm

if TYPE_CHECKING:
    from fastlstm.models import LanguageModel


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


@dataclass(frozen=True)
class Plan:
    """How to train; either `steps` or `seconds` is infinite."""

    steps: float
    seconds: float
    batch_size: int
    chunk: int
    lr: float
    clip: float
    evaluations: int

    def done(self, step: int, seconds: float) -> float:
        """Part of the run that lies behind, 0 to 1."""
        return min(1.0, max(step / self.steps, seconds / self.seconds))


def train(
    model: LanguageModel,
    codes: Codes,
    plan: Plan,
    evaluate: Callable[[], float] | None,
    progress: Progress | None,
) -> History:
    """Train `model` by Adam on `codes`, with the learning rate falling linearly to 0.

    The state of each row is carried from chunk to chunk, gradients are not.  Ctrl-C ends the
    run after the current step, so that the weights are always those of whole steps.
    """
    rows = TrainingRows(codes, plan.batch_size, plan.chunk)
    optimizer = Adam(model.trainable, plan.lr)
    history, losses, state = History(), [], None
    step, done, bits, start = 0, 0.0, math.nan, time.perf_counter()
    with deferred_interrupt() as interrupted:
        while not (history.stopped or done >= 1):
            optimizer.lr = plan.lr * (1 - done)
            loss, grads, state = model.gradients(*rows.next(), state)
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the training loss is {loss} after {step} steps: try a smaller learning rate"
                )
            clip_grad_norm(grads, plan.clip)
            optimizer.step(grads)
            step += 1
            losses.append(loss)

            seconds = time.perf_counter() - start
            done = plan.done(step, seconds)
            history.stopped = interrupted() and done < 1
            now = Record(step, step * plan.batch_size * plan.chunk, seconds, done, loss, bits)
            if history.stopped or done * plan.evaluations >= len(history.records) + 1:
                bits = math.nan if evaluate is None else evaluate()
                now = now._replace(loss=math.fsum(losses) / len(losses), held_out_bits=bits)
                history.records.append(now)
                losses.clear()
            if progress is not None:
                progress(now)
    return history


@contextlib.contextmanager
def deferred_interrupt(*, second_raises: bool = True) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag that the returned function tells; a second one may raise.

    A handler of the program's own is left alone, and so is every thread but the main one,
    which alone gets signals.
    """
    caught: list[int] = []

    def handler(signum: int, frame: Any) -> None:
        if caught and second_raises:
            raise KeyboardInterrupt
        caught.append(signum)

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(caught)
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
