"""The best moment of a run, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Best:
    """The best record so far, and the weights it was measured with.

    Parameters
    ----------
    patience : int or None
        Records without an improvement after which there is no more hope; None: any number.
    tol : float
        How much better a record has to be to be an improvement.

    Attributes
    ----------
    weights : list of array, or None
        Of the best record.
    """

    def __init__(self, patience: int | None, tol: float) -> None:
        self._patience, self._tol = patience, tol
        self._value, self._waited = -math.inf, 0
        self.weights: list[Array] | None = None

    def see(self, value: float, weights: Callable[[], Sequence[Array]] | None = None) -> None:
        """Compare the value of another record, of which the higher is the better."""
        if self._patience is None:
            return
        self._waited = 0 if value > self._value + self._tol else self._waited + 1
        if value > self._value:
            self._value = value
            if weights is not None:
                self.weights = [np.array(flat) for flat in weights()]

    @property
    def is_over(self) -> bool:
        """Whether the run is to end."""
        return self._patience is not None and self._waited >= self._patience
