"""Whether tensors have been written to, found out without reading all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

SAMPLES = 64  # values of a matrix


class Watch:
    """Tensors as they were when this was made, and whether they still are.

    torch counts writes, but not those through ``.data`` and ``numpy()``, of fused optimizers, and
    of other processes.  These mostly change whole matrices: so some values are compared, too, all
    of a vector and 64 of a matrix.

    Parameters
    ----------
    tensors : list of tensors
        Their memory is kept, so that no others can be in its place.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self._marks = _marks_of(tensors)
        if self._marks is not None:
            self._samples = [_sample(tensor.detach().numpy()) for tensor in tensors]
            self._values = self._read()

    def unchanged(self, tensors: list[Tensor]) -> bool:
        """Whether these are the same tensors, and no write to them can be seen."""
        if self._marks is None or _marks_of(tensors) != self._marks:
            return False  # before anything is read: the memory of old ones may be gone
        return self._read() == self._values

    def _read(self) -> bytes:
        return np.concatenate(self._samples).tobytes()


def _marks_of(tensors: list[Tensor]) -> list[tuple[int, int]] | None:
    """Where tensors are, and how many writes torch has counted; None if some have no such count."""
    if any(tensor.is_inference() or not tensor.is_contiguous() for tensor in tensors):
        return None
    return [(tensor.data_ptr(), tensor._version) for tensor in tensors]


def _sample(array: Array) -> Array:
    """A view of some values; of a matrix they are in all columns, as the step is odd."""
    flat = array.reshape(-1)
    return flat if array.ndim == 1 else flat[:: flat.size // SAMPLES | 1]
