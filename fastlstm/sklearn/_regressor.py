"""The regressor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_array

from fastlstm.sklearn._base import SequenceEstimator
from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import Network

Array = NDArray[Any]


class LSTMRegressor(RegressorMixin, SequenceEstimator):  # type: ignore[misc]
    """Predict numbers from sequences, or at each of their steps: recurrent layer -> linear.

    Trained on the squared error by Adam, in shuffled batches.  The same `random_state` gives the
    same bits, whatever the number of threads.  Targets are scaled within: each output is learned
    with mean 0 and variance 1, those of the first call of `fit` or `partial_fit`.  Inputs are not
    scaled: the layer expects values around 1, as a `SequenceScaler` before it gives.

    Parameters
    ----------
    hidden_size, num_layers, bidirectional, dropout, cell, n_timesteps
        As for `LSTMClassifier`.
    output : {"last", "steps"}, default "last"
        As for `LSTMClassifier`: `y` (n,) or (n, K) for each sequence, or (n, T) or (n, T, K) for
        each step, or a list of n arrays (T_i,) or (T_i, K) beside a list `X`.
    learning_rate, batch_size, max_iter, clip_norm, weight_decay, shards, random_state, warm_start
    verbose
        As for `LSTMClassifier`.
    early_stopping, scoring, validation_fraction, n_iter_no_change, tol
        As for `LSTMClassifier`; without `scoring`, such as "neg_mean_absolute_error", the score is
        the coefficient of determination.

    Attributes
    ----------
    lstm_ : LSTM, GRU, RNN or SLSTM
        The layer, batch first: call it, `trace` it, or `save` it.
    out_ : Parameters
        The linear layer: ``weight`` (K, D*H) and ``bias`` (K,), for scaled targets.
    y_mean_, y_scale_ : (K,) arrays
        Mean and standard deviation of the targets; 1 for a constant.
    n_outputs_ : int
        Targets of a sequence, or of a step, K.
    n_features_in_ : int
        Columns of a table, or features of a step.
    feature_names_in_ : array of str
        Of a data frame with names.
    n_iter_ : int
        Epochs of the last call of `fit` or `partial_fit`.
    loss_curve_ : list of float
        The mean loss of every epoch since the weights were initialized: half the squared error,
        1/2 for a prediction of the mean.
    validation_scores_ : list of float, or None
        The score after every epoch, with `early_stopping`.
    best_validation_score_ : float, or None
        Their maximum.  The weights are those of the first epoch that has it.

    Examples
    --------
    The next value of a sine, from the last eight:

    >>> import numpy as np
    >>> from fastlstm.sklearn import LSTMRegressor
    >>> series = np.sin(np.arange(300) / 5)
    >>> X = np.lib.stride_tricks.sliding_window_view(series[:-1], 8)
    >>> y = series[8:]
    >>> regressor = LSTMRegressor(16, random_state=0).fit(X[:200], y[:200])
    >>> regressor.score(X[200:], y[200:]) > 0.99
    True
    """

    _stratified: ClassVar[bool] = False
    _several: ClassVar[bool] = True
    n_outputs_: int
    y_mean_: Array
    y_scale_: Array

    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch of these sequences, going on from the present weights.

        Parameters
        ----------
        X, y
            As for `fit`.
        sample_weight : (n,) array-like, optional
            Factors of the loss, as they are: one call knows no mean of all.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `fit` does; for `early_stopping`, which needs all the data.
        """
        return self._learn(X, y, sample_weight, partial=True)

    def predict(self, X: Any) -> Any:
        """Return predictions, (n,), or (n, K) if `y` had two dimensions.

        With ``output="steps"``: (n, T) or (n, T, K), or a list of n arrays (T_i,) or (T_i, K) if
        `X` is a list.

        Parameters
        ----------
        X
            As for `fit`.
        """
        return self._predict(X, lambda outputs: self._as_y(outputs * self.y_scale_ + self.y_mean_))

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the coefficient of determination, of sequences or of all their steps.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        """
        true, predicted, weights = self._compared(X, y, sample_weight)
        return float(r2_score(true, predicted, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _checked(self, y: Any, fresh: bool, classes: Array | None) -> Array:
        """Targets, (N, K)."""
        targets = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        columns: Array = targets.reshape(len(targets), -1)
        if fresh:
            self.n_outputs_, self._one_axis = columns.shape[1], targets.ndim == 1
        elif columns.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y: expected {self.n_outputs_} outputs as before, got {columns.shape[1]}"
            )
        return columns

    def _as_y(self, targets: Array) -> Array:
        return targets[:, 0] if self._one_axis else targets

    def _prepared(self, examples: Examples, fresh: bool) -> Examples:
        """With scaled targets."""
        targets, weights = examples.targets, examples.weights
        if fresh:
            self.y_mean_, self.y_scale_ = _mean_and_scale(targets, weights)
        with np.errstate(over="ignore"):
            scaled = (targets - self.y_mean_) / self.y_scale_
        if not np.isfinite(scaled).all():
            raise ValueError(
                "y: expected values whose distance from the mean, in standard deviations, "
                f"float64 can hold, got values up to {np.abs(targets).max()}"
            )
        return replace(examples, targets=scaled)

    def _outputs(self) -> int:
        return self.n_outputs_

    def _score(self, network: Network, examples: Examples) -> float:
        """The coefficient of determination."""
        outputs = network.outputs(examples.sequences)
        return float(r2_score(examples.targets, outputs, sample_weight=examples.weights))

    def _losses(self, outputs: Array, targets: Array) -> Array:
        """Half the squared error, on average over the outputs."""
        losses: Array = ((outputs - targets) ** 2).mean(axis=1) / 2
        return losses


def _mean_and_scale(targets: Array, weights: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each column; 1 for a constant."""
    # Divided by a power of two, which is exact: squares of 1e300 would overflow, of 1e-300 vanish.
    exponent = np.frexp(np.abs(targets).max(axis=0))[1]
    units = np.ldexp(targets, -exponent)
    mean = np.average(units, axis=0, weights=weights)
    spread = np.sqrt(np.average((units - mean) ** 2, axis=0, weights=weights))
    # A mean is rounded: the spread of a constant need not be 0.
    constant = spread <= 1e-12 * np.abs(mean)
    return np.ldexp(mean, exponent), np.where(constant, 1.0, np.ldexp(spread, exponent))
