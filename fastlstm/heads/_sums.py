"""Sums that are the same on any machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def sum_in_order(values: NDArray[Any]) -> float:
    """The sum of all elements, one after the other in float64.

    The `sum` of NumPy takes an order of the processor's.
    """
    flat = values.ravel()
    return float(np.add.accumulate(flat, dtype=np.float64)[-1]) if flat.size else 0.0
