"""Recurrent estimators for scikit-learn, and what goes before them.

Needs scikit-learn 1.6 or later.  The estimators read three kinds of ``X``:

* a table (n, features), as every estimator does: a row is a sequence, cut into steps by
  `n_timesteps`;
* an array (n, T, F): n sequences of T steps of F features;
* a list of n arrays (T_i, F): sequences of different lengths.  Nothing is computed for padding.

What they predict is of a sequence, or of each of its steps.  `SequenceScaler` scales such ``X``;
`windows` makes it of a series that is to be forecast, and `DifferencedRegressor` forecasts one with
a trend or a season.
"""

from __future__ import annotations

try:
    from sklearn.utils.validation import validate_data as _new_in_1_6  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fastlstm.sklearn needs scikit-learn 1.6 or later: pip install 'fastlstm[sklearn]'"
    ) from error

from fastlstm.sklearn._classifier import LSTMClassifier
from fastlstm.sklearn._differenced import DifferencedRegressor
from fastlstm.sklearn._differences import Differences
from fastlstm.sklearn._regressor import LSTMRegressor
from fastlstm.sklearn._scaler import SequenceScaler
from fastlstm.sklearn._tagger import LSTMTagger
from fastlstm.sklearn._windows import last_window, windows

__all__ = [
    "DifferencedRegressor",
    "Differences",
    "LSTMClassifier",
    "LSTMRegressor",
    "LSTMTagger",
    "SequenceScaler",
    "last_window",
    "windows",
]
