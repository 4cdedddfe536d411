"""Optimizers with the meanings and defaults of torch.optim, on flat vectors, in place.

A float32 below 1.2e-38 counts as zero, a float64 below 2.2e-308: of gradients, weights and state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm import _updates
from fastlstm._config import get_num_threads
from fastlstm._optimizer import Optimizer, bound, non_negative, number
from fastlstm._parameters import Array, Gradients, Parameters

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop", "clip_grad_norm"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    With a velocity b, and g including ``weight_decay * p``::

        b = momentum * b + (1 - dampening) * g        (b = g at the first step)
        p = p - lr * b                                (nesterov: lr * (g + momentum * b))

    Parameters
    ----------
    parameters : Parameters or sequence of Parameters
        What to train, such as ``lstm.parameters``.
    lr : float
        Learning rate, at least 0.
    momentum, dampening, weight_decay : float
        As in the equations.
    nesterov : bool
        Nesterov momentum, which needs a momentum and no dampening.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm._parameters import Gradients, Parameters
    >>> weights = Parameters({"w": (2,)}, "float64")
    >>> optimizer = SGD(weights, lr=0.5)
    >>> optimizer.step(Gradients({"w": (2,)}, np.array([1.0, -2.0])))
    >>> weights["w"]
    array([-0.5,  1. ])
    """

    def __init__(
        self,
        parameters: Parameters | Sequence[Parameters],
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self._momentum = non_negative("momentum", momentum)
        self._dampening = number("dampening", dampening)
        self._nesterov = bool(nesterov)
        if nesterov and (self._momentum == 0 or self._dampening != 0):
            raise ValueError(
                "nesterov: expected momentum > 0 and dampening = 0, "
                f"got momentum={momentum}, dampening={dampening}"
            )
        options = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        vectors = ["momentum_buffer"] if self._momentum else []
        super().__init__(parameters, lr, weight_decay, options, vectors)

    def _update(self, p: Array, g: Array, state: dict[str, Array], threads: int) -> None:
        _updates.sgd(
            p,
            g,
            state.get("momentum_buffer"),
            lr=self._lr,
            decay=self._weight_decay,
            momentum=self._momentum,
            weight=1.0 if self._steps == 1 else 1 - self._dampening,
            nesterov=self._nesterov,
            threads=threads,
        )


class RMSprop(Optimizer):
    """Gradients divided by the root of a running mean of their squares.

    With g including ``weight_decay * p``::

        v = alpha * v + (1 - alpha) * g^2
        m = alpha * m + (1 - alpha) * g               (centered only, otherwise m = 0)
        b = momentum * b + g / (sqrt(v - m^2) + eps)
        p = p - lr * b

    Parameters
    ----------
    parameters : Parameters or sequence of Parameters
        What to train, such as ``lstm.parameters``.
    lr : float
        Learning rate, at least 0.
    alpha, eps, weight_decay, momentum : float
        As in the equations, at least 0.
    centered : bool
        Divide by the standard deviation instead of the root mean square.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm._parameters import Gradients, Parameters
    >>> weights = Parameters({"w": (2,)}, "float64")
    >>> optimizer = RMSprop(weights, lr=0.5, alpha=0.75)
    >>> optimizer.step(Gradients({"w": (2,)}, np.array([3.0, -7.0])))
    >>> weights["w"].round(6)
    array([-1.,  1.])
    """

    def __init__(
        self,
        parameters: Parameters | Sequence[Parameters],
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        self._alpha = non_negative("alpha", alpha)
        self._eps = non_negative("eps", eps)
        self._momentum = non_negative("momentum", momentum)
        self._centered = bool(centered)
        options = {"alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
        vectors = ["square_avg"]
        vectors += ["grad_avg"] if self._centered else []
        vectors += ["momentum_buffer"] if self._momentum else []
        super().__init__(parameters, lr, weight_decay, options, vectors)

    def _update(self, p: Array, g: Array, state: dict[str, Array], threads: int) -> None:
        _updates.rmsprop(
            p,
            g,
            state["square_avg"],
            state.get("grad_avg"),
            state.get("momentum_buffer"),
            lr=self._lr,
            decay=self._weight_decay,
            alpha=self._alpha,
            weight=1 - self._alpha,
            eps=self._eps,
            momentum=self._momentum,
            threads=threads,
        )


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of all their squares.

    With g including ``weight_decay * p``, at step t = 1, 2, ...::

        s = s + g^2                                   (s = initial_accumulator_value at first)
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Parameters
    ----------
    parameters : Parameters or sequence of Parameters
        What to train, such as ``lstm.parameters``.
    lr : float
        Learning rate, at least 0.
    lr_decay, weight_decay, initial_accumulator_value, eps : float
        As in the equations, at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm._parameters import Gradients, Parameters
    >>> weights = Parameters({"w": (2,)}, "float64")
    >>> optimizer = Adagrad(weights, lr=0.5)
    >>> optimizer.step(Gradients({"w": (2,)}, np.array([3.0, -7.0])))
    >>> weights["w"].round(6)
    array([-0.5,  0.5])
    """

    def __init__(
        self,
        parameters: Parameters | Sequence[Parameters],
        lr: float = 1e-2,
        *,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        self._lr_decay = non_negative("lr_decay", lr_decay)
        self._eps = non_negative("eps", eps)
        initial = non_negative("initial_accumulator_value", initial_accumulator_value)
        options = {"lr_decay": lr_decay, "initial_accumulator_value": initial, "eps": eps}
        super().__init__(parameters, lr, weight_decay, options, ["sum"])
        for state in self._state:
            state["sum"].fill(initial)

    def _update(self, p: Array, g: Array, state: dict[str, Array], threads: int) -> None:
        _updates.adagrad(
            p,
            g,
            state["sum"],
            lr=self._lr / (1 + (self._steps - 1) * self._lr_decay),
            decay=self._weight_decay,
            eps=self._eps,
            threads=threads,
        )


class Adam(Optimizer):
    """Adam: running means of gradients and of their squares, corrected for their start.

    With g including ``weight_decay * p``, at step t = 1, 2, ...::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        p = p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Parameters
    ----------
    parameters : Parameters or sequence of Parameters
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
    >>> from fastlstm._parameters import Gradients, Parameters
    >>> weights = Parameters({"w": (2,)}, "float64")
    >>> optimizer = Adam(weights, lr=0.5)
    >>> optimizer.step(Gradients({"w": (2,)}, np.array([3.0, -7.0])))
    >>> weights["w"].round(6)
    array([-0.5,  0.5])
    """

    _decoupled_decay = False

    def __init__(
        self,
        parameters: Parameters | Sequence[Parameters],
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
        _updates.adam(
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
    >>> from fastlstm._parameters import Gradients, Parameters
    >>> weights = Parameters({"w": (2,)}, "float64")
    >>> weights["w"] = [2, -2]
    >>> optimizer = AdamW(weights, lr=0.5, weight_decay=0.1)
    >>> optimizer.step(Gradients({"w": (2,)}, np.array([3.0, -7.0])))
    >>> weights["w"].round(6)
    array([ 1.4, -1.4])
    """

    _decoupled_decay = True

    def __init__(
        self,
        parameters: Parameters | Sequence[Parameters],
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


def clip_grad_norm(grads: Gradients | Sequence[Gradients], max_norm: float) -> float:
    """Scale gradients in place so that their norm together is at most `max_norm`.

    As ``torch.nn.utils.clip_grad_norm_``: everything is multiplied by
    ``min(1, max_norm / (norm + 1e-6))``, where norm is the root of the sum of all squares.

    Parameters
    ----------
    grads : Gradients or sequence of Gradients
    max_norm : float
        At least 0; infinity only measures.

    Returns
    -------
    float
        The norm before scaling.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm._parameters import Gradients
    >>> grads = Gradients({"w": (2,)}, np.array([3.0, 4.0]))
    >>> clip_grad_norm(grads, 1.0)
    5.0
    >>> grads["w"].round(4)
    array([0.6, 0.8])
    """
    given = [grads] if isinstance(grads, Gradients) else list(grads)
    for grad in given:
        if not isinstance(grad, Gradients):
            raise TypeError(f"grads: expected Gradients, got {type(grad).__name__}")
    limit = bound("max_norm", max_norm)
    threads = get_num_threads()
    flats = (np.ascontiguousarray(grad.flat) for grad in given)
    norm = math.sqrt(sum(_updates.sum_of_squares(flat, threads) for flat in flats))
    scale = limit / (norm + 1e-6)
    if not scale >= 1:  # NaN has to spread, as in torch
        for grad in given:
            grad.flat[...] *= scale
    return norm


def _betas(betas: Any) -> tuple[float, float]:
    try:
        beta1, beta2 = (number("betas", beta) for beta in betas)
    except (TypeError, ValueError):
        raise ValueError(f"betas: expected two numbers, got {betas!r}") from None
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"betas: expected two numbers in [0, 1), got {betas}")
    return beta1, beta2
