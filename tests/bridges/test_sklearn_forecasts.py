"""Forecasts of a series: windows, differences, and that nothing looks into the future."""

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
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from support.estimators import SMALL

from fastlstm.sklearn import (
    DifferencedRegressor,
    Differences,
    LSTMRegressor,
    SequenceScaler,
    last_window,
    windows,
)

pytestmark = pytest.mark.peer


@pytest.mark.filterwarnings("ignore")  # the checks provoke some
@pytest.mark.parametrize("estimator", [Differences(), DifferencedRegressor(Ridge())], ids=repr)
def test_checks_of_scikit_learn(estimator: Any) -> None:
    found = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = {c["check_name"]: c["exception"] for c in found if c["status"] == "failed"}
    assert failed == {}
    assert len(found) > 40


# Windows.


@pytest.mark.parametrize("horizon", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 3, 40])
@pytest.mark.parametrize("features", [None, 1, 3])
def test_windows(rng: Generator, features: int | None, stride: int, horizon: int) -> None:
    series = rng.normal(size=30 if features is None else (30, features))
    table = series.reshape(30, -1)
    target = 1 if features == 3 else None
    X, y = windows(series, 7, horizon, stride, target=target)
    starts = [s for s in range(0, 30, stride) if s + 7 + horizon <= 30]
    assert X.shape == (len(starts), 7, table.shape[1])
    assert y.shape == ((len(starts), horizon) if horizon > 1 else (len(starts),))
    for i, start in enumerate(starts):
        np.testing.assert_array_equal(X[i], table[start : start + 7])
        after = table[start + 7 : start + 7 + horizon, target or 0]
        np.testing.assert_array_equal(y[i], after if horizon > 1 else after[0])
    assert X.flags.c_contiguous
    assert X.flags.writeable
    assert y.flags.writeable
    X[:] = y[:] = 0
    assert (series != 0).all()


def test_the_last_window_is_what_comes_after_all_others(rng: Generator) -> None:
    series = rng.normal(size=(30, 2))
    longer = np.concatenate([series, np.zeros((1, 2))])
    np.testing.assert_array_equal(last_window(series, 7), windows(longer, 7, target=0)[0][-1:])
    assert last_window(series[:, 0], 30).shape == (1, 30, 1)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("f4", "f4"), ("f8", "f8"), ("i4", "f8"), ("?", "f8"), (">f4", "f4")]
)
def test_types_of_windows(dtype: str, expected: str) -> None:
    series = np.ones(9, dtype)
    X, y = windows(series, 4)
    assert X.dtype == y.dtype == last_window(series, 4).dtype == expected


def test_windows_of_pandas(rng: Generator) -> None:
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2026-01-01", periods=30, freq="h")
    frame = pandas.DataFrame(rng.normal(size=(30, 2)), index, ["load", "heat"])
    for target, place in (("heat", 1), ("load", 0), (1, 1)):
        X, y = windows(frame, 5, 3, target=target)
        expected = windows(frame.to_numpy(), 5, 3, target=place)
        np.testing.assert_array_equal(X, expected[0])
        np.testing.assert_array_equal(y, expected[1])
    X, y = windows(frame["load"], 5)
    np.testing.assert_array_equal(X, windows(frame["load"].to_numpy(), 5)[0])
    np.testing.assert_array_equal(last_window(frame, 5), frame.to_numpy()[None, -5:])


WRONG_WINDOWS = [
    (([1.0] * 9, 8, 2), {}, ValueError, "series: expected at least 10 steps, got 9"),
    ((np.ones((9, 2, 1)), 3), {}, ValueError, "series: expected (N,) or (N, F), got (9, 2, 1)"),
    ((np.ones((9, 0)), 3), {}, ValueError, "series: expected (N,) or (N, F), got (9, 0)"),
    ((3.0, 3), {}, ValueError, "series: expected (N,) or (N, F), got ()"),
    ((["a"] * 9, 3), {}, TypeError, "series: expected an array of numbers, got <U1"),
    ((np.arange(9).astype("M8[D]"), 3), {}, TypeError, "series: expected an array of numbers, got"),
    ((np.ones(9) * 1j, 3), {}, TypeError, "series: expected an array of numbers, got complex"),
    ((np.ma.masked_equal(np.arange(9.0), 4), 3), {}, ValueError, "series: expected an array with"),
    (([[1], [2, 3]], 1), {}, TypeError, "series: expected an array of numbers, got setting"),
    ((np.ones(9), 0), {}, ValueError, "length: expected at least 1, got 0"),
    ((np.ones(9), 3, 1.5), {}, TypeError, "horizon: expected an integer, got float"),
    ((np.ones(9), 3, 1, 0), {}, ValueError, "stride: expected at least 1, got 0"),
    ((np.ones((9, 2)), 3), {}, ValueError, "target: expected which of the 2 features to fore"),
    ((np.ones((9, 2)), 3), {"target": 2}, ValueError, "target: expected at most 1, got 2"),
    ((np.ones((9, 2)), 3), {"target": "a"}, ValueError, "target: expected the name of a column"),
]


@pytest.mark.parametrize(("arguments", "options", "kind", "message"), WRONG_WINDOWS)
def test_wrong_windows(arguments: Any, options: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match="^" + re.escape(message)):
        windows(*arguments, **options)


def test_a_wrong_last_window() -> None:
    with pytest.raises(ValueError, match=r"^series: expected at least 4 steps, got 3$"):
        last_window([1.0, 2.0, 3.0], 4)
    with pytest.raises(ValueError, match=r"^length: expected at least 1, got 0$"):
        last_window([1.0, 2.0, 3.0], 0)


# Differences.

LAGS = [(1, 1), (3, 1), (7, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(("lag", "order"), LAGS)
def test_differences(rng: Generator, lag: int, order: int) -> None:
    X = rng.normal(size=(5, 12, 2))
    expected = X
    for _ in range(order):
        expected = np.stack(
            [expected[:, t] - expected[:, t - lag] for t in range(lag, expected.shape[1])], axis=1
        )
    differences = Differences(lag, order)
    np.testing.assert_array_equal(differences.fit_transform(X), expected)
    assert differences.n_features_in_ == 2
    listed = differences.transform([x[: 12 - i] for i, x in enumerate(X)])
    for i, found in enumerate(listed):
        np.testing.assert_array_equal(found, expected[i, : expected.shape[1] - i])
    table = Differences(lag, order).fit(X[:, :, 0])
    assert table.n_features_in_ == 12
    np.testing.assert_array_equal(table.transform(X[:, :, 0]), expected[:, :, 0])
    assert differences.transform(X.astype("f4")).dtype == np.float32


@pytest.mark.parametrize(("lag", "order"), LAGS)
@pytest.mark.parametrize("ahead", [1, 2, 8])
def test_differences_are_undone(rng: Generator, ahead: int, lag: int, order: int) -> None:
    values = rng.normal(size=(5, 8 + ahead, 2)).cumsum(axis=1)
    differences = Differences(lag, order).fit(values)
    changes = differences.transform(values)[:, -ahead:]
    for first in (0, 8 - lag * order):  # more history than is needed, or just enough
        found = differences.inverse_transform(changes, values[:, first:8])
        np.testing.assert_allclose(found, values[:, 8:], rtol=1e-11, atol=1e-11)
    single = differences.inverse_transform(changes[:, :, 0], values[:, :8, 0])
    np.testing.assert_array_equal(single, found[:, :, 0])


WRONG_X = [
    (np.ones((4, 6, 2)), "X: expected more than 6 steps, for lag=3 and order=2, got 6"),
    ([np.ones((9, 2)), np.ones((5, 2))], "X: expected more than 6 steps, for lag=3 and order=2, g"),
    (
        np.ones((4, 5)),
        "X: expected more than 6 steps, for lag=3 and order=2, got 5 feature(s) of a",
    ),
    (np.ones((4, 9, 2, 1)), "X: expected a table (n, features), an array (n, T, F) or a list of"),
    (np.full((4, 9, 2), np.nan), "Input X contains NaN"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_X)
@pytest.mark.parametrize("estimator", [Differences(3, 2), DifferencedRegressor(lag=3, order=2)])
def test_wrong_x(estimator: Any, wrong: Any, message: str) -> None:
    if isinstance(estimator, DifferencedRegressor) and isinstance(wrong, list):
        message = "X: expected windows of one length, an array (n, T, F) or a table (n, T), got a l"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        clone(estimator).fit(wrong, np.ones(len(wrong)))


def test_differences_as_in_fit() -> None:
    with pytest.raises(NotFittedError):
        Differences().transform(np.ones((4, 9, 2)))
    with pytest.raises(ValueError, match="X has 1 features, but Differences is expecting 2"):
        Differences().fit(np.ones((4, 9, 2))).transform(np.ones((4, 9, 1)))
    with pytest.raises(ValueError, match=r"^lag: expected at least 1, got 0$"):
        Differences(0).fit(np.ones((4, 9, 2)))
    with pytest.raises(TypeError, match=r"^order: expected an integer, got float$"):
        Differences(1, 1.5).fit(np.ones((4, 9, 2)))  # type: ignore[arg-type]
    wrong = [((4, 2), "(4, T)", (4, 2)), ((4, 2), "(4, T)", (3, 9)), ((4, 2), "(4, T)", (4, 9, 1))]
    for shape, expected, history in [*wrong, ((4, 2, 3), "(4, T, 3)", (4, 9, 1))]:
        message = f"history: expected {expected} with T of at least 3, got {history}"
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            Differences(3).inverse_transform(np.ones(shape), np.ones(history))


# Forecasts in the units of the series.


def series_with_trend(n: int = 400) -> Any:
    """It keeps rising, with a season of 12 steps."""
    t = np.arange(n)
    return 50 + 0.3 * t + 4 * np.sin(2 * np.pi * t / 12)


@pytest.mark.parametrize(("lag", "order"), [(1, 1), (12, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("horizon", [1, 5, 14])
def test_what_the_regressor_learns(rng: Generator, horizon: int, lag: int, order: int) -> None:
    """Changes of the window and after it; what it says is added to the end of the window."""
    series = rng.normal(size=(80, 2)).cumsum(axis=0)
    X, y = windows(series, 16, horizon, target=1)
    seen: list[Any] = []

    class Spy(LinearRegression):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            seen.append((X, y))
            return self

        def predict(self, X: Any) -> Any:
            seen.append((X,))
            return seen[0][1]

    model = DifferencedRegressor(Spy(), lag=lag, order=order, target=1).fit(X, y)
    whole = np.concatenate([X[:, :, 1], y.reshape(len(y), -1)], axis=1)[:, :, None]
    changes = Differences(lag, order).fit(whole).transform(whole)[:, :, 0]
    inputs, targets = seen[0]
    assert inputs.shape == (len(X), 16 - lag * order, 2)
    np.testing.assert_array_equal(inputs[:, :, 0], X[:, lag * order :, 0])
    np.testing.assert_array_equal(inputs[:, :, 1], changes[:, : 16 - lag * order])
    assert targets.shape == y.shape
    np.testing.assert_array_equal(targets.reshape(len(y), -1), changes[:, -horizon:])
    np.testing.assert_allclose(model.predict(X), y, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(seen[1][0], inputs)
    assert (X[:, :, 1] == windows(series, 16, horizon, target=1)[0][:, :, 1]).all()


def test_a_rising_series_is_forecast() -> None:
    """Beyond all values that were learned from, where without differences it stays below."""
    series = series_with_trend()
    known, ahead = series[:200], series[200:218]
    X, y = windows(known, 24, 18)
    lstm = make_pipeline(SequenceScaler(), LSTMRegressor(8, max_iter=30, random_state=0))
    errors = [
        np.abs(model.fit(X, y).predict(last_window(known, 24))[0] - ahead).mean()
        for model in (DifferencedRegressor(lstm, lag=12), clone(lstm))
    ]
    assert errors[0] < 0.5 < 2 < errors[1]


def test_the_future_is_not_looked_at() -> None:
    """What is forecast from a part of the series does not depend on what comes after it."""
    series = series_with_trend()
    model = DifferencedRegressor(make_pipeline(SequenceScaler(), LSTMRegressor(**SMALL)), lag=12)
    found = []
    for after in (series[300:], np.full(100, 1e6)):
        whole = np.concatenate([series[:300], after])
        fitted = clone(model).fit(*windows(whole[:300], 36, 24))
        found.append(fitted.predict(last_window(whole[:300], 36)))
        X, y = windows(whole[300 - 36 :], 36, 24)
        np.testing.assert_array_equal(X[:1], last_window(whole[:300], 36))
        np.testing.assert_array_equal(y[0], whole[300:324])  # the first target after the split
        np.testing.assert_array_equal(fitted.predict(X[:1]), found[-1])
    np.testing.assert_array_equal(*found)


def test_forms_and_selection(rng: Generator) -> None:
    series = series_with_trend() + rng.normal(size=400)
    X, y = windows(series, 24, 6)
    table = DifferencedRegressor(Ridge()).fit(X[:, :, 0], y)
    flat = DifferencedRegressor(make_pipeline(_flattened(), Ridge())).fit(X, y)
    np.testing.assert_allclose(table.predict(X[:, :, 0]), flat.predict(X), rtol=1e-12)
    assert table.score(X[:, :, 0], y) > 0.9
    cv = TimeSeriesSplit(3, gap=6)
    search = GridSearchCV(table, {"lag": [12, 17]}, cv=cv).fit(X[:, :, 0], y)
    assert search.best_params_ == {"lag": 12}
    assert len(cross_val_score(DifferencedRegressor(LSTMRegressor(**SMALL)), X, y, cv=cv)) == 3
    again = pickle.loads(pickle.dumps(table))
    np.testing.assert_array_equal(again.predict(X[:, :, 0]), table.predict(X[:, :, 0]))
    weights = rng.integers(0, 3, size=len(X))
    weighted = DifferencedRegressor(Ridge()).fit(X[:, :, 0], y, sample_weight=weights)
    kept = np.repeat(np.arange(len(X)), weights)
    repeated = DifferencedRegressor(Ridge()).fit(X[kept, :, 0], y[kept])
    np.testing.assert_allclose(weighted.regressor_.coef_, repeated.regressor_.coef_, rtol=1e-7)


def _flattened() -> Any:
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer(lambda X: X.reshape(len(X), -1))


def test_without_a_regressor_it_is_an_lstm(rng: Generator) -> None:
    X, y = windows(rng.normal(size=40), 8)
    model = DifferencedRegressor().fit(X[:5], y[:5])
    assert isinstance(model.regressor_, LSTMRegressor)
    assert model.predict(X).shape == y.shape


def test_wrong_targets(rng: Generator) -> None:
    X, y = windows(rng.normal(size=40), 8)
    with pytest.raises(ValueError, match=r"^target: expected at most 0, got 1$"):
        DifferencedRegressor(target=1).fit(X, y)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[32, 31\]"):
        DifferencedRegressor().fit(X, y[:-1])
    with pytest.raises(ValueError, match=r"^y: expected \(n,\) or \(n, h\), got \(32, 1, 1\)$"):
        DifferencedRegressor().fit(X, y[:, None, None])
    with pytest.raises(ValueError, match="requires y to be passed"):
        DifferencedRegressor().fit(X, None)
    with pytest.raises(NotFittedError):
        DifferencedRegressor().predict(X)
    fitted = DifferencedRegressor(LSTMRegressor(**SMALL)).fit(X, y)
    with pytest.raises(
        ValueError, match="X has 2 features, but DifferencedRegressor is expecting 1"
    ):
        fitted.predict(X.repeat(2, axis=2))
