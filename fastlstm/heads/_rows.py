"""Rows of steps as the core takes them, from the arguments of the user."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation

Array = NDArray[Any]


class Rows(NamedTuple):
    """Numbers of each step of some rows."""

    values: Array
    """(T, B, K), of float32 or float64, the last axis contiguous."""
    lengths: Array
    """(B,) of intp."""
    is_batch: bool
    """Whether the user's arrays have an axis of rows."""

    @property
    def inside(self) -> Array:
        """(T, B) of bool: steps before the end of their row."""
        inside: Array = np.arange(len(self.values))[:, None] < self.lengths
        return inside

    def out(self, array: Array, axis: int = 1) -> Array:
        """An array with an axis of rows as the user has it."""
        return array if self.is_batch else array.take(0, axis)

    def pieces(self, array: Array) -> list[Array] | Array:
        """(T, B) as a list of the rows, each to its end; of an input without rows, that array."""
        pieces = [array[:n, b].copy() for b, n in enumerate(self.lengths)]
        return pieces if self.is_batch else pieces[0]


def read_rows(
    value: ArrayLike,
    name: str,
    lengths: ArrayLike | None,
    size: int | None,
    dtype: Any = None,
    lengths_name: str = "lengths",
) -> Rows:
    """Rows of `size` numbers a step, or of any; of `dtype`, or of either."""
    array = _validation.convert(value, name, dtype)
    if array.ndim not in (2, 3) or (size is not None and array.shape[-1] != size):
        count = "K" if size is None else size
        got = _validation.shape_text(array.shape)
        raise ValueError(f"{name}: expected (T, B, {count}) or (T, {count}), got {got}")
    if not array.shape[-1]:
        got = _validation.shape_text(array.shape)
        raise ValueError(f"{name}: expected at least one number a step, got {got}")
    _validation.check_size(math.prod(array.shape), array.dtype, name)
    is_batch = array.ndim == 3
    array = array if is_batch else array[:, None]
    T, B = array.shape[:2]
    ends = np.full(B, T) if lengths is None else _lengths(lengths, lengths_name, T, B, is_batch)
    return Rows(array, ends, is_batch)


def labels(value: ArrayLike, name: str, rows: Rows, count: int) -> Array:
    """Numbers below `count` for each step, (T, B) and contiguous, 0 beyond the end of a row."""
    array = _validation.array_of(value, name, "iu", "integers")
    T, B, _ = rows.values.shape
    shape = (T, B) if rows.is_batch else (T,)
    if array.shape != shape:
        got = _validation.shape_text(array.shape)
        raise ValueError(f"{name}: expected {_validation.shape_text(shape)}, got {got}")
    array, inside = array.reshape(T, B), rows.inside
    if wrong := array[inside & ((array < 0) | (array >= count))].tolist():
        raise ValueError(f"{name}: expected integers from 0 to {count - 1}, got {wrong[0]}")
    return np.where(inside, array, 0).astype(np.intp)


def ends(value: ArrayLike | None, name: str, most: int, rows: Rows) -> Array:
    """How many of each row count: (B,) of intp, all of them by default."""
    B = rows.values.shape[1]
    return np.full(B, most) if value is None else _lengths(value, name, most, B, rows.is_batch)


def _lengths(value: ArrayLike, name: str, most: int, rows: int, is_batch: bool) -> Array:
    value = np.asarray(value)
    value = value[None] if not is_batch and not value.ndim else value
    return _validation.lengths(value, name, most, rows)
