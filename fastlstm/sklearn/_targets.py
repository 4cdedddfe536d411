"""What an estimator reads as `y`, a target for each sequence or for each step; and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array

from fastlstm._validation import shape_text

Array = NDArray[Any]

_TEXTS = "UST"  # kinds of dtypes


def check_given(estimator: Any, y: Any) -> None:
    """Refuse a missing y, in the words of scikit-learn."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, "
            "but the target y is None"
        )


def check_of_sequences(y: Any, several: bool) -> None:
    """Refuse what has more axes than a target for each sequence has.

    Parameters
    ----------
    y : array-like
    several : bool
        Whether a target may be several numbers.
    """
    expected = "(n,) or (n, K)" if several else "(n,)"
    hint = "for a target at each step set output='steps'"
    try:
        shape = np.asarray(y).shape
    except ValueError:  # arrays of different lengths
        raise ValueError(f"y: expected {expected}, got items of unequal lengths; {hint}") from None
    if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1 and not several):
        raise ValueError(f"y: expected {expected}, got {shape_text(shape)}; {hint}")


def of_steps(y: Any, lengths: Sequence[int] | Array, several: bool) -> Array:
    """(N,) or (N, K) array: targets of all steps, one sequence after another.

    Parameters
    ----------
    y : array-like (n, T) or (n, T, K), or list of n array-likes (T_i,) or (T_i, K), or texts
        Without K unless there may be `several`.
    lengths : (n,) array-like of int
        How many steps each sequence has.
    several : bool
    """
    parts: list[Array] = []
    for i, (item, length) in enumerate(zip(_items(y), lengths, strict=True)):
        try:
            part = np.asarray(list(item) if isinstance(item, str) else item)
            got = shape_text(part.shape)
        except ValueError as error:  # nested lists of unequal lengths
            part, got = np.empty(()), str(error)
        rest = parts[0].shape[1:] if parts else part.shape[1:]
        if part.ndim not in ((1, 2) if several else (1,)) or part.shape != (length, *rest):
            expected = _shape_of(int(length), parts, several)
            raise ValueError(f"y[{i}]: expected {expected}, a target for each step, got {got}")
        if parts and (part.dtype.kind in _TEXTS) != (parts[0].dtype.kind in _TEXTS):
            raise TypeError(
                f"y[{i}]: expected targets of the kind of y[0], {parts[0].dtype}, got {part.dtype}"
            )
        parts.append(part)
    return np.concatenate(parts)


def _items(y: Any) -> Any:
    """One for each sequence; an array of a data frame, which would list its columns."""
    return y if isinstance(y, list | tuple) else np.asarray(y)


def _shape_of(length: int, parts: list[Array], several: bool) -> str:
    if parts:
        return shape_text((length, *parts[0].shape[1:]))
    return f"({length},) or ({length}, K)" if several else f"({length},)"


def sample_weights(value: Any, n: int) -> Array:
    """(n,) array of float64; ones if there is none."""
    if value is None:
        return np.ones(n)
    weights: Array = check_array(
        value, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weights.shape != (n,):
        shape = shape_text(weights.shape)
        raise ValueError(f"sample_weight: expected ({n},), got {shape}")
    if weights.min() < 0:
        raise ValueError(f"sample_weight: expected no negative weights, got {weights.min()}")
    if weights.max() == 0:
        raise ValueError("sample_weight: expected a weight that is not zero")
    return weights
