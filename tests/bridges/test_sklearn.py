"""The estimators of scikit-learn: its own checks, targets, weights, and its other parts."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.processes import script

import fastlstm

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from support.estimators import BOTH, SMALL, data, outputs_of, weights_of

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

pytestmark = pytest.mark.peer


@BOTH
@pytest.mark.filterwarnings("ignore")  # the checks provoke some
def test_checks_of_scikit_learn(kind: Any) -> None:
    before = fastlstm.get_num_threads()
    fastlstm.set_num_threads(1)  # small fits, which a busy machine would make wait for each other
    try:
        found = check_estimator(kind(), on_skip=None, on_fail=None)
    finally:
        fastlstm.set_num_threads(before)
    failed = {c["check_name"]: c["exception"] for c in found if c["status"] != "passed"}
    # This one asks for an environment variable; the estimators claim nothing of what it checks.
    failed.pop("check_array_api_input", None)
    assert failed == {}
    assert len(found) > 50


def test_labels_and_probabilities(rng: Generator) -> None:
    X, y = data(rng)
    labels = np.array(["low", "middle", "high"])[y]
    classifier = LSTMClassifier(16, random_state=0).fit(X, labels)
    assert list(classifier.classes_) == ["high", "low", "middle"]
    assert classifier.score(X, labels) > 0.9
    proba = classifier.predict_proba(X)
    assert np.abs(proba.sum(axis=1) - 1).max() < 1e-15
    np.testing.assert_array_equal(classifier.classes_[proba.argmax(axis=1)], classifier.predict(X))
    np.testing.assert_allclose(np.exp(classifier.predict_log_proba(X)), proba)


def test_outputs_of_a_regressor(rng: Generator) -> None:
    X, _ = data(rng)
    y = np.stack([X[:, -1, 0], 50 - 1000 * X[:, -1, 1]], axis=1)
    regressor = LSTMRegressor(16, random_state=0).fit(X, y)
    assert regressor.score(X, y) > 0.95
    assert regressor.predict(X).shape == (30, 2)
    np.testing.assert_allclose(regressor.y_mean_, y.mean(axis=0))
    np.testing.assert_allclose(regressor.y_scale_, y.std(axis=0))
    assert LSTMRegressor(**SMALL).fit(X, y[:, :1]).predict(X).shape == (30, 1)
    constant = LSTMRegressor(**SMALL).fit(X, np.full(30, 0.1))
    assert constant.y_scale_ == 1


@pytest.mark.parametrize("exponent", [-1030, -900, 900, 1020])
def test_targets_of_any_size(rng: Generator, exponent: int) -> None:
    """Squares of the largest overflow, of the smallest they are 0."""
    X, y = data(rng)
    usual = LSTMRegressor(**SMALL).fit(X, y)
    scaled = LSTMRegressor(**SMALL).fit(X, np.ldexp(y, exponent))
    tolerance = 1e-11 if exponent == -1030 else 0  # subnormal: fewer digits
    predicted = np.ldexp(scaled.predict(X), -exponent)
    np.testing.assert_allclose(predicted, usual.predict(X), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(scaled.loss_curve_, usual.loss_curve_, rtol=tolerance)


def test_targets_too_far_apart(rng: Generator) -> None:
    X, y = data(rng)
    far = np.where(np.arange(len(y)) == 3, -1.7e308, 1.7e308)
    with pytest.raises(
        ValueError, match=r"^y: expected values whose distance .* up to 1\.7e\+308$"
    ):
        LSTMRegressor(**SMALL).fit(X, far)
    regressor = LSTMRegressor(**SMALL).partial_fit(X, y * 1e-20)
    with pytest.raises(ValueError, match=r"^y: expected values whose distance .* up to 1e\+300$"):
        regressor.partial_fit(X, np.full(len(y), 1e300))


@BOTH
def test_a_weight_is_a_repetition_to_the_bit(rng: Generator, kind: Any) -> None:
    X, y = data(rng, 20)
    weights = rng.integers(4, size=20)
    weights[0] = 0
    estimator = kind(hidden_size=5, random_state=0, n_iter_no_change=100)
    weighted = clone(estimator).fit(X, y, sample_weight=weights)
    shuffled = rng.permutation(np.arange(20).repeat(weights))
    repeated = clone(estimator).fit(X[shuffled], y[shuffled])
    np.testing.assert_array_equal(weights_of(weighted), weights_of(repeated))
    assert (weights_of(weighted) != weights_of(clone(estimator).fit(X, y))).any()


@BOTH
def test_without_a_weight_it_is_not_there(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    weights = np.where(np.arange(30) % 3, rng.uniform(0.5, 2, size=30), 0)
    kept = weights > 0
    estimator = kind(**SMALL, batch_size=8)
    weighted = clone(estimator).fit(X, y, sample_weight=weights)
    removed = clone(estimator).fit(X[kept], y[kept], sample_weight=weights[kept])
    np.testing.assert_array_equal(weights_of(weighted), weights_of(removed))


def test_weights_of_classes(rng: Generator) -> None:
    X = rng.normal(size=(200, 4))
    y = (X[:, 0] + rng.normal(size=200) > 1.5).astype(int)  # a few, that overlap with the others
    share = {}
    for weight in (None, "balanced", {1: 50.0}):
        classifier = LSTMClassifier(8, max_iter=20, random_state=0, class_weight=weight).fit(X, y)
        share[str(weight)] = classifier.predict(X).mean()
    assert share["None"] + 0.1 < share["balanced"] < share["{1: 50.0}"] - 0.1
    counts = np.bincount(y)
    factors = {label: 200 / (2 * counts[label]) for label in (0, 1)}
    balanced, by_hand = (
        LSTMClassifier(**SMALL, class_weight=weight).fit(X, y) for weight in ("balanced", factors)
    )
    np.testing.assert_array_equal(weights_of(balanced), weights_of(by_hand))


def test_grid_search_and_pipeline(rng: Generator) -> None:
    X = rng.normal(50, 20, size=(90, 6))
    y = X[:, 4] > 50
    model = make_pipeline(StandardScaler(), LSTMClassifier(max_iter=60, random_state=0))
    grid = GridSearchCV(model, {"lstmclassifier__hidden_size": [1, 12]}, cv=3).fit(X, y)
    assert grid.best_params_ == {"lstmclassifier__hidden_size": 12}
    assert grid.best_score_ > 0.8
    assert grid.predict_proba(X).shape == (90, 2)


def test_lists_are_split(rng: Generator) -> None:
    X = [rng.normal(size=(length, 1)) for length in rng.integers(2, 9, size=60)]
    y = np.array([x[-1, 0] for x in X])
    X_learned, X_held, y_learned, y_held = train_test_split(X, y, random_state=0)
    regressor = LSTMRegressor(16, random_state=0).fit(X_learned, y_learned)
    assert regressor.score(X_held, y_held) > 0.8
    assert len(cross_val_score(clone(regressor).set_params(max_iter=2), X, y, cv=3)) == 3


@BOTH
def test_copies(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    estimator = kind(**SMALL).fit(X, y)
    for copied in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_array_equal(outputs_of(copied, X), outputs_of(estimator, X))
    assert clone(estimator).get_params() == kind(**SMALL).get_params()
    assert not hasattr(clone(estimator), "lstm_")


def test_without_scikit_learn() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import fastlstm.sklearn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: fastlstm.sklearn needs scikit-learn 1.6 or later: pip" in run.stderr


def run_example(name: str, *arguments: str) -> str:
    return script(f"examples/{name}", *arguments, FASTLSTM_NUM_THREADS="1")


def test_example_digits() -> None:
    line = run_example("digits.py", "--seeds", "1", "--epochs", "20").splitlines()[0]
    assert float(line.split()[-1].rstrip("%")) >= 97


def test_example_forecast(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "forecast.svg"
    lines = run_example("forecast.py", "--epochs", "2", "--plot", str(plot)).splitlines()[1:]
    naive, linear, lstm = (float(line.split()[-1]) for line in lines)
    assert 0.56 < linear < naive / 2  # at best, what is left is the noise
    assert 0.56 < lstm < naive * 0.8
    assert "<svg" in plot.read_text()
