"""Scaling of sequences: mean 0 and variance 1 of each feature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from fastlstm._validation import shape_text
from fastlstm.sklearn._sequences import axes_of, is_list, joined, plain

Array = NDArray[Any]


class _OfSequences:
    """`transform` outside the class that scikit-learn wraps: ``set_output`` is for tables alone."""

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """Scale sequences.

        Parameters
        ----------
        X : as for `fit`
        copy : bool, optional
            In place of the parameter.

        Returns
        -------
        as `X`
            An array (n, T, F), a list of n arrays (T_i, F), or a table.
        """
        steps, lengths, closed = _opened(X)
        scaled = super().transform(steps, copy)  # type: ignore[misc]
        return scaled if lengths is None else closed(np.asarray(scaled))

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Scale sequences by their own means and standard deviations.

        Parameters
        ----------
        X, y, **fit_params
            As for `fit`.

        Returns
        -------
        as `X`
        """
        return self.fit(X, y, **fit_params).transform(X)  # type: ignore[attr-defined]


class SequenceScaler(_OfSequences, StandardScaler):  # type: ignore[misc]  # no types there
    """Scale each feature to mean 0 and variance 1, over all steps of all sequences.

    A ``StandardScaler`` that takes what the estimators take; its arithmetic, its parameters and its
    attributes.  NaN are left out of means and variances, and stay where they are.

    Parameters
    ----------
    copy : bool, default True
        False may scale an array in its place.
    with_mean : bool, default True
        Whether to subtract the mean.
    with_std : bool, default True
        Whether to divide by the standard deviation; a constant feature is not divided.

    Attributes
    ----------
    mean_, var_, scale_ : (F,) arrays, or None
        What is subtracted, its variance, and what is divided by.
    n_samples_seen_ : int or (F,) array of int
        Steps that were seen; of every feature, if some had NaN.
    n_features_in_ : int
    feature_names_in_ : array of str
        Of a data frame with names.

    See Also
    --------
    LSTMClassifier, LSTMRegressor

    Notes
    -----
    A table is scaled column by column, as ``StandardScaler`` does, also if the estimator behind
    reads its columns as steps of one feature.  One that was fitted to sequences scales a table of
    steps (N, F), too.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from fastlstm.sklearn import LSTMClassifier, SequenceScaler
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(50, 20, size=(length, 2)) for length in rng.integers(3, 9, size=100)]
    >>> y = [x[-1, 0] > 50 for x in X]
    >>> scaled = SequenceScaler().fit_transform(X)
    >>> bool(np.allclose(np.concatenate(scaled).mean(axis=0), 0))
    True
    >>> model = make_pipeline(SequenceScaler(), LSTMClassifier(16, max_iter=40, random_state=0))
    >>> model.fit(X, y).score(X, y) > 0.9
    True
    """

    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Compute means and standard deviations.

        Parameters
        ----------
        X : (n, T, F) array-like, list of n array-likes (T_i, F), or (n, features) table
        y : None
            Not used.
        sample_weight : (n,) array-like, optional
            How much each step of a sequence counts.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `X` is none of these, or has infinite values.
        """
        super().fit(X, y, sample_weight)  # forgets, and calls partial_fit
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Go on computing means and standard deviations, with more sequences.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self
        """
        steps, lengths, _ = _opened(X)
        if sample_weight is not None and lengths is not None:
            check_consistent_length(lengths, sample_weight)
            sample_weight = np.repeat(np.asarray(sample_weight), lengths)
        super().partial_fit(steps, y, sample_weight)
        return self

    def inverse_transform(self, X: Any, copy: bool | None = None) -> Any:
        """Undo `transform`.

        Parameters
        ----------
        X, copy
            As for `transform`.

        Returns
        -------
        as `X`
        """
        check_is_fitted(self)
        steps, lengths, closed = _opened(X)
        if lengths is not None and steps.shape[1] != self.n_features_in_:
            raise ValueError(  # StandardScaler would repeat a single feature
                f"X has {steps.shape[1]} features, but SequenceScaler is expecting "
                f"{self.n_features_in_} features as input."
            )
        original = super().inverse_transform(steps, copy)
        return original if lengths is None else closed(np.asarray(original))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _opened(X: Any) -> tuple[Any, Array | None, Callable[[Array], Any]]:
    """The steps of sequences (N, F), how many each has, and what gives them their form again.

    A table is what it is: there are no lengths then.
    """
    X = plain(X)
    axes = axes_of(X)
    if axes < 3:
        return X, None, lambda table: table
    if is_list(X):
        steps, lengths = joined(X)
        return steps, lengths, lambda scaled: np.split(scaled, np.cumsum(lengths)[:-1])
    array = np.asarray(X)
    if axes > 3 or not array.size:
        raise ValueError(
            "X: expected an array (n, T, F) with at least one step and one feature, a list of "
            f"arrays (T, F) or a table (n, features), got {shape_text(array.shape)}"
        )
    n, length, width = array.shape
    same = np.full(n, length)
    return array.reshape(-1, width), same, lambda scaled: scaled.reshape(n, length, -1)
