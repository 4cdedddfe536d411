"""Checks and conversions of arguments; every message says what was expected and what came."""

from __future__ import annotations

import math
import operator
import sys
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]


def integer(value: Any, name: str, least: int, most: int | None = None) -> int:
    """An integer from `least` to `most`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}")
    if most is not None and number > most:
        raise ValueError(f"{name}: expected at most {most}, got {number}")
    return number


def probability(value: Any, name: str) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name}: expected a number from 0 to 1, got {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {value}")
    return float(value)


def real_dtype(value: DTypeLike, name: str) -> np.dtype[Any]:
    """float32 or float64."""
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError, SyntaxError):  # NumPy parses strings
        dtype = None
    if dtype is None or value is None or dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: expected 'float32' or 'float64', got {value!r}")
    return dtype.newbyteorder("=")


def check_size(size: int, dtype: np.dtype[Any], name: str) -> None:
    """Refuse arrays that could not be addressed, before anything is allocated."""
    # Tape and work space are up to 140 times larger for each layer (H = 1: a unit fills a vector).
    if size * dtype.itemsize > sys.maxsize >> 20:
        raise ValueError(f"{name}: too large, {size} values cannot be held in memory")


def refuse_masks(value: Any, name: str) -> None:
    """NumPy drops the mask of a masked array where it makes an array of it, without a word."""
    if type(value) is not np.ndarray and np.ma.isMaskedArray(value) and np.ma.is_masked(value):
        raise ValueError(f"{name}: expected an array without masked values; fill them in")


def convert(value: Any, name: str, dtype: np.dtype[Any] | None) -> Array:
    """An array of `dtype` whose last axis is contiguous: a view wherever possible.

    None stands for float32 or float64, whichever it is.
    """
    refuse_masks(value, name)
    expected = dtype or "float32 or float64"
    try:
        foreign = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        array = np.from_dlpack(value) if foreign else np.asarray(value)
    except Exception as error:  # nested lists of unequal lengths, tensors on another device, ...
        raise TypeError(f"{name}: expected an array of {expected}, got {error}") from None
    if array.dtype not in ((np.float32, np.float64) if dtype is None else (dtype,)):
        raise TypeError(
            f"{name}: expected {expected}, got {array.dtype}; "
            f"cast it with np.asarray({name}, np.{dtype or 'float32'})"
        )
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    whole = all(stride % array.itemsize == 0 for stride in array.strides)
    adjacent = not array.ndim or array.shape[-1] < 2 or array.strides[-1] == array.itemsize
    return array if whole and adjacent and flags.aligned else np.array(array, order="C")


def sequence(value: Any, name: str, size: int, dtype: np.dtype[Any], batch_first: bool) -> Array:
    """A sequence of vectors of `size` features, batched or not."""
    array = convert(value, name, dtype)
    if array.ndim not in (2, 3) or array.shape[-1] != size:
        axes = "B, T" if batch_first else "T, B"
        got = shape_text(array.shape)
        raise ValueError(f"{name}: expected ({axes}, {size}) or (T, {size}), got {got}")
    return array


def array_of(value: Any, name: str, kinds: str, what: str) -> Array:
    """An array whose dtype is of one of these kinds: `what`, for messages."""
    refuse_masks(value, name)
    try:
        array = np.asarray(value)
    except ValueError as error:  # nested lists of unequal lengths
        raise TypeError(f"{name}: expected an array of {what}, got {error}") from None
    if array.dtype.kind not in kinds and array.size:
        raise TypeError(f"{name}: expected an array of {what}, got {array.dtype}")
    return array


def indices(value: Any, name: str) -> Array:
    """An array of intp, contiguous.  What is too large for that becomes its largest number."""
    array = array_of(value, name, "iu", "integers")
    if array.dtype == np.uint64:
        array = np.minimum(array, np.iinfo(np.intp).max)
    return array.astype(np.intp, order="C")


def tokens(value: Any, name: str, count: int, batch_first: bool) -> Array:
    """A new array of whole numbers below `count`, (T, B), (B, T) or (T,)."""
    array = array_of(value, name, "iu", "integers")
    if array.ndim not in (1, 2):
        axes = "B, T" if batch_first else "T, B"
        raise ValueError(f"{name}: expected ({axes}) or (T,), got {shape_text(array.shape)}")
    if array.size and (array.min() < 0 or array.max() >= count):
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name}: expected tokens from 0 to {count - 1}, got {wrong}")
    return array.astype(np.intp, order="C")


def lengths(value: Any, name: str, steps: int, rows: int) -> Array:
    """A new array of `rows` whole numbers from 0 to `steps`."""
    refuse_masks(value, name)
    array = np.asarray(value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(f"{name}: expected ({rows},), got {shape_text(array.shape)}")
    if array.size and (array.min() < 0 or array.max() > steps):
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name}: expected integers from 0 to {steps}, got {wrong}")
    return array.astype(np.intp)


def flags(value: Any, name: str, shape: tuple[int, ...]) -> Array:
    """An array of bool of exactly this shape."""
    refuse_masks(value, name)
    array = np.asarray(value)
    if array.dtype != bool:
        raise TypeError(f"{name}: expected an array of bool, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape_text(shape)}, got {shape_text(array.shape)}")
    return array


def table(value: Any, name: str, size: int, dtype: np.dtype[Any]) -> Array:
    """An array (V, size) of at least one row."""
    array = convert(value, name, dtype)
    if array.ndim != 2 or array.shape[1] != size or not array.shape[0]:
        raise ValueError(f"{name}: expected (V, {size}), got {shape_text(array.shape)}")
    return array


def slot_numbers(value: Any, name: str) -> Array:
    """A new array (k,) of whole numbers."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:  # nested lists of unequal lengths
        raise TypeError(f"{name}: expected an array of integers, got {error}") from None
    if array.dtype.kind not in "iu" and array.shape != (0,):
        raise TypeError(f"{name}: expected an array of integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name}: expected (k,), got {shape_text(array.shape)}")
    return array.astype(np.intp, order="C")


def shape_text(shape: tuple[int, ...]) -> str:
    return str(tuple(int(n) for n in shape))


def like(value: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of exactly this shape."""
    array = convert(value, name, dtype)
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape_text(shape)}, got {shape_text(array.shape)}")
    return array


def row_indices(value: Any, name: str, count: int) -> Array:
    """Indices of rows below `count`, from an index, several, a slice or a mask."""
    if isinstance(value, slice):
        return np.arange(count)[value]
    rows = np.atleast_1d(np.asarray(value))
    if rows.dtype == bool:
        if rows.shape != (count,):
            raise ValueError(f"{name}: expected a mask ({count},), got {shape_text(rows.shape)}")
        return np.flatnonzero(rows)
    if rows.size == 0:
        return np.zeros(0, np.intp)
    if rows.dtype.kind not in "iu" or rows.ndim != 1:
        raise TypeError(f"{name}: expected indices, a slice or a mask, got {value!r}")
    if rows.min() < -count or rows.max() >= count:
        raise ValueError(f"{name}: expected indices below {count}, got {value!r}")
    return rows


def number(name: str, value: Any) -> float:
    """Return an option as a finite float, or raise an error that names it."""
    result = _float(name, value)
    if not math.isfinite(result):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return result


def non_negative(name: str, value: Any) -> float:
    """Return an option as a finite float that is at least 0, or raise an error that names it."""
    return bound(name, number(name, value))


def bound(name: str, value: Any) -> float:
    """Return an upper bound, infinity if there is none, or raise an error that names it."""
    result = _float(name, value)
    if not result >= 0:
        raise ValueError(f"{name}: expected a number >= 0, got {value}")
    return result


def _float(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
