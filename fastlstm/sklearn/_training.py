"""The training loop of the estimators: epochs of shuffled batches, until it gets no better."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._parameters import Gradients
from fastlstm._shards import ShardGradients
from fastlstm.distributed._group import Group
from fastlstm.optim import AdamW, clip_grad_norm
from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import Network
from fastlstm.training._interrupt import deferred_interrupt
from fastlstm.training._together import agree, on_rank_0

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

    All processes of the group have all examples; of a batch each computes its shards.
    """
    history, best, kept, waited = History(), math.inf, None, 0
    trainable = learner.network.trainable
    with deferred_interrupt() as interrupted:
        while len(history.losses) < plan.max_iter and waited < plan.patience:
            order = learner.rng.permutation(len(examples))
            mean = _epoch(learner, examples, order, plan, group, interrupted)
            if mean is None:
                history.interrupted = True
                break
            history.losses.append(mean)
            value = mean
            if validate is not None:
                # Of one process: scores are computed by NumPy, whose bits may differ by machine.
                history.scores.append(on_rank_0(group, validate))
                value = -history.scores[-1]
            waited = waited + 1 if value > best - plan.tol else 0
            if value < best:
                best = value
                if validate is not None:
                    kept = [parameters.flat.copy() for parameters in trainable]
            score = history.scores[-1] if history.scores else None
            agree(group, partial(report, len(history.losses), mean, score))
            group.check_same([parameters.flat for parameters in trainable], "parameters")
    if kept is not None:
        for parameters, flat in zip(trainable, kept, strict=True):
            parameters.flat = flat
    return history


def _epoch(
    learner: Learner,
    examples: Examples,
    rows: Array,
    plan: Plan,
    group: Group,
    interrupted: Callable[[], int],
) -> float | None:
    """The mean loss, or None if it was interrupted."""
    total = 0.0
    for start in range(0, len(rows), plan.batch_size):
        batch = rows[start : start + plan.batch_size]
        if plan.shards is None:
            value, grads = learner.network.gradients(*examples.batch(batch))
        else:
            value, grads = _of_all(learner.network, examples, batch, plan.shards, group)
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the training loss is {value}: try a smaller learning_rate, or scale X"
            )
        if plan.clip_norm is not None:
            clip_grad_norm(grads, plan.clip_norm)
        learner.optimizer.step(grads)
        total += value * len(batch)
        if group.vote(None, interrupted()):
            return None
    return total / len(rows)


def _of_all(
    network: Network, examples: Examples, batch: Array, count: int, group: Group
) -> tuple[float, list[Gradients]]:
    """The loss of a batch and its gradients, from the shards of all processes."""
    shards = group.shards(len(batch), count)

    def of_shards() -> tuple[Array, list[ShardGradients]]:
        return network.shard_gradients(*examples.batch(batch[shards.rows]), shards)

    (losses, grads), _ = agree(group, of_shards)
    return group.total(losses), group.sum(grads)
