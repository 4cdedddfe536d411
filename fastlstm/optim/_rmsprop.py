"""RMSprop, as in torch.optim."""

from __future__ import annotations

from fastlstm._core import updates
from fastlstm._parameters import Array
from fastlstm._validation import non_negative
from fastlstm.optim._base import Optimizer
from fastlstm.optim._targets import Trainable


class RMSprop(Optimizer):
    """Gradients divided by the root of a running mean of their squares.

    With g including ``weight_decay * p``::

        v = alpha * v + (1 - alpha) * g^2
        m = alpha * m + (1 - alpha) * g               (centered only, otherwise m = 0)
        b = momentum * b + g / (sqrt(v - m^2) + eps)
        p = p - lr * b

    Parameters
    ----------
    parameters : Parameters, mapping of str to array, array, or sequence of these
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
    >>> weights = np.zeros(2)
    >>> optimizer = RMSprop(weights, lr=0.5, alpha=0.75)
    >>> optimizer.step(np.array([3.0, -7.0]))
    >>> weights.round(6)
    array([-1.,  1.])
    """

    def __init__(
        self,
        parameters: Trainable,
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
        updates.rmsprop(
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
