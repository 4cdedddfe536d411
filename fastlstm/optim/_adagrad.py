"""Adagrad, as in torch.optim."""

from __future__ import annotations

from fastlstm._core import updates
from fastlstm._parameters import Array
from fastlstm._validation import non_negative
from fastlstm.optim._base import Optimizer
from fastlstm.optim._targets import Trainable


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of all their squares.

    With g including ``weight_decay * p``, at step t = 1, 2, ...::

        s = s + g^2                                   (s = initial_accumulator_value at first)
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Parameters
    ----------
    parameters : Parameters, mapping of str to array, array, or sequence of these
        What to train, such as ``lstm.parameters``.
    lr : float
        Learning rate, at least 0.
    lr_decay, weight_decay, initial_accumulator_value, eps : float
        As in the equations, at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> weights = np.zeros(2)
    >>> optimizer = Adagrad(weights, lr=0.5)
    >>> optimizer.step(np.array([3.0, -7.0]))
    >>> weights.round(6)
    array([-0.5,  0.5])
    """

    def __init__(
        self,
        parameters: Trainable,
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
        updates.adagrad(
            p,
            g,
            state["sum"],
            lr=self._lr / (1 + (self._steps - 1) * self._lr_decay),
            decay=self._weight_decay,
            eps=self._eps,
            threads=threads,
        )
