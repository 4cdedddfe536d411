"""What an estimator reads: tables, arrays of sequences, lists of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, validate_data

from fastlstm import _validation

Array = NDArray[Any]
DTypes = Sequence[Any]


@dataclass(frozen=True)
class Sequences:
    """Sequences of any lengths, one after another."""

    steps: Array
    """(N, F) array: all steps of all sequences."""
    starts: Array
    """(n,) array of int: where each begins."""
    lengths: Array
    """(n,) array of int: how many steps each has, at least 1."""
    listed: bool = False
    """Whether they came as a list."""

    @classmethod
    def of_equal_length(cls, array: Array) -> Sequences:
        """The sequences of an array (n, T, F)."""
        n, length, width = array.shape
        return cls(array.reshape(-1, width), np.arange(n) * length, np.full(n, length))

    @property
    def width(self) -> int:
        """Features of a step, F."""
        return int(self.steps.shape[1])

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: Array) -> Sequences:
        """Some of them."""
        return Sequences(self.steps, self.starts[rows], self.lengths[rows])

    def as_given(self, values: Array) -> Any:
        """Values of all steps, (N, ...), in the form that the sequences came in.

        They have to be all that came: a list of arrays (T_i, ...), or an array (n, T, ...).
        """
        if self.listed:
            return np.split(values, self.starts[1:])
        return values.reshape(len(self), -1, *values.shape[1:])

    def batch(self, rows: Array) -> tuple[Array, Array | None]:
        """Some sequences, (B, T, F), zeros behind the short ones; lengths (B,), if they differ."""
        lengths = self.lengths[rows]
        most = lengths.max(initial=1)
        places = self.starts[rows, None] + np.arange(most)
        steps = inside(lengths, most)
        if steps.all():
            return self.steps[places], None
        x = np.zeros((*places.shape, *self.steps.shape[1:]), self.steps.dtype)
        x[steps] = self.steps[places[steps]]
        return x, lengths


def inside(lengths: Array, steps: int) -> Array:
    """(B, steps) array of bool: where there is a step of a sequence."""
    mask: Array = np.arange(steps) < np.asarray(lengths)[:, None]
    return mask


def read(estimator: Any, X: Any, dtypes: DTypes, width: int | None) -> Sequences:
    """Sequences of an estimator's `X`; what it keeps of their form is set, or compared.

    Parameters
    ----------
    estimator : estimator of scikit-learn
        May have the parameter `n_timesteps`, and has ``n_features_in_`` once it is fitted.
    X : array-like or list of array-like
    dtypes : sequence of data-type
        Accepted as they are; the first one is what others become.
    width : int or None
        Features of a step once it is fitted.
    """
    X = plain(X)
    axes = axes_of(X)
    if axes > 3 and not is_list(X):
        shape = _validation.shape_text(X.shape)
        raise ValueError(
            "X: expected a table (n, features), an array (n, T, F) or a list of arrays (T, F), "
            f"got {shape}; if axis 1 is time, X.reshape({X.shape[0]}, {X.shape[1]}, -1) makes the "
            "other axes the features of a step"
        )
    if axes > 2:
        sequences = _listed(X, dtypes) if is_list(X) else _stacked(X, dtypes)
        _check_features(estimator, sequences.width, reset=width is None)
        return sequences
    if width is not None and not hasattr(estimator, "_of_table"):
        hint = "X[:, :, None] if a row is a sequence of single values, or else X.reshape(n, T, F)"
        if axes < 2:
            hint = "X[None, :, None] if it is one sequence of single values"
        raise ValueError(
            "X: expected sequences, an array (n, T, F) or a list of arrays (T, F), as in fit; "
            f"got {axes} dimension(s). Reshape your data: {hint}"
        )
    if axes == 2 and is_list(X):
        _check_rows(X)
    table = validate_data(estimator, X, reset=width is None, dtype=dtypes, order="C")
    n, features = table.shape
    if width is None:
        width = _window(getattr(estimator, "n_timesteps", None), features)
        estimator._of_table = True
    return Sequences.of_equal_length(table.reshape(n, -1, width))


def plain(X: Any) -> Any:
    """An array of what is neither list, array nor table, and of a series of pandas."""
    return np.asarray(X) if hasattr(X, "__array__") and getattr(X, "ndim", 1) == 1 else X


def joined(X: Any) -> tuple[Array, Array]:
    """The steps of a list of sequences, (N, F), and how many each has, (n,); of any numbers."""
    arrays: list[Array] = []
    for i, item in enumerate(X):
        try:
            array = np.asarray(item)
        except ValueError as error:  # nested lists of unequal lengths
            raise ValueError(f"X[{i}]: expected (T, F), got {error}") from None
        width = arrays[0].shape[1] if arrays else "F"
        if array.ndim != 2 or not array.size or (arrays and array.shape[1] != width):
            shape = _validation.shape_text(array.shape)
            raise ValueError(f"X[{i}]: expected (T, {width}) with at least one step, got {shape}")
        arrays.append(array)
    return np.concatenate(arrays), np.array([len(array) for array in arrays])


def _check_rows(X: Any) -> None:
    """Of a table that is a list; who has sequences of single values may take them for rows."""
    shapes = [row.shape if isinstance(row, np.ndarray) else (len(row),) for row in X]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"X[{i}]: expected {shapes[0]} as X[0] has, got {shape}; sequences of different "
                "lengths are arrays (T, F), of single values (T, 1)"
            )


def _window(n_timesteps: Any, features: int) -> int:
    """Features of a step, of a table with so many columns."""
    if n_timesteps is None:
        return 1
    steps = _validation.integer(n_timesteps, "n_timesteps", 1)
    if features % steps:
        raise ValueError(
            f"n_timesteps: expected a divisor of the {features} features of X, got {steps}"
        )
    return features // steps


def is_list(X: Any) -> bool:
    """Whether it is a list of arrays, perhaps as an array of objects."""
    objects = isinstance(X, np.ndarray) and X.dtype == object
    return isinstance(X, list | tuple) or (objects and X.ndim == 1)


def axes_of(X: Any) -> int:
    """Dimensions, of nested lists by their first items; 0 if it is something else."""
    if isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.dtype == object):
        deeper = np.ndim(X) - 1 if isinstance(X, np.ndarray) else 0
        return 1 + deeper + (axes_of(X[0]) if len(X) and not deeper else 0)
    return int(getattr(X, "ndim", 0))


def _stacked(X: Any, dtypes: DTypes) -> Sequences:
    array = check_array(X, dtype=dtypes, order="C", allow_nd=True, input_name="X")
    if not array.shape[1] or not array.shape[2]:
        shape = _validation.shape_text(array.shape)
        raise ValueError(f"X: expected at least one step and one feature, got {shape}")
    return Sequences.of_equal_length(array)


def _listed(X: Any, dtypes: DTypes) -> Sequences:
    steps, lengths = joined(X)
    # All at once: a check takes longer than many a sequence does.
    steps = check_array(steps, dtype=dtypes, order="C", input_name="X")
    return Sequences(steps, np.cumsum(lengths) - lengths, lengths, listed=True)


def _check_features(estimator: Any, features: int, *, reset: bool) -> None:
    """What `validate_data` does for tables."""
    if reset:
        for name in ("feature_names_in_", "_of_table"):
            if hasattr(estimator, name):
                delattr(estimator, name)
        estimator.n_features_in_ = features
        return
    if hasattr(estimator, "_of_table"):
        raise ValueError("X: expected a table (n, features) as in fit, got sequences")
    if features != estimator.n_features_in_:
        raise ValueError(
            f"X has {features} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input."
        )
