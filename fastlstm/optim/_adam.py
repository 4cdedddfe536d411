"""Adam and AdamW, as in torch.optim."""

from __future__ import annotations

import math
from typing import Any

from fastlstm._core import updates
from fastlstm._parameters import Array
from fastlstm._validation import non_negative, number
from fastlstm.optim._base import Optimizer
from fastlstm.optim._targets import Trainable


class Adam(Optimizer):
    """Adam: running means of gradients and of their squares, corrected for their start.

    With g including ``weight_decay * p``, at step t = 1, 2, ...::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        p = p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Parameters
    ----------
    parameters : Parameters, mapping of str to array, array, or sequence of these
        What to train, such as ``lstm.parameters``.
    lr : float
        Learning rate, at least 0.
    betas : (float, float)
        As in the equations, at least 0 and below 1.
    eps, weight_decay : float
        As in the equations, at least 0.
    amsgrad : bool
        Use the largest v so far instead of v.

    Examples
    --------
    >>> import numpy as np
    >>> weights = np.zeros(2)
    >>> optimizer = Adam(weights, lr=0.5)
    >>> optimizer.step(np.array([3.0, -7.0]))
    >>> weights.round(6)
    array([-0.5,  0.5])
    """

    _decoupled_decay = False

    def __init__(
        self,
        parameters: Trainable,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        self._beta1, self._beta2 = _betas(betas)
        self._eps = non_negative("eps", eps)
        self._amsgrad = bool(amsgrad)
        options = {"betas": (self._beta1, self._beta2), "eps": eps, "amsgrad": amsgrad}
        vectors = ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if self._amsgrad else [])
        super().__init__(parameters, lr, weight_decay, options, vectors)

    def _update(self, p: Array, g: Array, state: dict[str, Array], threads: int) -> None:
        # With a root r of 1 - beta2^t, sqrt(v) / r + eps is (sqrt(v) + eps * r) / r.
        root = math.sqrt(1 - self._beta2**self._steps)
        decoupled = self._decoupled_decay
        updates.adam(
            p,
            g,
            state["exp_avg"],
            state["exp_avg_sq"],
            state.get("max_exp_avg_sq"),
            lr=self._lr * root / (1 - self._beta1**self._steps),
            decay=0.0 if decoupled else self._weight_decay,
            shrink=1 - self._lr * self._weight_decay if decoupled else 1.0,
            weight=1 - self._beta1,
            beta2=self._beta2,
            weight2=1 - self._beta2,
            eps=self._eps * root,
            threads=threads,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p = p - lr * weight_decay * p`` before each step.

    Parameters
    ----------
    parameters, lr, betas, eps, weight_decay, amsgrad
        As for `Adam`; the gradient does not include the weight decay, which is 0.01 unless
        given.

    Examples
    --------
    >>> import numpy as np
    >>> weights = np.array([2.0, -2.0])
    >>> optimizer = AdamW(weights, lr=0.5, weight_decay=0.1)
    >>> optimizer.step(np.array([3.0, -7.0]))
    >>> weights.round(6)
    array([ 1.4, -1.4])
    """

    _decoupled_decay = True

    def __init__(
        self,
        parameters: Trainable,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(
            parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad
        )


def _betas(betas: Any) -> tuple[float, float]:
    try:
        beta1, beta2 = (number("betas", beta) for beta in betas)
    except (TypeError, ValueError):
        raise ValueError(f"betas: expected two numbers, got {betas!r}") from None
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"betas: expected two numbers in [0, 1), got {betas}")
    return beta1, beta2
