"""The end of a language model: linear layer and softmax after its recurrent layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._core import heads, memory
from fastlstm._core.threads import get_num_threads
from fastlstm._layers.base import Layer
from fastlstm._parameters import Gradients, Parameters
from fastlstm._shards import ShardGradients, Shards
from fastlstm.heads._sums import sum_in_order

Array = NDArray[Any]
Indices = NDArray[np.intp]


def log_softmax(logits: Array) -> Array:
    """(n, K) array: the logarithms of probabilities."""
    below = logits - logits.max(axis=1, keepdims=True)
    result: Array = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
    return result


def softmax_nll(
    lstm: Layer[Any, Any, Any], parameters: Parameters, y: Array, targets: Indices
) -> Array:
    """Return -log p(target) [T, B] for the outputs y [T, B, H] of `lstm` and targets [T, B].

    `parameters` has ``linear.weight`` [V, H] and ``linear.bias`` [V].
    """
    nll = np.empty(targets.shape, np.float32)
    _run(lstm, parameters, y, targets, nll)
    return nll


def softmax_loss_backward(
    lstm: Layer[Any, Any, Any],
    parameters: Parameters,
    y: Array,
    targets: Indices,
    grads: Gradients | ShardGradients,
) -> tuple[Array, Array]:
    """Return `softmax_nll` and the gradient dy [T, B, H] of its mean over the whole batch.

    The gradients of the linear layer are written to `grads`: for each shard, if they are of shards,
    whose rows are those of `y`.
    """
    nll, dy = np.empty(targets.shape, np.float32), memory.empty(y.shape, y.dtype)
    _run(lstm, parameters, y, targets, nll, dy, grads)
    return nll, dy


def sums_of_shards(nll: Array, shards: Shards) -> Array:
    """Return the sums of [T, B] over each shard, (shards,) of float64, the same on any machine."""
    borders = zip(shards.starts[:-1], shards.starts[1:], strict=True)
    return np.array([sum_in_order(nll[:, begin:end]) for begin, end in borders])


def _run(
    lstm: Layer[Any, Any, Any],
    parameters: Parameters,
    y: Array,
    targets: Indices,
    nll: Array,
    dy: Array | None = None,
    grads: Gradients | ShardGradients | None = None,
) -> None:
    """The core's head, on the instruction set and in the work space of `lstm`."""
    shards = grads.shards if isinstance(grads, ShardGradients) else None
    dweight = dbias = None
    if grads is not None:
        of = grads.of if isinstance(grads, ShardGradients) else grads.__getitem__
        dweight, dbias = of("linear.weight"), of("linear.bias")
        dweight.fill(0)
        dbias.fill(0)
    if not y.size:  # no rows: their gradients are zeros
        return
    heads.head(
        lstm.isa,
        lstm._scratch,
        y.reshape(-1, y.shape[-1]),
        parameters["linear.weight"],
        parameters["linear.bias"],
        np.ascontiguousarray(targets.ravel(), np.intp),
        nll.reshape(-1),
        None if dy is None else dy.reshape(-1, y.shape[-1]),
        dweight,
        dbias,
        get_num_threads(),
        1 / (len(y) * (shards.batch if shards else y.shape[1])),
        None,
        shards,
    )
