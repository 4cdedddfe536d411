"""Estimators of scikit-learn whose layer has weights of 8 or 16 bits."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

import fastlstm

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from support.estimators import BOTH, SMALL, data, outputs_of, weights_of

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

pytestmark = pytest.mark.peer

EACH = pytest.mark.parametrize("weights_dtype", ["int8", "bfloat16", "float16"])


def float32_layer(layer: Any) -> Any:
    """A layer with the same weights, in float32."""
    options = {"dtype": "float32", "batch_first": True}
    return type(layer).from_torch(layer.state_dict(), **options)


def outputs_by_hand(estimator: Any, layer: Any, X: Any) -> Any:
    """What an estimator of one direction returns if this layer computes."""
    state = layer(X)[1]
    last = (state[0] if isinstance(state, tuple) else state)[-1].astype(np.float64)
    weight, bias = (estimator.out_[name].astype(np.float64) for name in ("weight", "bias"))
    outputs = np.einsum("bh,kh->bk", last, weight) + bias
    if isinstance(estimator, LSTMRegressor):
        return (outputs * estimator.y_scale_ + estimator.y_mean_)[:, 0]
    below = outputs - outputs.max(axis=1, keepdims=True)
    proba = np.exp(below - np.log(np.exp(below).sum(axis=1, keepdims=True)))
    return proba / proba.sum(axis=1, keepdims=True)


@EACH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@BOTH
def test_it_predicts_with_the_quantized_layer(
    rng: Generator, kind: Any, dtype: str, weights_dtype: str
) -> None:
    X, y = data(rng)
    estimator = kind(**SMALL, num_layers=2, dropout=0.25).fit(X.astype(dtype), y)
    before, weights = outputs_of(estimator, X), weights_of(estimator)
    small = estimator.quantize(weights_dtype)
    assert type(small) is kind
    assert small.get_params() == estimator.get_params()
    assert (small.lstm_.weights_dtype, small.lstm_.dtype) == (weights_dtype, np.float32)
    assert (small.n_features_in_, small.loss_curve_) == (2, estimator.loss_curve_)
    by_hand = float32_layer(estimator.lstm_).quantize(weights_dtype)
    expected = outputs_by_hand(estimator, by_hand, X.astype(np.float32))
    for each in (X, X.astype(np.float32)):
        np.testing.assert_array_equal(outputs_of(small, each), expected)
    np.testing.assert_array_equal(outputs_of(small, X[3:4]), expected[3:4])
    assert not np.array_equal(expected, before)
    assert small.score(X, y) == pytest.approx(estimator.score(X, y), abs=0.1)
    np.testing.assert_array_equal(outputs_of(estimator, X), before)
    np.testing.assert_array_equal(weights_of(estimator), weights)


@pytest.mark.parametrize("cell", ["gru", "rnn", "slstm"])
def test_other_cells(rng: Generator, cell: str) -> None:
    X, y = data(rng)
    estimator = LSTMClassifier(**{**SMALL, "hidden_size": 8}, cell=cell).fit(X, y)
    by_hand = float32_layer(estimator.lstm_).quantize("int8")
    expected = outputs_by_hand(estimator, by_hand, X.astype(np.float32))
    np.testing.assert_array_equal(estimator.quantize("int8").predict_proba(X), expected)


def test_all_that_predicts(rng: Generator) -> None:
    X, y = data(rng)
    small = LSTMClassifier(**SMALL, bidirectional=True).fit(X, y).quantize("int8")
    proba = small.predict_proba(X)
    np.testing.assert_allclose(np.exp(small.predict_log_proba(X)), proba)
    np.testing.assert_array_equal(small.predict(X), small.classes_[proba.argmax(axis=1)])
    ragged = [row[: 1 + i % 6] for i, row in enumerate(X)]
    alone = np.concatenate([small.predict_proba([row]) for row in ragged])
    np.testing.assert_array_equal(small.predict_proba(ragged), alone)
    pipe = make_pipeline(FunctionTransformer(), small)
    np.testing.assert_array_equal(pipe.predict(X), small.predict(X))
    with (
        pytest.raises(ValueError, match=r"too large for dtype\('float32'\)"),
        np.errstate(over="ignore"),
    ):
        small.predict(np.full((1, 2, 2), 1e300))


@EACH
@BOTH
def test_copies_and_pickles(rng: Generator, kind: Any, weights_dtype: str) -> None:
    X, y = data(rng)
    small = kind(**SMALL).fit(X, y).quantize(weights_dtype)
    for twin in (copy.copy(small), copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert twin.lstm_.weights_dtype == weights_dtype
        assert twin.lstm_ is twin._network.layer
        np.testing.assert_array_equal(outputs_of(twin, X), outputs_of(small, X))


def test_pickles_are_small(rng: Generator) -> None:
    """They have no moments of the optimizer, and a byte for each weight."""
    X, y = data(rng)
    estimator = LSTMClassifier(128, max_iter=1, random_state=0).fit(X.astype(np.float32), y)
    small = estimator.quantize("int8")
    assert len(pickle.dumps(small)) < 1.2 * estimator.lstm_.parameters.size


@BOTH
def test_training_begins_anew(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    estimator = kind(**SMALL).fit(X, y)
    for trained in (
        estimator.quantize("int8").fit(X, y),
        clone(estimator.quantize("int8")).fit(X, y),
    ):
        assert trained.lstm_.weights_dtype == "float64"
        np.testing.assert_array_equal(weights_of(trained), weights_of(estimator))
        np.testing.assert_array_equal(outputs_of(trained, X), outputs_of(estimator, X))
        trained.partial_fit(X, y)
    small = estimator.quantize("int8")
    np.testing.assert_array_equal(
        cross_val_score(small, X, y, cv=3), cross_val_score(estimator, X, y, cv=3)
    )
    assert not hasattr(clone(small), "lstm_")


@BOTH
def test_going_on_raises_one_clear_error(rng: Generator, kind: Any) -> None:
    X, y = data(rng)
    small = kind(**SMALL, warm_start=True).fit(X, y).quantize("int8")
    before = outputs_of(small, X)
    message = "{}: expected weights of float32, got int8: train the estimator that was quantized"
    with pytest.raises(ValueError, match=message.format("partial_fit")):
        small.partial_fit(X, y)
    with pytest.raises(ValueError, match=message.format("fit with warm_start")):
        small.fit(X, y)
    np.testing.assert_array_equal(outputs_of(small, X), before)


def test_what_cannot_be_quantized(rng: Generator) -> None:
    X, y = data(rng)
    with pytest.raises(NotFittedError):
        LSTMRegressor().quantize("int8")
    regressor = LSTMRegressor(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match=r"weights_dtype: expected one of .*, got 'int4'"):
        regressor.quantize("int4")
    with pytest.raises(ValueError, match="expected a layer of float32 weights, got int8"):
        regressor.quantize("int8").quantize("int8")
    regressor.lstm_.parameters["weight_ih_l0"] = regressor.lstm_.parameters["weight_ih_l0"] * 1e300
    with pytest.raises(ValueError, match="weight_ih_l0: expected finite numbers, to be int8"):
        regressor.quantize("int8")


def test_dropout_without_effect_is_not_told_again(rng: Generator) -> None:
    X, y = data(rng)
    estimator = LSTMClassifier(**SMALL, dropout=0.5)
    with pytest.warns(UserWarning, match="no effect with num_layers=1"):
        estimator.fit(X, y)
    assert isinstance(estimator.quantize("int8").lstm_, fastlstm.LSTM)
