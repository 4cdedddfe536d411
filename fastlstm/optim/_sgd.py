"""Stochastic gradient descent, as in torch.optim."""

from __future__ import annotations

from fastlstm._core import updates
from fastlstm._parameters import Array
from fastlstm._validation import non_negative, number
from fastlstm.optim._base import Optimizer
from fastlstm.optim._targets import Trainable


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    With a velocity b, and g including ``weight_decay * p``::

        b = momentum * b + (1 - dampening) * g        (b = g at the first step)
        p = p - lr * b                                (nesterov: lr * (g + momentum * b))

    Parameters
    ----------
    parameters : Parameters, mapping of str to array, array, or sequence of these
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
    >>> weights = np.zeros(2)
    >>> optimizer = SGD(weights, lr=0.5)
    >>> optimizer.step(np.array([1.0, -2.0]))
    >>> weights
    array([-0.5,  1. ])
    """

    def __init__(
        self,
        parameters: Trainable,
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
        updates.sgd(
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
