"""What follows the layers: a linear layer, and losses with their gradients."""

from __future__ import annotations

import numpy as np

from fastlstm.reference.cells import Array


def linear(x: Array, weight: Array, bias: Array) -> Array:
    """x [..., I], weight [K, I] and bias [K] -> y [..., K]."""
    return x @ weight.T + bias


def linear_backward(x: Array, weight: Array, dy: Array) -> tuple[Array, Array, Array]:
    """From the gradient of y, those of x, weight and bias."""
    axes = list(range(x.ndim - 1))
    return dy @ weight, np.tensordot(dy, x, axes=(axes, axes)), dy.sum(axis=tuple(axes))


def cross_entropy(logits: Array, targets: Array, weights: Array) -> tuple[float, Array]:
    """The weighted mean of -log softmax(logits)[target], and its gradient: logits [..., K]."""
    z = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(z).sum(axis=-1, keepdims=True)
    one_hot = np.arange(z.shape[-1]) == np.asarray(targets)[..., None]
    w = weights / weights.sum()
    losses = np.log(total[..., 0]) - np.where(one_hot, z, 0).sum(axis=-1)
    return float((w * losses).sum()), w[..., None] * (np.exp(z) / total - one_hot)


def mse(y: Array, target: Array, weights: Array) -> tuple[float, Array]:
    """The weighted mean of (y - target)^2, and its gradient: all of one shape."""
    w = weights / weights.sum()
    return float((w * (y - target) ** 2).sum()), 2 * w * (y - target)
