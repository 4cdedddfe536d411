"""A regressor that learns changes in place of values."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted

from fastlstm import _validation
from fastlstm._validation import shape_text
from fastlstm.sklearn._differences import (
    DTYPES,
    again,
    changes_of,
    check_steps,
    lag_and_order,
    values_of,
)
from fastlstm.sklearn._regressor import LSTMRegressor
from fastlstm.sklearn._sequences import Sequences, read
from fastlstm.sklearn._targets import check_given

Array = NDArray[Any]


class DifferencedRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Forecast a series by its changes: for one with a trend or a season.

    A regressor learns from changes within a window to forecast the changes after it.  These are
    added to the last values of the window, so that targets, forecasts and scores are in the units
    of the series, as with ``TransformedTargetRegressor``.  Nothing but the window is looked at.

    Parameters
    ----------
    regressor : estimator, optional
        What learns the changes, such as a pipeline of `SequenceScaler` and `LSTMRegressor`.
        Default: ``LSTMRegressor()``.
    lag : int, default 1
        Steps back that a change is from: 1 for a trend; for a season its length, which may be less
        than the horizon.
    order : int, default 1
        How many times differences are taken.
    target : int, default 0
        Which feature of the windows is forecast.  Of it there are differences; of the others, the
        values at the same steps.

    Attributes
    ----------
    regressor_ : estimator
        The fitted one.  It was given ``(n, T - lag * order, F)``.
    n_features_in_ : int
        Columns of a table, or features of a step.
    feature_names_in_ : array of str
        Of a data frame with names.

    See Also
    --------
    windows : makes X and y of a series.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.sklearn import DifferencedRegressor, LSTMRegressor, last_window, windows
    >>> series = np.arange(200) / 10 + np.sin(np.arange(200))  # it keeps rising
    >>> X, y = windows(series[:150], length=12, horizon=3)
    >>> regressor = DifferencedRegressor(LSTMRegressor(16, random_state=0)).fit(X, y)
    >>> forecast = regressor.predict(last_window(series[:150], 12))
    >>> bool(np.abs(forecast - series[150:153]).max() < 0.2)
    True
    """

    def __init__(
        self, regressor: Any = None, *, lag: int = 1, order: int = 1, target: int = 0
    ) -> None:
        self.regressor = regressor
        self.lag = lag
        self.order = order
        self.target = target

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Learn the changes.

        Parameters
        ----------
        X : (n, T, F) array-like, or (n, T) table of single values
            Windows.
        y : (n,) or (n, h) array-like
            Values of the steps after each window.
        **fit_params
            Of the regressor's `fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not what it has to be.
        """
        lag, order = lag_and_order(self)
        values = self._windows(read(self, X, DTYPES, None))
        check_given(self, y)
        after = check_array(y, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="y")
        if after.ndim > 2:
            raise ValueError(f"y: expected (n,) or (n, h), got {shape_text(after.shape)}")
        check_consistent_length(values, after)
        history = self._history(values)[:, -lag * order :]
        steps = np.concatenate([history, after.reshape(len(after), -1)], axis=1)
        changes = changes_of(steps, lag, order).reshape(after.shape)
        regressor = LSTMRegressor() if self.regressor is None else clone(self.regressor)
        self.regressor_ = regressor.fit(self._inputs(values), changes, **fit_params)
        return self

    def predict(self, X: Any) -> Array:
        """Return forecasts, (n,) or (n, h) as `y` was.

        Parameters
        ----------
        X
            As for `fit`.
        """
        check_is_fitted(self, "regressor_")
        values = self._windows(again(self, X))
        changes = np.asarray(self.regressor_.predict(self._inputs(values)))
        columns = changes.reshape(len(changes), -1)
        found = values_of(columns, self._history(values), *lag_and_order(self))
        return found.reshape(changes.shape)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.multi_output = True
        return tags

    def _windows(self, sequences: Sequences) -> Array:
        """(n, T, F), checked."""
        if sequences.listed:
            raise ValueError(
                "X: expected windows of one length, an array (n, T, F) or a table (n, T), "
                "got a list of sequences"
            )
        check_steps(self, sequences)
        _validation.integer(self.target, "target", 0, sequences.width - 1)
        windows: Array = sequences.as_given(sequences.steps)
        return windows

    def _history(self, values: Array) -> Array:
        """(n, T) array of float64: the feature that is forecast."""
        return values[:, :, self.target].astype(np.float64)

    def _inputs(self, values: Array) -> Array:
        """What the regressor reads, in the form of X."""
        lag, order = lag_and_order(self)
        inputs = values[:, lag * order :].copy()
        inputs[:, :, self.target] = changes_of(values[:, :, self.target], lag, order)
        return inputs[:, :, 0] if hasattr(self, "_of_table") else inputs
