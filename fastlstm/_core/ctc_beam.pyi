# Types of the compiled module; ctc_beam.pyx explains them.

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

def search(
    y: _Array,
    blank: int,
    width: int,
    bonus: float,
    factors: Callable[[tuple[int, ...]], _Array] | None = ...,
) -> tuple[int, ...]: ...
