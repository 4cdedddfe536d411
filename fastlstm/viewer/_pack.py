"""Arrays as the page reads them: integers with scales, one after the other in one piece of data."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Pack:
    """Collects arrays; `text` is all of them, `add` and `store` return where the page finds one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, array: Array) -> dict[str, Any]:
        """An array (N, K): one byte a value if all are from -1 to 1, two if not.

        Off by 0.004, or by 1/65534 of the largest value of its row, at most.
        """
        if np.abs(array).max(initial=0) > 1:
            return self.add_fine(array)
        dtype, limit = ("i1", 127) if (array < 0).any() else ("u1", 255)
        return self._store(np.rint(array * limit).astype(dtype), np.array([1 / limit]))

    def add_fine(self, array: Array) -> dict[str, Any]:
        """An array (N, K) of two bytes a value, a scale for each row."""
        scale = np.abs(array).max(axis=1, initial=0).astype(np.float64) / 32767
        divisor = np.where(scale > 0, scale, 1)[:, None]
        return self._store(np.rint(array / divisor).astype("<i2"), scale)

    def add_integers(self, array: Array) -> dict[str, Any]:
        """An array (N, K) of small integers, none below 0."""
        dtype = "u1" if array.max(initial=0) < 256 else "<u2"
        return self._store(array.astype(dtype), np.ones(1))

    def _store(self, array: Array, scale: Array) -> dict[str, Any]:
        offset = self._size
        data = array.tobytes()
        data += bytes(-len(data) % 4)  # the page reads them where they lie: aligned
        self._parts.append(data)
        self._size += len(data)
        kind = {"i1": "Int8", "u1": "Uint8", "i2": "Int16", "u2": "Uint16"}[array.dtype.str[1:]]
        scales = [float(f"{value:.7g}") for value in scale]
        return {"at": offset, "type": kind, "shape": list(array.shape), "scale": scales}

    def text(self) -> str:
        """All data, compressed and in base64."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 6)).decode("ascii")
