"""How the estimators of scikit-learn learn: gradients, partial fits, early stopping, seeds."""

from __future__ import annotations

import copy
import pickle
import re
import signal
import sys
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

import fastlstm

pytest.importorskip("sklearn")

from sklearn.base import clone
from support.estimators import BOTH, SMALL, data, weights_of

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor
from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import Network
from fastlstm.sklearn._sequences import Sequences

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("loss", ["cross-entropy", "squared-error"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_gradients_are_slopes(rng: Generator, cell: str, bidirectional: bool, loss: str) -> None:
    options = {"batch_first": True, "bidirectional": bidirectional, "dtype": "float64", "seed": 1}
    layer = getattr(fastlstm, cell)(3, 4, 2, **options)
    network = Network(layer, 3, np.random.RandomState(0))
    lengths, x = np.array([5, 2, 4, 1]), rng.normal(size=(4, 5, 3))
    targets = rng.integers(3, size=4) if loss == "cross-entropy" else rng.normal(size=(4, 3))
    weights = rng.uniform(0.5, 2, size=4)

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


def test_losses(rng: Generator) -> None:
    layer = fastlstm.LSTM(3, 4, batch_first=True, dtype="float64", seed=1)
    network = Network(layer, 3, np.random.RandomState(0))
    x, weights = rng.normal(size=(4, 5, 3)), rng.uniform(0.5, 2, size=4)
    outputs, numbers = network.outputs(Sequences.of_equal_length(x)), rng.normal(size=(4, 3))
    value, _ = network.gradients(x, None, numbers, weights)
    assert value == pytest.approx((weights[:, None] * (outputs - numbers) ** 2 / 2).mean())
    p, classes = np.exp(outputs), np.array([2, 0, 0, 1])
    value, _ = network.gradients(x, None, classes, weights)
    nll = -np.log(p[np.arange(4), classes] / p.sum(axis=1))
    assert value == pytest.approx((weights * nll).mean())


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


@pytest.mark.parametrize("stop", [1, 5, 6])  # of 3 batches in an epoch
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
    with pytest.warns(UserWarning, match=f"interrupted after {stop // 3} whole epochs") as found:
        classifier.fit(X, y)
    assert found[0].filename == __file__
    assert len(calls) == stop
    assert classifier.n_iter_ == len(classifier.loss_curve_) == stop // 3
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
