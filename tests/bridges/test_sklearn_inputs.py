"""What the estimators of scikit-learn take: the forms of X, parameters; and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

pytest.importorskip("sklearn")

from sklearn.exceptions import NotFittedError
from support.estimators import BOTH, SMALL, data, outputs_of, weights_of

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

pytestmark = pytest.mark.peer


@BOTH
def test_table_array_and_list_are_the_same(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    expected = kind(**SMALL).fit(X, y)
    table = kind(**SMALL, n_timesteps=6).fit(X.reshape(30, -1), y)
    listed = kind(**SMALL).fit(list(X), y)
    objects = np.empty(30, object)
    objects[:] = list(X)
    assert (expected.n_features_in_, table.n_features_in_, listed.n_features_in_) == (2, 12, 2)
    for other, form in [(table, X.reshape(30, -1)), (listed, list(X)), (expected, objects)]:
        np.testing.assert_array_equal(weights_of(other), weights_of(expected))
        np.testing.assert_array_equal(outputs_of(other, form), outputs_of(expected, X))


@BOTH
def test_a_series_of_arrays(rng: Generator, kind: Any) -> None:
    pandas = pytest.importorskip("pandas")
    X = [rng.normal(size=(length, 2)) for length in rng.integers(2, 9, size=30)]
    y = np.arange(30) % 3
    series = pandas.Series(X, index=np.arange(30) + 5)
    expected = kind(**SMALL).fit(X, y)
    found = kind(**SMALL).fit(series, pandas.Series(y, index=series.index))
    np.testing.assert_array_equal(weights_of(found), weights_of(expected))
    np.testing.assert_array_equal(outputs_of(expected, series), outputs_of(expected, X))
    scoring = "accuracy" if kind is LSTMClassifier else "neg_max_error"
    held = kind(**SMALL, early_stopping=True, scoring=scoring).fit(series, y)
    assert len(held.validation_scores_) == 3


def test_columns_of_a_table_are_steps(rng: Generator) -> None:
    X, y = data(rng, width=1)
    columns = LSTMRegressor(**SMALL).fit(X[:, :, 0], y)
    assert columns.lstm_.input_size == 1
    expected = LSTMRegressor(**SMALL).fit(X, y)
    np.testing.assert_array_equal(columns.predict(X[:, :, 0]), expected.predict(X))


@BOTH
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "slstm"])
def test_padding_is_as_if_it_were_not_there(rng: Generator, kind: Any, cell: str) -> None:
    lengths = [3, 1, 6, 2] * 5
    X, y = [rng.normal(size=(length, 2)) for length in lengths], np.arange(20) % 3
    options = {**SMALL, "hidden_size": 8, "cell": cell, "bidirectional": True, "num_layers": 2}
    estimator = kind(**options, batch_size=7).fit(X, y)
    outputs = outputs_of(estimator, X)
    for i in range(20):
        np.testing.assert_array_equal(outputs_of(estimator, [X[i]]), outputs[i : i + 1])
    padded = np.full((20, 6, 2), np.nan)
    for row, x in zip(padded, X, strict=True):
        row[: len(x)] = x
    _, state = estimator.lstm_(padded, lengths=lengths)
    last = (state[0] if isinstance(state, tuple) else state)[-2:].swapaxes(0, 1).reshape(20, -1)
    linear = last @ estimator.out_["weight"].T + estimator.out_["bias"]
    if kind is LSTMRegressor:
        expected = (linear * estimator.y_scale_ + estimator.y_mean_)[:, 0]
    else:
        expected = np.exp(linear) / np.exp(linear).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)


def test_other_lengths_may_be_predicted(rng: Generator) -> None:
    X, y = data(rng)
    classifier = LSTMClassifier(**SMALL).fit(X, y)
    assert classifier.predict_proba(X[:, :4]).shape == (30, 3)
    assert classifier.predict([X[0, :1], X[1]]).shape == (2,)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_computes_in_the_type_of_x(rng: Generator, dtype: str) -> None:
    X, y = data(rng)
    for form in (X.astype(dtype), X.reshape(30, -1).astype(dtype), list(X.astype(dtype))):
        estimator = LSTMRegressor(**SMALL).fit(form, y)
        assert estimator.lstm_.dtype == estimator.out_.flat.dtype == dtype
        assert estimator.predict(form).dtype == np.float64


FOUR = (
    r"^X: expected a table \(n, features\), an array \(n, T, F\) or a list of arrays \(T, F\), "
    r"got \(30, 6, 2, 1\); if axis 1 is time, X\.reshape\(30, 6, -1\) makes the other axes the "
    "features of a step$"
)

WRONG_X = {
    "not a number": (lambda X: np.where(X > 2, np.nan, X), "Input X contains NaN"),
    "infinite": (lambda X: list(np.where(X > 2, np.inf, X)), "Input X contains infinity"),
    "no steps": (lambda X: X[:, :0], r"X: expected at least one step .*\(30, 0, 2\)"),
    "an empty one": (lambda X: [*X, X[0, :0]], r"X\[30\]: expected \(T, 2\) with at least one"),
    "a wider one": (lambda X: [*X, X[0, :, :1]], r"X\[30\]: expected \(T, 2\) .*got \(6, 1\)"),
    "a nested list": (lambda X: [X[0], [[1, 2], [3]]], r"X\[1\]: expected \(T, F\), got"),
    "other dimensions": (lambda X: [X[0], X[0, 0]], r"X\[1\]: .*got \(2,\)"),
    "no sequences": (lambda X: X[:0], "minimum of 1 is required"),
    "four dimensions": (lambda X: X[..., None], FOUR),
    "lists of four": (lambda X: X[None].tolist(), r"^X\[0\]: expected .*, got \(30, 6, 2\)$"),
    "a first with three": (lambda X: [X[:1], X[1]], r"^X\[0\]: expected .*, got \(1, 6, 2\)$"),
    "a second with three": (lambda X: [X[0], X[:1]], r"^X\[1\]: expected .*, got \(1, 6, 2\)$"),
}


@pytest.mark.parametrize("name", WRONG_X)
def test_wrong_x(rng: Generator, name: str) -> None:
    X, y = data(rng)
    change, message = WRONG_X[name]
    fitted = LSTMClassifier(**SMALL).fit(X, y)
    for call in (lambda X: LSTMClassifier(**SMALL).fit(X, y), fitted.predict):
        with pytest.raises(ValueError, match=message):
            call(change(X))


@BOTH
def test_a_list_of_rows_of_unequal_lengths(rng: Generator, kind: Any) -> None:
    X, y = data(rng, width=1)
    rows = [x[: 3 + i // 20, 0] for i, x in enumerate(X)]
    with pytest.raises(
        ValueError, match=r"^X\[20\]: expected \(3,\) as X\[0\] has, got \(4,\); .* \(T, 1\)$"
    ):
        kind(**SMALL).fit(rows, y)
    with pytest.raises(ValueError, match=r"^X\[1\]: expected \(3,\) as X\[0\] has, got \(3, 1\);"):
        kind(**SMALL).fit([rows[0], rows[1][:, None]], y[:2])
    kind(**SMALL).fit([row[:, None] for row in rows], y)


@BOTH
def test_wrong_y(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    form = r"\(n,\)" if kind is LSTMClassifier else r"\(n,\) or \(n, K\)"
    hint = "for a target at each step set output='steps'$"
    ragged = [y[: 1 + i % 6] for i in range(30)]
    wrong = [(np.zeros((30, 6, 2)), r"\(30, 6, 2\)"), (ragged, "items of unequal lengths")]
    if kind is LSTMClassifier:
        wrong.append((np.zeros((30, 6), int), r"\(30, 6\)"))
    for each, got in wrong:
        with pytest.raises(ValueError, match=f"^y: expected {form}, got {got}; {hint}"):
            kind(**SMALL).fit(X, each)


@BOTH
def test_x_has_to_be_as_in_fit(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    with pytest.raises(NotFittedError):
        kind().predict(X)
    sequences = kind(**SMALL).fit(X, y)
    name = kind.__name__
    with pytest.raises(ValueError, match=f"X has 1 features, but {name} is expecting 2 features"):
        sequences.predict(X[:, :, :1])
    hint = r"X: expected sequences.* as in fit; got 2 .*: X\[:, :, None\] if a row is"
    with pytest.raises(ValueError, match=hint):
        sequences.predict(X[0])
    hint = r"X: expected sequences.* as in fit; got 1 .*: X\[None, :, None\] if it is one"
    with pytest.raises(ValueError, match=hint):
        sequences.predict(X[0, 0])
    table = kind(**SMALL, n_timesteps=3).fit(X[:, 0].repeat(3, axis=1), y)
    with pytest.raises(ValueError, match="X has 5 features"):
        table.predict(np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"X: expected a table .* as in fit, got seq"):
        table.predict(X)
    assert table.fit(X, y).predict(X).shape == (30,)  # anew, of another form


def test_names_of_features(rng: Generator) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = data(rng, width=1)
    frame = pandas.DataFrame(X[:, :, 0], columns=list("abcdef"))
    classifier = LSTMClassifier(**SMALL).fit(frame, y)
    assert list(classifier.feature_names_in_) == list("abcdef")
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame[list("bacdef")])
    assert not hasattr(classifier.fit(X, y), "feature_names_in_")


WRONG_PARAMETERS = [
    ({"hidden_size": 0}, "hidden_size"),
    ({"num_layers": 1.5}, "num_layers"),
    ({"dropout": 2}, "dropout"),
    ({"cell": "LSTM"}, "cell: expected 'lstm', 'gru', 'rnn' or 'slstm', got 'LSTM'"),
    ({"n_timesteps": 5}, "n_timesteps: expected a divisor of the 12 features of X, got 5"),
    ({"learning_rate": -1}, "learning_rate"),
    ({"learning_rate": math.inf}, "learning_rate"),
    ({"weight_decay": "much"}, "weight_decay"),
    ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
    ({"max_iter": 0}, "max_iter"),
    ({"validation_fraction": 1.0}, "validation_fraction: expected a part between 0 and 1"),
    ({"n_iter_no_change": 0}, "n_iter_no_change"),
    ({"tol": -1}, "tol"),
    ({"clip_norm": math.nan}, "clip_norm"),
    ({"output": "all"}, "output: expected 'last' or 'steps', got 'all'"),
    ({"scoring": "f2"}, "scoring: expected 'loss', one of sklearn.metrics.get_scorer_names"),
    ({"scoring": ["f1"]}, r"scoring: expected 'loss', .* or None, got \['f1'\]"),
    ({"class_weight": "even"}, "class_weight: expected a dict, 'balanced' or None, got 'even'"),
    ({"class_weight": {9: 1}}, "class_weight: expected labels of y, got 9"),
    ({"class_weight": {1: -1}}, "class_weight"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_PARAMETERS, ids=lambda v: str(v)[:20])
def test_wrong_parameters(rng: Generator, wrong: dict[str, Any], message: str) -> None:
    X, y = data(rng)
    classifier = LSTMClassifier(**{**SMALL, **wrong})
    with pytest.raises((TypeError, ValueError), match=message):
        classifier.fit(X.reshape(30, -1), y)
    with pytest.raises(NotFittedError):
        classifier.predict(X.reshape(30, -1))


@BOTH
def test_wrong_weights(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    wrong = [(np.ones(29), r"\(30,\), got \(29,\)"), (-np.ones(30), "no negative"), (0 * y, "zero")]
    for weights, message in wrong:
        with pytest.raises(ValueError, match=f"sample_weight: .*{message}"):
            kind(**SMALL).fit(X, y, sample_weight=weights)
