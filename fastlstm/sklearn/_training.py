"""How the estimators are trained: epochs of shuffled batches, until it gets no better."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.distributed._group import Group
from fastlstm.optim import AdamW
from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import Network
from fastlstm.training import _loop
from fastlstm.training._batches import ShuffledRows
from fastlstm.training._plan import Plan as Schedule
from fastlstm.training._task import Task

Array = NDArray[Any]
Report = Callable[[int, float, float | None], object]


@dataclass(frozen=True)
class Plan:
    """How to train."""

    batch_size: int
    max_iter: int
    patience: int
    """Epochs without an improvement by `tol` that end it."""
    tol: float
    clip_norm: float | None
    shards: int | None
    """Of a batch; None: it is one."""


class Learner(NamedTuple):
    """What is trained, and what draws at random for it."""

    network: Network
    optimizer: AdamW
    rng: np.random.RandomState


@dataclass
class History:
    """What happened."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of every epoch, while the weights changed."""
    scores: list[float] = field(default_factory=list)
    """Validation score after every epoch, if there are any."""
    interrupted: bool = False


def as_process_0(learner: Learner, group: Group) -> Learner:
    """With weights, random choices and optimizer of process 0."""
    network, optimizer, rng = learner
    drawing = network.layer._dropout_keys.bit_generator
    flats = [parameters.flat for parameters in network.trainable]
    flats, rng, drawn, moments = group.share((flats, rng, drawing.state, optimizer.state_dict()))
    for parameters, flat in zip(network.trainable, flats, strict=True):
        parameters.flat = flat
    drawing.state = drawn
    optimizer.load_state_dict(moments)
    return Learner(network, optimizer, rng)


class _Batches(Task):
    """Shuffled batches; all processes have all examples, and compute their shards of a batch."""

    advice = "try a smaller learning_rate, or scale X"

    def __init__(self, learner: Learner, examples: Examples, plan: Plan, group: Group) -> None:
        self.trainable = learner.network.trainable
        self._network, self._examples = learner.network, examples
        self._group, self._shards = group, plan.shards
        self.rows = ShuffledRows(len(examples), plan.batch_size, learner.rng.permutation)

    def gradients(self, step: int) -> tuple[Any, Any]:
        batch = self.rows.next()
        self.size = len(batch)
        if self._shards is None:
            return self._network.gradients(*self._examples.batch(batch))
        shards = self._group.shards(len(batch), self._shards)
        return self._network.shard_gradients(*self._examples.batch(batch[shards.rows]), shards)

    def join(self, group: Group, loss: Any, grads: Any) -> tuple[float, Any]:
        return (loss, grads) if self._shards is None else (group.total(loss), group.sum(grads))

    def progress(self, step: int) -> int:
        return step // self.rows.per_epoch


def train(
    learner: Learner,
    examples: Examples,
    plan: Plan,
    group: Group,
    validate: Callable[[], float] | None,
    report: Report,
) -> History:
    """Train on shuffled batches of the examples.

    With `validate`, the weights are those of the best epoch afterwards.  Ctrl-C ends the run after
    the current batch, so that the weights are always those of whole steps.
    """
    task = _Batches(learner, examples, plan, group)
    per_epoch = task.rows.per_epoch
    schedule = Schedule(
        steps=plan.max_iter * per_epoch,
        seconds=math.inf,
        lr=learner.optimizer.lr,
        clip_norm=plan.clip_norm,
        evaluations=None,
        steps_per_epoch=per_epoch,
        patience=plan.patience,
        tol=plan.tol,
    )

    def show(record: Any) -> None:
        if record.step % per_epoch == 0:
            report(record.epoch, record.loss, None if validate is None else record.score)

    found = _loop.train(task, learner.optimizer, schedule, group, validate, show)
    whole = [record for record in found.records if record.step % per_epoch == 0]
    scores = [] if validate is None else [record.score for record in whole]
    return History([record.loss for record in whole], scores, found.stopped)
