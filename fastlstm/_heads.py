"""The end of a language model: linear layer and softmax after its LSTM."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastlstm._matmul import quiet_matmul
from fastlstm._parameters import Gradients, Parameters

Array = NDArray[np.float32]
Indices = NDArray[np.intp]

_BLOCK = 512  # predictions: their logits, and the LSTM's outputs, stay in the cache


def softmax_nll(parameters: Parameters, y: Array, targets: Indices) -> Array:
    """Return -log p(target) [N] for the LSTM's outputs y [N, H] and targets [N].

    `parameters` has ``linear.weight`` [V, H] and ``linear.bias`` [V].
    """
    nll, work = np.empty(len(y), np.float32), _work_space(parameters)
    for block in _blocks(len(y)):
        _, total, target = _exponentials(parameters, y[block], targets[block], work)
        np.subtract(np.log(total), target, out=nll[block])
    return nll


def softmax_loss_backward(
    parameters: Parameters, y: Array, targets: Indices, grads: Gradients
) -> tuple[float, Array]:
    """Return the mean of `softmax_nll` and its gradient dy [N, H].

    The gradients of the linear layer are written to `grads`.
    """
    count, loss, dy = len(y), 0.0, np.empty_like(y)
    weight, work = parameters["linear.weight"], _work_space(parameters)
    dweight, dbias = grads["linear.weight"], grads["linear.bias"]
    dweight.fill(0)
    dbias.fill(0)
    part = np.empty_like(dweight)
    for block in _blocks(count):
        exponentials, total, target = _exponentials(parameters, y[block], targets[block], work)
        loss += float(np.sum(np.log(total) - target, dtype=np.float64))
        dlogits = np.multiply(exponentials, 1 / (count * total), out=exponentials)
        dlogits[targets[block], np.arange(len(total))] -= np.float32(1 / count)
        dweight += quiet_matmul(dlogits, y[block], out=part)
        dbias += dlogits.sum(axis=1)
        quiet_matmul(dlogits.T, weight, out=dy[block])
    return loss / count, dy


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))


def _work_space(parameters: Parameters) -> Array:
    return np.empty((len(parameters["linear.bias"]), _BLOCK), np.float32)


def _exponentials(
    parameters: Parameters, y: Array, targets: Indices, work: Array
) -> tuple[Array, Array, Array]:
    """exp(logits - max) [V, N], its sum over V [N], and the target's logit - max [N].

    A column per prediction, because the sums over V then run along memory.
    """
    logits = work[:, : len(y)]
    quiet_matmul(y, parameters["linear.weight"].T, out=logits.T)
    logits += parameters["linear.bias"][:, None]
    logits -= logits.max(axis=0)
    target = logits[targets, np.arange(len(y))]
    exponentials = np.exp(logits, out=logits)
    return exponentials, exponentials.sum(axis=0), target
