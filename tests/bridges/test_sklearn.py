"""The estimators of scikit-learn: its own checks, the forms of X, weights, training."""

from __future__ import annotations

import copy
import math
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.processes import script

import fastlstm

pytestmark = pytest.mark.peer
sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor  # noqa: E402
from fastlstm.sklearn._examples import Examples  # noqa: E402
from fastlstm.sklearn._network import Network, cross_entropy, squared_error  # noqa: E402
from fastlstm.sklearn._sequences import Sequences  # noqa: E402

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


# The network.


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_gradients_are_slopes(rng: Generator, cell: str, bidirectional: bool, loss: Any) -> None:
    options = {"batch_first": True, "bidirectional": bidirectional, "dtype": "float64", "seed": 1}
    layer = getattr(fastlstm, cell)(3, 4, 2, **options)
    network = Network(layer, 3, np.random.RandomState(0))
    lengths, x = np.array([5, 2, 4, 1]), rng.normal(size=(4, 5, 3))
    targets = rng.integers(3, size=4) if loss is cross_entropy else rng.normal(size=(4, 3))
    weights = rng.uniform(0.5, 2, size=4)

    _, grads = network.gradients(x, lengths, targets, weights, loss)
    for parameters, grad in zip(network.trainable, grads, strict=True):
        assert all(np.abs(part).max() > 0 for part in grad.values())
        start = parameters.flat.copy()
        for _ in range(3):
            direction, values = rng.normal(size=start.size), []
            for shift in (1e-6, -1e-6):
                parameters.flat = start + shift * direction
                values.append(network.gradients(x, lengths, targets, weights, loss)[0])
            parameters.flat = start
            slope = (values[0] - values[1]) / 2e-6
            assert grad.flat @ direction == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_losses() -> None:
    logits, weights = np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]), np.array([3.0, 1.0])
    value, _ = cross_entropy(logits + 1000, np.array([1, 2]), weights)
    assert value == pytest.approx(-(3 * math.log(0.25) + math.log(0.7)) / 2)
    value, _ = squared_error(np.array([[1.0, 2.0], [0.0, 5.0]]), np.ones((2, 2)), weights)
    assert value == pytest.approx((3 * (0 + 1) + (1 + 16)) / 8)


def test_outputs_have_the_same_bits_alone_and_in_any_part(
    rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, _ = data(rng, 23)
    network = Network(fastlstm.LSTM(2, 9, batch_first=True, dtype="float64"), 3, np.random)
    whole = network.outputs(Sequences.of_equal_length(X))
    alone = [network.outputs(Sequences.of_equal_length(X[i : i + 1])) for i in range(len(X))]
    np.testing.assert_array_equal(whole, np.concatenate(alone))
    monkeypatch.setattr("fastlstm.sklearn._network._VALUES", 200)  # 3 sequences at a time
    np.testing.assert_array_equal(network.outputs(Sequences.of_equal_length(X)), whole)


# The forms of X.


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


def test_columns_of_a_table_are_steps(rng: Generator) -> None:
    X, y = data(rng, width=1)
    columns = LSTMRegressor(**SMALL).fit(X[:, :, 0], y)
    assert columns.lstm_.input_size == 1
    expected = LSTMRegressor(**SMALL).fit(X, y)
    np.testing.assert_array_equal(columns.predict(X[:, :, 0]), expected.predict(X))


@BOTH
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_padding_is_as_if_it_were_not_there(rng: Generator, kind: Any, cell: str) -> None:
    lengths = [3, 1, 6, 2] * 5
    X, y = [rng.normal(size=(length, 2)) for length in lengths], np.arange(20) % 3
    estimator = kind(**SMALL, cell=cell, bidirectional=True, num_layers=2, batch_size=7).fit(X, y)
    outputs = outputs_of(estimator, X)
    for i in range(20):
        np.testing.assert_array_equal(outputs_of(estimator, [X[i]]), outputs[i : i + 1])
    padded = np.full((20, 6, 2), np.nan)
    for row, x in zip(padded, X, strict=True):
        row[: len(x)] = x
    _, state = estimator.lstm_(padded, lengths=lengths)
    last = (state[0] if cell == "lstm" else state)[-2:].swapaxes(0, 1).reshape(20, -1)
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


FOUR = r"^X: expected a table \(n, features\), .* a list of arrays \(T, F\), got 4 dimensions$"
WRONG_X = {
    "not a number": (lambda X: np.where(X > 2, np.nan, X), "Input X contains NaN"),
    "infinite": (lambda X: list(np.where(X > 2, np.inf, X)), "Input X contains infinity"),
    "no steps": (lambda X: X[:, :0], r"X: expected at least one step .*\(30, 0, 2\)"),
    "an empty one": (lambda X: [*X, X[0, :0]], r"X\[30\]: expected \(T, 2\) with at least one"),
    "a wider one": (lambda X: [*X, X[0, :, :1]], r"X\[30\]: expected \(T, 2\) .*got \(6, 1\)"),
    "a nested list": (lambda X: [X[0], [[1, 2], [3]]], r"X\[1\]: expected \(T, F\), got"),
    "other dimensions": (lambda X: [X[0], X[0, 0]], r"X\[1\]: .*got \(2,\)"),
    "no sequences": (lambda X: X[:0], "minimum of 1 is required"),
    "four dimensions": (lambda X: X[None], FOUR),
    "lists of four": (lambda X: X[None].tolist(), FOUR),
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
def test_x_has_to_be_as_in_fit(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    with pytest.raises(NotFittedError):
        kind().predict(X)
    sequences = kind(**SMALL).fit(X, y)
    name = kind.__name__
    with pytest.raises(ValueError, match=f"X has 1 features, but {name} is expecting 2 features"):
        sequences.predict(X[:, :, :1])
    with pytest.raises(ValueError, match="X: expected sequences"):
        sequences.predict(X[0])
    table = kind(**SMALL, n_timesteps=3).fit(X[:, 0].repeat(3, axis=1), y)
    with pytest.raises(ValueError, match="X has 5 features"):
        table.predict(np.zeros((4, 5)))
    with pytest.raises(ValueError, match="X: expected 2 dimensions as in fit, got sequences"):
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
    ({"cell": "LSTM"}, "cell: expected 'lstm', 'gru' or 'rnn', got 'LSTM'"),
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


# Targets.


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


# Weights.


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


# Training.


@BOTH
@pytest.mark.parametrize("batch_size", [8, 64])
def test_partial_fit_goes_on(rng: Generator, kind: Any, batch_size: int) -> None:
    X, y = data(rng)
    estimator = kind(**SMALL, batch_size=batch_size, num_layers=2, dropout=0.3)
    whole, parts = clone(estimator).set_params(max_iter=4).fit(X, y), clone(estimator)
    classes = {"classes": [0, 1, 2]} if kind is LSTMClassifier else {}
    for step in range(4):
        parts.partial_fit(X, y, **classes)
        if step == 1:
            parts = pickle.loads(pickle.dumps(parts))
        if step == 2:
            parts = copy.deepcopy(parts)
    np.testing.assert_array_equal(weights_of(parts), weights_of(whole))
    assert parts.loss_curve_ == whole.loss_curve_
    assert (parts.n_iter_, whole.n_iter_) == (1, 4)


def test_partial_fit_of_classes(rng: Generator) -> None:
    X, y = data(rng)
    with pytest.raises(ValueError, match="classes: expected all labels in the first call"):
        LSTMClassifier(**SMALL).partial_fit(X, y)
    classifier = LSTMClassifier(**SMALL).partial_fit(X, np.zeros(30, int), classes=[2, 1, 0])
    assert list(classifier.classes_) == [0, 1, 2]
    with pytest.raises(ValueError, match=re.escape("y: expected labels of [0 1 2], got [3]")):
        classifier.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match=r"classes: expected .* as before"):
        classifier.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="class_weight: expected a dict or None for partial_fit"):
        clone(classifier).set_params(class_weight="balanced").partial_fit(X, y, [0, 1, 2])
    with pytest.raises(ValueError, match="early_stopping: expected False"):
        LSTMRegressor(early_stopping=True).partial_fit(X, y)
    assert list(classifier.fit(X, y + 1).classes_) == [1, 2, 3]


def test_partial_fit_keeps_the_scale_of_weights_and_targets(rng: Generator) -> None:
    X, y = data(rng)
    regressor = LSTMRegressor(**SMALL).partial_fit(X, y)
    mean = regressor.y_mean_.copy()
    loss = regressor.partial_fit(X, y + 100).loss_curve_[-1]
    np.testing.assert_array_equal(regressor.y_mean_, mean)
    assert loss > 1000
    once, thrice = (
        LSTMRegressor(**SMALL).partial_fit(X, y, sample_weight=np.full(30, weight)).loss_curve_[0]
        for weight in (1, 3)
    )
    assert thrice == pytest.approx(3 * once)
    with pytest.raises(ValueError, match="y: expected 1 outputs as before, got 2"):
        regressor.partial_fit(X, np.ones((30, 2)))


@BOTH
def test_early_stopping_keeps_the_best(rng: Generator, kind: Any) -> None:
    X, y = data(rng, 60)
    y = rng.permutation(y)  # nothing to learn: the score soon falls
    options = {"hidden_size": 16, "early_stopping": True, "tol": 0.0, "random_state": 3}
    estimator = kind(**options, n_iter_no_change=4, validation_fraction=0.3).fit(X, y)
    scores = estimator.validation_scores_
    assert len(scores) == estimator.n_iter_ == len(estimator.loss_curve_) < 100
    assert estimator.best_validation_score_ == max(scores)
    best = int(np.argmax(scores)) + 1
    assert best < estimator.n_iter_
    shorter = clone(estimator).set_params(max_iter=best).fit(X, y)
    np.testing.assert_array_equal(weights_of(shorter), weights_of(estimator))


@BOTH
def test_the_validation_score_is_that_of_the_held_out_part(
    rng: Generator, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rng.normal(size=(80, 4, 1)), np.arange(80) % 4 // 3  # three of four are 0
    weights, held, score = rng.uniform(0.5, 2, size=80), [], kind._score
    monkeypatch.setattr(kind, "_score", lambda *args: held.append(args[2]) or score(*args))
    options = {"max_iter": 1, "early_stopping": True, "validation_fraction": 0.25}
    estimator = kind(random_state=0, **options).fit(X, y, sample_weight=weights)
    monkeypatch.undo()
    places = held[0].sequences.starts // 4
    assert len(np.unique(places)) == 20
    if kind is LSTMClassifier:
        np.testing.assert_array_equal(np.bincount(y[places]), [15, 5])
    found = estimator.score(X[places], y[places], sample_weight=weights[places])
    assert estimator.best_validation_score_ == pytest.approx(found)
    assert found != pytest.approx(estimator.score(X[places], y[places]))


def test_too_few_to_hold_out(rng: Generator) -> None:
    X, y = data(rng, 8)
    with pytest.raises(ValueError, match="validation_fraction: expected at least 2 sequences"):
        LSTMRegressor(**SMALL, early_stopping=True).fit(X, y)


@BOTH
def test_ends_when_the_loss_gets_no_lower(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    estimator = kind(hidden_size=5, learning_rate=0.0, n_iter_no_change=6).fit(X, y)
    assert estimator.n_iter_ == 7
    assert estimator.validation_scores_ is estimator.best_validation_score_ is None


@BOTH
def test_the_seed_decides_and_threads_do_not(rng: Generator, kind: Any) -> None:
    X, y = data(rng, 80, 12)
    options = {**SMALL, "hidden_size": 33, "bidirectional": True, "early_stopping": True}
    before, found = fastlstm.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fastlstm.set_num_threads(threads)
            found.append(weights_of(kind(**options).fit(X, y)))
    finally:
        fastlstm.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    options |= {"learning_rate": 0.0}
    start, other = (kind(**{**options, "random_state": seed}).fit(X, y) for seed in (7, 8))
    assert (start.lstm_.parameters.flat != other.lstm_.parameters.flat).any()
    assert (start.out_.flat != other.out_.flat).any()


def test_every_epoch_has_another_order(rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(rng)
    batch, orders = Examples.batch, []

    def spy(self: Examples, rows: Any) -> Any:
        orders.extend(rows)
        return batch(self, rows)

    monkeypatch.setattr(Examples, "batch", spy)
    LSTMRegressor(**SMALL, batch_size=8).fit(X, y)
    epochs = np.reshape(orders, (3, 30))
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(30), (3, 1)))
    assert len(np.unique(np.vstack([epochs, np.arange(30)]), axis=0)) == 4


@BOTH
def test_warm_start(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    estimator = kind(**SMALL, warm_start=True).fit(X, y)
    before, layer = weights_of(estimator), estimator.lstm_
    estimator.set_params(max_iter=1, learning_rate=0.0).fit(X, y)
    assert estimator.lstm_ is layer
    np.testing.assert_array_equal(weights_of(estimator), before)
    assert (estimator.n_iter_, len(estimator.loss_curve_)) == (1, 4)
    estimator.set_params(warm_start=False).fit(X, y)
    assert (weights_of(estimator) != before).any()
    assert len(estimator.loss_curve_) == 1


def test_options_reach_the_training(rng: Generator) -> None:
    X, y = data(rng)
    base = weights_of(LSTMRegressor(**SMALL).fit(X, y))
    for option in (
        {"weight_decay": 0.1},
        {"clip_norm": 0.01},
        {"learning_rate": 0.02},
        {"batch_size": 10},
    ):
        assert (weights_of(LSTMRegressor(**SMALL, **option).fit(X, y)) != base).any()
    free = LSTMRegressor(**SMALL, clip_norm=None).fit(X, y)
    loose = LSTMRegressor(**SMALL, clip_norm=1e9).fit(X, y)
    np.testing.assert_array_equal(weights_of(free), weights_of(loose))


@pytest.mark.parametrize("stop", [1, 6])
def test_interrupt_keeps_what_was_learned(
    rng: Generator, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    X, y = data(rng)
    gradients, calls = Network.gradients, []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == stop:
            signal.raise_signal(signal.SIGINT)
        return gradients(*args)

    monkeypatch.setattr(Network, "gradients", interrupted)
    classifier = LSTMClassifier(**SMALL, batch_size=10)
    with pytest.warns(UserWarning, match=f"interrupted after {stop // 4} whole epochs") as found:
        classifier.fit(X, y)
    assert found[0].filename == __file__
    assert len(calls) == stop
    assert classifier.n_iter_ == len(classifier.loss_curve_) == stop // 4
    assert classifier.predict(X).shape == (30,)
    monkeypatch.undo()
    start = LSTMClassifier(**{**SMALL, "learning_rate": 0.0}, batch_size=10).fit(X, y)
    assert (weights_of(start) != weights_of(classifier)).all()


def test_a_loss_that_is_not_finite(rng: Generator) -> None:
    X, y = data(rng)
    regressor = LSTMRegressor(**{**SMALL, "learning_rate": 1e300, "max_iter": 50})
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="try a smaller learning_rate"),
    ):
        regressor.fit(X, y)
    assert not hasattr(regressor, "lstm_")


def test_progress(rng: Generator, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = data(rng, 40)
    LSTMClassifier(**SMALL).fit(X, y)
    assert capsys.readouterr().err == ""
    LSTMClassifier(**SMALL, verbose=True, early_stopping=True).fit(X, y)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"epoch    3: loss \d\.\d{4}, validation score \d\.\d{4}", lines[2])


def test_progress_bar(rng: Generator, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    X, y = data(rng)
    LSTMRegressor(**SMALL, verbose=True).fit(X, y)
    assert "3/3" in capsys.readouterr().err


# With the rest of scikit-learn.


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
