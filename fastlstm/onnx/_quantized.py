"""Constants of few bits: what DequantizeLinear makes of them, and what a layer can keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation

Array = NDArray[Any]

INTEGERS = ("int8", "uint8", "int32")  # that DequantizeLinear is read of
FLOATS = ("float32", "float64", "float16", "bfloat16")

# Operators that only move or repeat the elements of what they are given.
MOVES = {
    "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip


@dataclass(frozen=True)
class Quantized:
    """A constant whose elements are integers, less a zero point, times a scale.

    Parameters
    ----------
    stored, zero_points, scales : arrays of one shape
        Mostly views of fewer elements; nothing is computed before it is asked for.

    Examples
    --------
    >>> scales = np.float32([[[0.5, 0.5]]])
    >>> a = Quantized(np.uint8([[[129, 0]]]), np.uint8([[[128, 128]]]), scales)
    >>> a.values().tolist(), [part.tolist() for part in a.rows()]
    ([[[0.5, -64.0]]], [[[[1, -128]]], [[0.5]]])
    """

    stored: Array
    zero_points: Array
    scales: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def ndim(self) -> int:
        return self.stored.ndim

    @property
    def size(self) -> int:
        return self.stored.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of `values`."""
        return self.scales.dtype

    def values(self) -> Array:
        """What DequantizeLinear computes."""
        product: Array = self._integers().astype(self.dtype) * self.scales
        return product

    def rows(self) -> tuple[Array, Array]:
        """Integers of int8 and a scale for each row of the last axis, as our layers have them.

        Raises
        ------
        ValueError
            If it has none such.
        """
        if self.dtype != np.float32:
            raise ValueError(f"its scales are of {self.dtype}")
        firsts = self.scales[..., :1]
        if not (np.isfinite(firsts) & (firsts >= 0) & (self.scales == firsts)).all():
            raise ValueError("its rows have not one scale each, finite and 0 or more")
        integers = self._integers()
        if self.stored.itemsize > 1 or integers.min() < -128 or integers.max() > 127:
            raise ValueError(
                "its integers less the zero point are beyond -128 to 127 "
                f"({integers.min()} to {integers.max()})"
            )
        return integers.astype(np.int8), firsts[..., 0]

    def _integers(self) -> Array:
        wide = np.int16 if self.stored.itemsize == 1 else np.int64
        difference: Array = self.stored.astype(wide) - self.zero_points
        return difference


def dequantize_linear(inputs: list[Any], attributes: dict[str, Any]) -> Any:
    """The operator, with one scale for all elements, or one for each index of an axis."""
    stored, scale, zero_point = [*inputs, None][:3]
    if not all(isinstance(part, np.ndarray) for part in inputs):
        return None
    if stored.dtype.name not in INTEGERS or scale.dtype.name not in FLOATS or scale.ndim > 1:
        return None  # more axes: a scale for each block of elements
    if zero_point is None:
        zero_point = np.zeros((), stored.dtype)
    elif (zero_point.shape, zero_point.dtype) != (scale.shape, stored.dtype):
        return None
    k = attributes.get("axis", 1)
    return Quantized(stored, _along(zero_point, stored.shape, k), _along(scale, stored.shape, k))


def _along(part: Array, shape: tuple[int, ...], k: int) -> Array:
    """One number for all elements, or one for each index of axis k, as a view of this shape."""
    ends = [1] * len(shape)
    if part.size != 1:
        ends[k] = part.size
    return np.broadcast_to(part.reshape(ends), shape)


def moved(op: str, rule: Callable[..., Any], inputs: list[Any], attributes: dict[str, Any]) -> Any:
    """What a rule makes of values, some of which are `Quantized`; so is the result, if it can."""
    data = inputs if op == "Concat" else inputs[:1]
    if op not in MOVES or not all(isinstance(value, Quantized) for value in data):
        return rule([v.values() if isinstance(v, Quantized) else v for v in inputs], attributes)
    found = [
        rule([getattr(v, part) if isinstance(v, Quantized) else v for v in inputs], attributes)
        for part in ("stored", "zero_points", "scales")
    ]
    if isinstance(found[0], list):
        return [Quantized(*parts) for parts in zip(*found, strict=True)]
    return None if found[0] is None else Quantized(*found)


def of_dynamic_node(name: str, stored: Array, scale: Array, zero_point: Array) -> Quantized:
    """W or R of a DynamicQuantizeLSTM, with its axes in the order of an LSTM.

    It has (D, K, 4H) elements, and scales for each direction (D,) or row (D, 4H).

    Raises
    ------
    ValueError
        If types or shapes do not fit together.
    """
    if stored.ndim != 3 or stored.dtype.name not in ("int8", "uint8"):
        raise ValueError(f"{name}: expected 3 axes of int8 or uint8, got {_kind(stored)}")
    directions, _, rows = stored.shape
    wide = []
    for end, array, dtype in (
        ("zero_point", zero_point, stored.dtype),
        ("scale", scale, "float32"),
    ):
        if array.dtype != dtype or array.shape not in [(directions,), (directions, rows)]:
            expected = f"{dtype} ({directions},) or ({directions}, {rows})"
            raise ValueError(f"{name}_{end}: expected {expected}, got {_kind(array)}")
        wide.append(np.broadcast_to(array.reshape(directions, 1, -1), stored.shape))
    return Quantized(*(part.swapaxes(1, 2) for part in (stored, *wide)))


def _kind(array: Array) -> str:
    return f"{array.dtype} {_validation.shape_text(array.shape)}"
