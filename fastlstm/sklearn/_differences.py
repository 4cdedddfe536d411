"""Differences along time."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from fastlstm import _validation
from fastlstm._validation import shape_text
from fastlstm.sklearn._sequences import Sequences, read

Array = NDArray[Any]

DTYPES = (np.float64, np.float32)


class Differences(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Replace the values of sequences by how much they changed.

    Of each feature, ``x[t] - x[t - lag]``; a sequence of T steps has ``T - lag * order`` of them.
    Nothing is learned from data.

    Parameters
    ----------
    lag : int, default 1
        Steps back, such as 24 for the same hour of the day before.
    order : int, default 1
        How many times differences are taken.

    Attributes
    ----------
    n_features_in_ : int
        Columns of a table, or features of a step.
    feature_names_in_ : array of str
        Of a data frame with names.

    See Also
    --------
    DifferencedRegressor : takes differences of targets, too, and gives forecasts as values.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.sklearn import Differences
    >>> squares = np.arange(6.0)[None] ** 2  # one series, a table: its columns are the steps
    >>> Differences().fit_transform(squares)
    array([[1., 3., 5., 7., 9.]])
    >>> Differences().inverse_transform([[11.0, 13.0]], squares)
    array([[36., 49.]])
    """

    def __init__(self, lag: int = 1, order: int = 1) -> None:
        self.lag = lag
        self.order = order

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the form of `X`.

        Parameters
        ----------
        X : (n, T, F) array-like, list of n array-likes (T_i, F), or (n, T) table of single values
        y : None
            Not used.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If `X` is none of these or has too few steps; if a parameter is wrong.
        """
        check_steps(self, read(self, X, DTYPES, None))
        return self

    def transform(self, X: Any) -> Any:
        """Take differences.

        Parameters
        ----------
        X : as for `fit`

        Returns
        -------
        as `X`
            ``lag * order`` steps shorter.
        """
        check_is_fitted(self, "n_features_in_")
        sequences = again(self, X)
        lag, order = check_steps(self, sequences)
        found = sequences.as_given(sequences.steps)
        if sequences.listed:
            return [changes_of(x[None], lag, order)[0] for x in found]
        changes = changes_of(found, lag, order)
        return changes[:, :, 0] if hasattr(self, "_of_table") else changes

    def inverse_transform(self, X: Any, history: Any) -> Array:
        """Turn changes into values again, where the values before them are known.

        Parameters
        ----------
        X : (n, h) or (n, h, F) array-like
            Changes of the h steps after `history`, such as forecasts.
        history : (n, T) or (n, T, F) array-like
            Values, at least ``lag * order`` steps of them.

        Returns
        -------
        array as `X`
            The values of these h steps.

        Raises
        ------
        TypeError, ValueError
            If the arrays do not fit each other; if a parameter is wrong.
        """
        lag, order = lag_and_order(self)
        changes, before = (
            check_array(array, dtype=DTYPES, allow_nd=True, input_name=name)
            for name, array in (("X", X), ("history", history))
        )
        fits = changes.shape[:1] + changes.shape[2:] == before.shape[:1] + before.shape[2:]
        if not fits or before.shape[1] < lag * order:
            expected = ", ".join(str(n) for n in (len(changes), "T", *changes.shape[2:]))
            raise ValueError(
                f"history: expected ({expected}) with T of at least {lag * order}, "
                f"got {shape_text(before.shape)}"
            )
        return values_of(changes, before, lag, order)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def lag_and_order(estimator: Any) -> tuple[int, int]:
    """The parameters of these names, checked."""
    return (
        _validation.integer(estimator.lag, "lag", 1),
        _validation.integer(estimator.order, "order", 1),
    )


def again(estimator: Any, X: Any) -> Sequences:
    """X of a fitted estimator."""
    width = 1 if hasattr(estimator, "_of_table") else estimator.n_features_in_
    return read(estimator, X, DTYPES, width)


def check_steps(estimator: Any, sequences: Sequences) -> tuple[int, int]:
    """Lag and order, once it is sure that there are differences."""
    lag, order = lag_and_order(estimator)
    least = int(sequences.lengths.min())
    if least <= lag * order:
        got = f"{least} feature(s) of a table" if hasattr(estimator, "_of_table") else least
        raise ValueError(
            f"X: expected more than {lag * order} steps, for lag={lag} and order={order}, got {got}"
        )
    return lag, order


def changes_of(values: Array, lag: int, order: int) -> Array:
    """Differences along axis 1."""
    for _ in range(order):
        values = values[:, lag:] - values[:, :-lag]
    return values


def values_of(changes: Array, before: Array, lag: int, order: int) -> Array:
    """What `changes_of` made changes of, after the values before."""
    if order > 1:
        changes = values_of(changes, changes_of(before, lag, 1), lag, order - 1)
    values, previous = np.empty(changes.shape, np.result_type(changes, before)), before[:, -lag:]
    for start in range(0, changes.shape[1], lag):
        part = changes[:, start : start + lag]
        previous = part + previous[:, : part.shape[1]]
        values[:, start : start + lag] = previous
    return values
