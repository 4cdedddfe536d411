"""The training loop of the estimators: epochs of shuffled batches, until it gets no better."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.optim import Adam, clip_grad_norm
from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import Loss, Network
from fastlstm.training._interrupt import deferred_interrupt

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


@dataclass
class History:
    """What happened."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of every epoch, while the weights changed."""
    scores: list[float] = field(default_factory=list)
    """Validation score after every epoch, if there are any."""
    interrupted: bool = False


def train(
    network: Network,
    optimizer: Adam,
    examples: Examples,
    loss: Loss,
    plan: Plan,
    rng: np.random.RandomState,
    validate: Callable[[], float] | None,
    report: Report,
) -> History:
    """Train on shuffled batches of the examples.

    With `validate`, the weights are those of the best epoch afterwards.  Ctrl-C ends the run after
    the current batch, so that the weights are always those of whole steps.
    """
    history, best, kept, waited = History(), math.inf, None, 0
    with deferred_interrupt() as interrupted:
        while len(history.losses) < plan.max_iter and waited < plan.patience:
            mean = _epoch(
                network,
                optimizer,
                examples,
                rng.permutation(len(examples)),
                loss,
                plan,
                interrupted,
            )
            if mean is None:
                history.interrupted = True
                break
            history.losses.append(mean)
            value = mean
            if validate is not None:
                history.scores.append(validate())
                value = -history.scores[-1]
            waited = waited + 1 if value > best - plan.tol else 0
            if value < best:
                best = value
                if validate is not None:
                    kept = [parameters.flat.copy() for parameters in network.trainable]
            report(len(history.losses), mean, history.scores[-1] if history.scores else None)
    if kept is not None:
        for parameters, flat in zip(network.trainable, kept, strict=True):
            parameters.flat = flat
    return history


def _epoch(
    network: Network,
    optimizer: Adam,
    examples: Examples,
    rows: Array,
    loss: Loss,
    plan: Plan,
    interrupted: Callable[[], int],
) -> float | None:
    """The mean loss, or None if it was interrupted."""
    total = 0.0
    for start in range(0, len(rows), plan.batch_size):
        batch = rows[start : start + plan.batch_size]
        value, grads = network.gradients(*examples.batch(batch), loss)
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the training loss is {value}: try a smaller learning_rate, or scale X"
            )
        if plan.clip_norm is not None:
            clip_grad_norm(grads, plan.clip_norm)
        optimizer.step(grads)
        total += value * len(batch)
        if interrupted():
            return None
    return total / len(rows)
