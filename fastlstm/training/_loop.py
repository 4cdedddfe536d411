"""The training loop of a language model: truncated BPTT, schedule, held-out evaluations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from fastlstm._parameters import Gradients, Parameters
from fastlstm.optim import Adam, clip_grad_norm
from fastlstm.training._batches import Codes, TrainingRows
from fastlstm.training._history import History, Progress, Record
from fastlstm.training._interrupt import deferred_interrupt
from fastlstm.training._plan import Plan


class Trainable(Protocol):
    """What the loop needs of a model."""

    @property
    def trainable(self) -> list[Parameters]:
        """What the optimizer updates."""

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
            clip_grad_norm(grads, plan.clip_norm)
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
