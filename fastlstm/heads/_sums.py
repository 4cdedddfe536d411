"""Sums that are the same on any machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._core import memory


def sum_in_order(values: NDArray[Any]) -> float:
    """The sum of all elements, one after the other in float64.

    The `sum` of NumPy takes an order of the processor's.
    """
    if not values.size:
        return 0.0
    sums = memory.empty((values.size,), np.dtype(np.float64))
    return float(np.add.accumulate(values.ravel(), dtype=np.float64, out=sums)[-1])
