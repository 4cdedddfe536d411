"""Biases with which gates that keep the state start open."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation

Array = NDArray[Any]
Bias = float | Literal["chrono"] | None

_MOST_BIAS = float(np.finfo(np.float32).max)
_MOST_LAG = 1 << 53  # whole numbers of float64


class ForgetBias(NamedTuple):
    """How far the gates that keep the state are open before anything is learned.

    A gate with the bias b keeps a share of sigmoid(b) at each step, which is about exp(b) steps.
    """

    value: float | None
    """The same for all units; None draws for each unit how many steps it keeps ("chrono")."""
    max_lag: int = 2

    @classmethod
    def of(cls, forget_bias: Any, max_lag: Any, bias: bool) -> Self | None:
        """What the arguments of a constructor ask for; None for biases as all others.

        Raises
        ------
        TypeError, ValueError
            An argument cannot be meant.
        """
        chrono = isinstance(forget_bias, str) and forget_bias == "chrono"
        if max_lag is not None and not chrono:
            raise ValueError(
                f"max_lag: expected forget_bias='chrono' with it, got {forget_bias!r} and {max_lag}"
            )
        if forget_bias is None:
            return None
        if not bias:
            raise ValueError(f"forget_bias: expected bias=True with it, got {forget_bias!r}")
        if chrono:
            if max_lag is None:
                raise ValueError(
                    "max_lag: expected with forget_bias='chrono' how many steps are to be "
                    "remembered, got None"
                )
            return cls(None, _validation.integer(max_lag, "max_lag", 2, _MOST_LAG))
        number = isinstance(forget_bias, int | float | np.floating | np.integer)
        if not number or isinstance(forget_bias, bool) or not abs(forget_bias) <= _MOST_BIAS:
            raise ValueError(
                f"forget_bias: expected a finite number, 'chrono' or None, got {forget_bias!r}"
            )
        return cls(float(forget_bias))

    @property
    def is_drawn(self) -> bool:
        """Whether units remember for different times."""
        return self.value is None

    def draw(self, units: int, generator: np.random.Generator) -> Array:
        """(units,) array: the sum of both biases of the gate."""
        if self.value is not None:
            return np.full(units, self.value)
        biases: Array = np.log(generator.uniform(1, self.max_lag - 1, units))
        return biases
