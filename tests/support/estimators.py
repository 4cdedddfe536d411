"""What the tests of `fastlstm.sklearn` share: data, small estimators, what they learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

pytest.importorskip("sklearn")

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

SMALL: dict[str, Any] = {"hidden_size": 5, "max_iter": 3, "random_state": 7}
ESTIMATORS = [LSTMClassifier, LSTMRegressor]
BOTH = pytest.mark.parametrize("kind", ESTIMATORS)


def data(rng: Generator, n: int = 30, steps: int = 6, width: int = 2) -> tuple[Any, Any]:
    """Sequences (n, T, F), and three classes that are numbers too."""
    X = rng.normal(size=(n, steps, width))
    return X, np.digitize(X[:, :, 0].mean(axis=1), [-0.2, 0.2])


def weights_of(estimator: Any) -> Any:
    return np.concatenate([estimator.lstm_.parameters.flat, estimator.out_.flat])


def outputs_of(estimator: Any, X: Any) -> Any:
    proba = getattr(estimator, "predict_proba", None)
    return estimator.predict(X) if proba is None else proba(X)
