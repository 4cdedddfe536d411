"""The scaler of sequences: numbers of scikit-learn's, for all forms that sequences have."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from support.estimators import SMALL, weights_of

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor, SequenceScaler

pytestmark = pytest.mark.peer

ATTRIBUTES = ("mean_", "var_", "scale_", "n_samples_seen_", "n_features_in_")


def sequences(rng: Generator, n: int = 30) -> list[Any]:
    """Of different lengths, and features of different sizes; the third is constant."""
    size, shift = np.array([1.0, 200.0, 0.0]), np.array([0.0, -50.0, 7.0])
    return [rng.normal(size=(k, 3)) * size + shift for k in rng.integers(1, 8, size=n)]


def same_attributes(scaler: Any, expected: Any) -> None:
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(scaler, name), getattr(expected, name))


@pytest.mark.filterwarnings("ignore")  # the checks provoke some
def test_checks_of_scikit_learn() -> None:
    known = {"check_sample_weight_equivalence_on_sparse_data": "StandardScaler of 1.6 fails, too"}
    found = check_estimator(
        SequenceScaler(), on_skip=None, on_fail=None, expected_failed_checks=known
    )
    failed = {c["check_name"]: c["exception"] for c in found if c["status"] == "failed"}
    assert failed == {}
    assert len(found) > 50


@pytest.mark.parametrize("options", [{}, {"with_mean": False}, {"with_std": False}], ids=str)
def test_all_steps_count_the_same(rng: Generator, options: dict[str, Any]) -> None:
    X = sequences(rng)
    steps = np.concatenate(X)
    expected = StandardScaler(**options).fit(steps)
    scaler = SequenceScaler(**options).fit(X)
    same_attributes(scaler, expected)
    scaled = scaler.transform(X)
    assert isinstance(scaled, list)
    assert [x.shape for x in scaled] == [x.shape for x in X]
    np.testing.assert_array_equal(np.concatenate(scaled), expected.transform(steps))
    for x, again in zip(X, scaler.inverse_transform(scaled), strict=True):
        np.testing.assert_allclose(again, x, rtol=1e-12, atol=1e-12)


def test_forms(rng: Generator) -> None:
    X = rng.normal(5, 3, size=(20, 4, 3))
    scaler = SequenceScaler().fit(X)
    expected = StandardScaler().fit_transform(X.reshape(-1, 3)).reshape(X.shape)
    np.testing.assert_array_equal(scaler.transform(X), expected)
    np.testing.assert_array_equal(SequenceScaler().fit_transform(X.tolist()), expected)
    np.testing.assert_array_equal(scaler.transform(list(X)), expected)
    np.testing.assert_array_equal(scaler.transform(X[2]), expected[2])  # a table of steps
    objects = np.empty(20, object)
    objects[:] = list(X)
    np.testing.assert_array_equal(scaler.transform(objects), expected)
    pandas = pytest.importorskip("pandas")
    np.testing.assert_array_equal(scaler.transform(pandas.Series(list(X))), expected)
    assert scaler.transform(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(scaler.inverse_transform(expected), X, rtol=1e-12)


def test_tables_alone_become_data_frames(rng: Generator) -> None:
    pytest.importorskip("pandas")
    scaler, table = SequenceScaler(), rng.standard_normal((6, 2))
    scaler.set_output(transform="pandas")
    x = rng.standard_normal((4, 5, 2))
    expected = SequenceScaler().fit_transform(x)
    np.testing.assert_array_equal(scaler.fit_transform(x), expected)
    assert isinstance(scaler.transform([*x]), list)
    frame = scaler.transform(table)
    assert type(frame).__name__ == "DataFrame"
    assert type(scaler.fit_transform(table)).__name__ == "DataFrame"


def test_an_array_is_changed_only_if_it_may_be(rng: Generator) -> None:
    X = rng.normal(5, 3, size=(20, 4, 3))
    before = X.copy()
    scaled = SequenceScaler().fit_transform(X)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(SequenceScaler(copy=False).fit_transform(X), scaled)
    np.testing.assert_array_equal(X, scaled)


def test_a_table_is_scaled_as_by_standard_scaler(rng: Generator) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(rng.normal(5, 3, size=(20, 2)), columns=["a", "b"])
    expected = StandardScaler().fit(table)
    scaler = SequenceScaler().set_output(transform="pandas").fit(table)
    same_attributes(scaler, expected)
    assert scaler.get_feature_names_out().tolist() == ["a", "b"]
    pandas.testing.assert_frame_equal(
        scaler.transform(table), expected.set_output(transform="pandas").transform(table)
    )


def test_nan_is_left_out_and_left_there(rng: Generator) -> None:
    X = rng.normal(5, 3, size=(20, 4, 3))
    X[3, 2, 1] = np.nan
    scaler = SequenceScaler().fit(X)
    same_attributes(scaler, StandardScaler().fit(X.reshape(-1, 3)))
    np.testing.assert_array_equal(scaler.n_samples_seen_, [80, 79, 80])
    for scaled in (scaler.transform(X), np.array(scaler.transform(list(X)))):
        np.testing.assert_array_equal(np.isnan(scaled), np.isnan(X))
    with pytest.raises(ValueError, match="infinity"):
        scaler.transform([*X[:2], X[2] * np.inf])


def test_partial_fit_goes_on(rng: Generator) -> None:
    X = sequences(rng)
    scaler = SequenceScaler()
    for part in (X[:10], X[10:11], X[11:]):
        scaler.partial_fit(part)
    whole = SequenceScaler().fit(X)
    np.testing.assert_allclose(scaler.mean_, whole.mean_, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(scaler.scale_, whole.scale_, rtol=1e-12)
    assert scaler.n_samples_seen_ == whole.n_samples_seen_ == sum(map(len, X))
    scaler.fit(X)  # anew
    same_attributes(scaler, whole)


def test_weights_are_those_of_a_sequence(rng: Generator) -> None:
    X, weights = sequences(rng), rng.integers(1, 4, size=30)
    scaler = SequenceScaler().fit(X, sample_weight=weights)
    repeated = SequenceScaler().fit([x for x, k in zip(X, weights, strict=True) for _ in range(k)])
    np.testing.assert_allclose(scaler.mean_, repeated.mean_, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(scaler.scale_, repeated.scale_, rtol=1e-12)
    assert scaler.mean_[0] != SequenceScaler().fit(X).mean_[0]
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        SequenceScaler().fit(X, sample_weight=weights[:-1])


@pytest.mark.parametrize("output", ["last", "steps"])
def test_pipelines(rng: Generator, output: str) -> None:
    X = [x[:, :2] for x in sequences(rng, 90)]
    y = [x[:, 1].cumsum() < -100 for x in X]
    y = y if output == "steps" else [each[-1] for each in y]
    classifier = LSTMClassifier(12, max_iter=40, output=output, random_state=0)
    model = make_pipeline(SequenceScaler(), classifier).fit(X, y)
    assert model.score(X, y) > 0.9
    by_hand = clone(classifier).fit(SequenceScaler().fit_transform(X), y)
    np.testing.assert_array_equal(weights_of(model[-1]), weights_of(by_hand))
    assert len(cross_val_score(clone(model).set_params(lstmclassifier__max_iter=1), X, y)) == 5
    again = pickle.loads(pickle.dumps(model))
    for found, expected in zip(again.predict(X), model.predict(X), strict=True):
        np.testing.assert_array_equal(found, expected)
    wide = make_pipeline(SequenceScaler(), LSTMRegressor(**SMALL))
    assert wide.fit(np.ones((5, 4, 3)), np.arange(5)).predict(np.ones((2, 4, 3))).shape == (2,)


WRONG = [
    (np.ones((2, 3, 4, 5)), "X: expected an array (n, T, F) with at least one step and one "),
    (np.ones((2, 0, 4)), "X: expected an array (n, T, F) with at least one step and one "),
    (
        [np.ones((2, 3)), np.ones((2, 4))],
        "X[1]: expected (T, 3) with at least one step, got (2, 4)",
    ),
    ([np.ones((1, 2, 3))], "X[0]: expected (T, F) with at least one step, got (1, 2, 3)"),
    (np.ones((2, 3, 1)), "X has 1 features, but SequenceScaler is expecting 3 features as input"),
    (np.ones((2, 3, 2)), "X has 2 features, but SequenceScaler is expecting 3 features as input"),
    ([np.ones((2, 2))], "X has 2 features, but SequenceScaler is expecting 3 features as input"),
    (np.ones(3), "Expected 2D array, got 1D array instead"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_wrong_x(wrong: Any, message: str) -> None:
    scaler = SequenceScaler()
    with pytest.raises(NotFittedError):
        scaler.transform(np.ones((2, 4, 3)))
    scaler.fit(np.ones((2, 4, 3)))
    for call in (scaler.transform, scaler.inverse_transform, scaler.partial_fit):
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            call(wrong)
