"""Estimators with a target for each step: losses, forms, weights, processes, errors."""

from __future__ import annotations

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

import fastlstm
from fastlstm import distributed

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from support.estimators import BOTH, SMALL, outputs_of, weights_of
from support.groups import outcomes

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor
from fastlstm.sklearn._network import Network
from fastlstm.sklearn._readout import EveryStep
from fastlstm.sklearn._sequences import Sequences

pytestmark = pytest.mark.peer

STEPS: dict[str, Any] = {**SMALL, "output": "steps"}


def ragged(rng: Generator, n: int = 30) -> tuple[list[Any], list[Any]]:
    """Sequences of different lengths, and a class of each step, which is a number, too."""
    X = [rng.normal(size=(length, 2)) for length in rng.integers(1, 8, size=n)]
    return X, [np.digitize(x[:, 0].cumsum(), [-0.5, 0.5]) for x in X]


def network_of(cell: str, bidirectional: bool) -> Network:
    options = {"batch_first": True, "bidirectional": bidirectional, "dtype": "float64", "seed": 1}
    layer = getattr(fastlstm, cell)(3, 4, 2, **options)
    return Network(layer, 3, np.random.RandomState(0), EveryStep())


@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error"])
@pytest.mark.parametrize("lengths", [None, [5, 2, 4, 1]], ids=["equal", "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_gradients_are_slopes(
    rng: Generator, cell: str, bidirectional: bool, lengths: Any, loss: str
) -> None:
    network = network_of(cell, bidirectional)
    lengths = None if lengths is None else np.array(lengths)
    n = 20 if lengths is None else lengths.sum()
    x, weights = rng.normal(size=(4, 5, 3)), rng.uniform(0.5, 2, size=n)
    targets = rng.integers(3, size=n) if loss == "cross-entropy" else rng.normal(size=(n, 3))
    _, grads = network.gradients(x, lengths, targets, weights)
    for parameters, grad in zip(network.trainable, grads, strict=True):
        assert all(np.abs(part).max() > 0 for part in grad.values())
        start = parameters.flat.copy()
        for _ in range(3):
            direction, values = rng.normal(size=start.size), []
            for shift in (1e-6, -1e-6):
                parameters.flat = start + shift * direction
                values.append(network.gradients(x, lengths, targets, weights)[0])
            parameters.flat = start
            slope = (values[0] - values[1]) / 2e-6
            assert grad.flat @ direction == pytest.approx(slope, rel=1e-6, abs=1e-8)


@BOTH
def test_the_loss_is_the_mean_over_all_steps(rng: Generator, kind: Any) -> None:
    """Whatever the batches, and with the weights of their sequences."""
    X, y = ragged(rng)
    weights = rng.uniform(0.5, 2, size=30)
    of_step = np.repeat(weights, [len(x) for x in X])
    still = {**STEPS, "learning_rate": 0.0, "max_iter": 1}
    estimator = kind(**still).fit(X, y)
    flat = np.concatenate(y)
    if kind is LSTMClassifier:
        p = np.concatenate(estimator.predict_proba(X))
        losses = -np.log(p[np.arange(len(flat)), flat])
    else:
        scaled = (np.concatenate(estimator.predict(X)) - flat) / flat.std()
        losses = scaled**2 / 2
    for size in (64, 7):
        found = kind(**still, batch_size=size).fit(X, y).loss_curve_[0]
        assert found == pytest.approx(losses.mean())
    if kind is LSTMClassifier:  # weights change the scale of numbers
        found = kind(**still, batch_size=7).fit(X, y, sample_weight=weights).loss_curve_[0]
        assert found == pytest.approx(np.average(losses, weights=of_step))
        by_class = kind(**still, batch_size=7, class_weight={1: 3.0}).fit(X, y).loss_curve_[0]
        assert by_class == pytest.approx((losses * np.where(flat == 1, 3, 1)).mean())
    else:
        weighted = kind(**still).fit(X, y, sample_weight=weights)
        mean = np.average(flat, weights=of_step)
        assert weighted.y_mean_ == pytest.approx(mean)
        spread = np.average((flat - mean) ** 2, weights=of_step)
        assert weighted.y_scale_ == pytest.approx(spread**0.5)
    part = kind(**still).partial_fit(X, y, **classes_of(kind))
    assert part.loss_curve_[0] == pytest.approx(losses.mean())


def classes_of(kind: Any) -> dict[str, Any]:
    return {"classes": [0, 1, 2]} if kind is LSTMClassifier else {}


@BOTH
def test_predictions_have_the_form_of_x(rng: Generator, kind: Any) -> None:
    X = rng.normal(size=(30, 6, 2))
    y = np.digitize(X[:, :, 0], [-0.5, 0.5])
    array = kind(**STEPS).fit(X, y)
    listed = kind(**STEPS).fit(list(X), list(y))
    table = kind(**STEPS, n_timesteps=6).fit(X.reshape(30, -1), y.tolist())
    expected = outputs_of(array, X)
    assert expected.shape[:2] == (30, 6)
    for other in (listed, table):
        np.testing.assert_array_equal(weights_of(other), weights_of(array))
    np.testing.assert_array_equal(outputs_of(table, X.reshape(30, -1)), expected)
    found = outputs_of(array, list(X))
    assert isinstance(found, list)
    np.testing.assert_array_equal(found, expected)
    if kind is LSTMClassifier:
        proba = array.predict_proba(X)
        assert proba.shape == (30, 6, 3)
        np.testing.assert_allclose(np.exp(array.predict_log_proba(X)), proba)
        np.testing.assert_array_equal(array.predict(X), proba.argmax(axis=2))


def test_several_outputs(rng: Generator) -> None:
    X, _ = ragged(rng)
    y = [np.stack([x[:, 0], 50 - 1000 * x[:, 1]], axis=1) for x in X]
    regressor = LSTMRegressor(16, output="steps", random_state=0).fit(X, y)
    assert regressor.n_outputs_ == 2
    assert [p.shape for p in regressor.predict(X)] == [each.shape for each in y]
    assert regressor.score(X, y) > 0.95
    one = LSTMRegressor(**STEPS).fit(X, [each[:, :1] for each in y])
    assert one.predict(X)[3].shape == y[3][:, :1].shape
    same = np.ones((5, 4, 3))
    assert LSTMRegressor(**STEPS).fit(same, same[:, :, :2]).predict(same).shape == (5, 4, 2)


@BOTH
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_padding_is_as_if_it_were_not_there(rng: Generator, kind: Any, cell: str) -> None:
    """A sequence has its bits alone; they are those of the layer and the linear one by hand."""
    X, y = ragged(rng)
    options = {"cell": cell, "bidirectional": True, "num_layers": 2, "batch_size": 7}
    estimator = kind(**STEPS, **options).fit(X, y)
    outputs = outputs_of(estimator, X)
    for x, whole in zip(X, outputs, strict=True):
        np.testing.assert_array_equal(outputs_of(estimator, [x])[0], whole)
        linear = estimator.lstm_(x[None])[0][0] @ estimator.out_["weight"].T
        linear = linear + estimator.out_["bias"]
        if kind is LSTMRegressor:
            expected = (linear * estimator.y_scale_ + estimator.y_mean_)[:, 0]
        else:
            expected = np.exp(linear) / np.exp(linear).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(whole, expected, rtol=1e-11)


def test_one_direction_does_not_see_the_future(rng: Generator) -> None:
    X, y = ragged(rng)
    estimator = LSTMRegressor(**STEPS).fit(X, y)
    np.testing.assert_array_equal(
        np.concatenate(estimator.predict([x[:1] for x in X])), [p[0] for p in estimator.predict(X)]
    )


def test_outputs_have_the_same_bits_in_any_part(
    rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of("LSTM", False)
    sequences = Sequences.of_equal_length(rng.normal(size=(23, 5, 3)))
    whole = network.outputs(sequences)
    assert whole.shape == (115, 3)
    monkeypatch.setattr("fastlstm.sklearn._network._VALUES", 70)  # 3 sequences at a time
    np.testing.assert_array_equal(network.outputs(sequences), whole)


@BOTH
def test_score_is_of_all_steps(rng: Generator, kind: Any) -> None:
    X, y = ragged(rng)
    weights = rng.uniform(0.5, 2, size=30)
    estimator = kind(**STEPS).fit(X, y)
    metric = accuracy_score if kind is LSTMClassifier else r2_score
    true, predicted = np.concatenate(y), np.concatenate(estimator.predict(X))
    of_step = np.repeat(weights, [len(x) for x in X])
    assert estimator.score(X, y) == metric(true, predicted)
    found = estimator.score(X, y, sample_weight=weights)
    assert found == metric(true, predicted, sample_weight=of_step) != estimator.score(X, y)


@BOTH
def test_a_weight_is_a_repetition_to_the_bit(rng: Generator, kind: Any) -> None:
    X, y = ragged(rng, 20)
    weights = rng.integers(4, size=20)
    weights[0] = 0
    estimator = kind(hidden_size=5, random_state=0, output="steps", max_iter=20)
    weighted = clone(estimator).fit(X, y, sample_weight=weights)
    shuffled = rng.permutation(np.arange(20).repeat(weights))
    repeated = clone(estimator).fit([X[i] for i in shuffled], [y[i] for i in shuffled])
    np.testing.assert_array_equal(weights_of(weighted), weights_of(repeated))
    assert (weights_of(weighted) != weights_of(clone(estimator).fit(X, y))).any()


@BOTH
def test_without_a_weight_it_is_not_there(rng: Generator, kind: Any) -> None:
    X, y = ragged(rng)
    weights = np.where(np.arange(30) % 3, rng.uniform(0.5, 2, size=30), 0)
    kept = np.flatnonzero(weights)
    weighted = kind(**STEPS, batch_size=8).fit(X, y, sample_weight=weights)
    X_kept, y_kept = ([each[i] for i in kept] for each in (X, y))
    removed = kind(**STEPS, batch_size=8).fit(X_kept, y_kept, sample_weight=weights[kept])
    np.testing.assert_array_equal(weights_of(weighted), weights_of(removed))


def test_balanced_classes_are_of_steps(rng: Generator) -> None:
    X, y = ragged(rng)
    counts = np.bincount(np.concatenate(y))
    factors = {label: counts.sum() / (3 * counts[label]) for label in (0, 1, 2)}
    balanced, by_hand = (
        LSTMClassifier(**STEPS, class_weight=weight).fit(X, y) for weight in ("balanced", factors)
    )
    np.testing.assert_allclose(weights_of(balanced), weights_of(by_hand), rtol=1e-9)
    plain = weights_of(LSTMClassifier(**STEPS).fit(X, y))
    assert np.abs(weights_of(balanced) - plain).max() > 1e-4


@BOTH
def test_partial_fit_goes_on(rng: Generator, kind: Any) -> None:
    X, y = ragged(rng)
    estimator = kind(**STEPS, batch_size=8)
    whole, parts = clone(estimator).set_params(max_iter=3).fit(X, y), clone(estimator)
    for _ in range(3):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X, y, **classes_of(kind))))
    np.testing.assert_array_equal(weights_of(parts), weights_of(whole))
    assert parts.loss_curve_ == whole.loss_curve_


@BOTH
@pytest.mark.parametrize("before", ["last", "steps"])
def test_going_on_needs_the_same_output(rng: Generator, kind: Any, before: str) -> None:
    X, y = ragged(rng)
    targets = {"last": [each[-1] for each in y], "steps": y}
    estimator = kind(**{**STEPS, "output": before}, warm_start=True).fit(X, targets[before])
    after = "last" if before == "steps" else "steps"
    expected = outputs_of(estimator, X)
    estimator.set_params(output=after)
    for call in (estimator.fit, estimator.partial_fit):
        with pytest.raises(ValueError, match=f"^output: expected '{before}' as before, got"):
            call(X, targets[after])
    for found, whole in zip(outputs_of(estimator, X), expected, strict=True):
        np.testing.assert_array_equal(found, whole)
    estimator.set_params(warm_start=False).fit(X, targets[after])
    assert isinstance(outputs_of(estimator, X), list) == (after == "steps")


@BOTH
def test_copies_and_quantized(rng: Generator, kind: Any) -> None:
    X, y = ragged(rng)
    estimator = kind(**STEPS).fit(X, y)
    small = estimator.quantize("bfloat16")
    expected = np.concatenate(outputs_of(estimator, X))
    for copied in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator)), small):
        found = np.concatenate(outputs_of(copied, X))
        np.testing.assert_allclose(found, expected, rtol=0.1 if copied is small else 0, atol=0)
    assert clone(estimator).get_params()["output"] == "steps"


@BOTH
def test_any_number_of_processes(kind: Any) -> None:
    X, y = ragged(np.random.default_rng(0), 45)
    options = {"batch_size": 20, "shards": 8, "early_stopping": True, "scoring": "loss"}
    estimator = kind(**STEPS, **options)

    def learned(fitted: Any) -> list[bytes]:
        history = np.array([fitted.loss_curve_, fitted.validation_scores_])
        return [weights_of(fitted).tobytes(), history.tobytes()]

    def fit(group: Any) -> list[bytes]:
        with group:
            return learned(clone(estimator).fit(X, y))

    alone = learned(clone(estimator).fit(X, y))
    for size in (1, 2, 3, 9):
        assert outcomes(size, fit) == [alone] * size
    without = clone(estimator).set_params(shards=None).fit(X, y)
    with_shards = np.frombuffer(alone[0])
    np.testing.assert_allclose(with_shards, weights_of(without), rtol=0, atol=1e-9)


@BOTH
def test_predicted_elsewhere(rng: Generator, kind: Any) -> None:
    X, y = ragged(rng)
    estimator = kind(**STEPS).fit(X, y)
    with ThreadPoolExecutor(2) as executor:
        found = distributed.predict(estimator, X, executor, rows=7)
    assert isinstance(found, list)
    for part, expected in zip(found, estimator.predict(X), strict=True):
        np.testing.assert_array_equal(part, expected)


@BOTH
def test_selection_of_models(rng: Generator, kind: Any) -> None:
    X, y = ragged(rng, 60)
    assert len(cross_val_score(kind(**STEPS), X, y, cv=3)) == 3
    search = GridSearchCV(kind(**STEPS), {"hidden_size": [1, 12]}, cv=KFold(3))
    assert search.fit(X, y).best_params_ == {"hidden_size": 12}


def test_it_learns(rng: Generator) -> None:
    X, y = ragged(rng, 100)
    labels = [np.array(["low", "middle", "high"])[each] for each in y]
    classifier = LSTMClassifier(16, output="steps", max_iter=60, random_state=0).fit(X, labels)
    assert list(classifier.classes_) == ["high", "low", "middle"]
    assert classifier.score(X, labels) > 0.95
    assert set(classifier.predict(X[:1])[0]) <= {"high", "low", "middle"}
    sums = [x.cumsum(axis=0) for x in X]
    regressor = LSTMRegressor(16, output="steps", max_iter=60, random_state=0).fit(X, sums)
    assert regressor.score(X, sums) > 0.95


@BOTH
def test_wrong_y(rng: Generator, kind: Any) -> None:
    X, y = ragged(rng)
    length, rest = len(X[3]), ", a target for each step, got "
    wrong = [
        (np.append(y[3], 0), f"({length + 1},)"),
        (y[3][:, None], f"({length}, 1)"),
        (3, "()"),
        ([[1], [2, 3]], "setting an array element with a sequence"),
    ]
    for item, got in wrong:
        start = f"y[3]: expected ({length},){rest}{got}"
        with pytest.raises(ValueError, match="^" + re.escape(start)):
            kind(**STEPS).fit(X, [*y[:3], item, *y[4:]])
    same = rng.normal(size=(30, 6, 2))
    several = " or (6, K)" if kind is LSTMRegressor else ""
    with pytest.raises(ValueError, match=re.escape(f"y[0]: expected (6,){several}, ") + r".*\(\)$"):
        kind(**STEPS).fit(same, np.zeros(30))
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[30, 29\]"):
        kind(**STEPS).fit(X, y[:29])
    fitted = kind(**STEPS).fit(X, y)
    with pytest.raises(ValueError, match=r"^y\[3\]: expected"):
        fitted.score(X, [*y[:3], y[4], *y[4:]])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.score(X, y, sample_weight=np.ones(29))


def test_labels_of_a_column_are_told_to_be_one(rng: Generator) -> None:
    X, y = ragged(rng)
    with pytest.raises(ValueError, match=r"^y\[0\]: expected \(\d,\), a target"):
        LSTMClassifier(**STEPS).fit(X, [each[:, None] for each in y])
    with pytest.warns(DataConversionWarning):  # as of any classifier, for sequences
        LSTMClassifier(**SMALL).fit(X, [each[-1:] for each in y])
