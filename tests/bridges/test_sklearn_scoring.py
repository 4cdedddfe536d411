"""Early stopping by a score of the user's choice."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

pytest.importorskip("sklearn")

from sklearn.base import clone, is_classifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score, get_scorer, make_scorer
from support.estimators import BOTH, SMALL, data, outputs_of, weights_of
from support.groups import outcomes

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor
from fastlstm.sklearn._network import Network

pytestmark = pytest.mark.peer

OPTIONS: dict[str, Any] = {
    "hidden_size": 6,
    "early_stopping": True,
    "max_iter": 8,
    "n_iter_no_change": 8,
    "validation_fraction": 0.3,
    "random_state": 5,
}


def rare(seed: int, n: int, distance: float) -> tuple[Any, ...]:
    """5% positives that overlap with the others, to learn from and to test with."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 20 == 0
    X, X_new = rng.normal(size=(2, n, 8, 1))
    for each in (X, X_new):
        each[:, 3, 0] += distance * y
    return X, y, X_new, y


def balanced(rows: tuple[Any, ...], scoring: str | None, **options: Any) -> float:
    """The balanced accuracy of a classifier that stopped by this score."""
    X, y, X_new, y_new = rows
    options |= {"early_stopping": True, "validation_fraction": 0.2, "random_state": 0}
    classifier = LSTMClassifier(16, scoring=scoring, **options).fit(X, y)
    return float(balanced_accuracy_score(y_new, classifier.predict(X_new)))


def test_rare_positives() -> None:
    """By accuracy it ends where all are said to be negative, which 95% are."""
    rows = rare(0, 600, 3.0)
    assert balanced(rows, None) == 0.5
    assert balanced(rows, "loss") > 0.7
    assert balanced(rows, "average_precision") > 0.7


def test_rare_positives_by_balanced_accuracy() -> None:
    """To find a half of them is 2.5% of accuracy, little by little: each time less than `tol`."""
    rows, options = rare(1, 2000, 2.5), {"tol": 0.01, "n_iter_no_change": 5, "batch_size": 16}
    assert balanced(rows, "balanced_accuracy", **options) > 0.1 + balanced(rows, None, **options)


def held_out_of(estimator: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """What is held out, as a scorer is given it."""
    shown = []

    def scorer(fitted: Any, X: Any, y: Any) -> float:
        shown.append((X, y))
        return 0.0

    clone(estimator).set_params(scoring=scorer, max_iter=1).fit(X, y)
    return shown[0]


CLASSIFIERS = ["balanced_accuracy", "f1", "roc_auc", "neg_log_loss", "average_precision"]
REGRESSORS = ["r2", "neg_mean_absolute_error", "neg_root_mean_squared_error"]
SCORINGS = [
    *((LSTMClassifier, name) for name in CLASSIFIERS),
    *((LSTMRegressor, name) for name in REGRESSORS),
]


@pytest.mark.parametrize("output", ["last", "steps"])
@pytest.mark.parametrize(("kind", "scoring"), SCORINGS)
def test_the_best_score_is_of_the_weights_that_are_kept(
    rng: Generator, kind: Any, scoring: str, output: str
) -> None:
    """It is that of scikit-learn, for labels and numbers as they were given."""
    X = rng.normal(size=(80, 5, 2))
    sums = X[:, :, 0].cumsum(axis=1)
    y = np.where(sums > 0, 1, -1) if kind is LSTMClassifier else 100 + 7 * sums
    y = y[:, -1] if output == "last" else y
    estimator = kind(**OPTIONS, scoring=scoring, output=output)
    X_held, y_held = held_out_of(estimator, X, y)
    assert X_held.shape == (24, 5, 2)
    estimator.fit(X, y)
    scores = estimator.validation_scores_
    assert len(scores) == estimator.n_iter_
    assert estimator.best_validation_score_ == max(scores) > min(scores)
    found = get_scorer(scoring)(flat(estimator), X_held, y_held)
    assert found == pytest.approx(max(scores))
    best = clone(estimator).set_params(max_iter=int(np.argmax(scores)) + 1).fit(X, y)
    np.testing.assert_array_equal(weights_of(best), weights_of(estimator))


def flat(estimator: Any) -> Any:
    """It predicts steps one after another, as scorers expect."""
    if estimator.output == "last":
        return estimator

    class Flat(type(estimator)):  # type: ignore[misc]
        def predict(self, X: Any) -> Any:
            return np.concatenate(estimator.predict(X))

        def predict_proba(self, X: Any) -> Any:
            return np.concatenate(estimator.predict_proba(X))

    twin = Flat()
    twin.__dict__ |= estimator.__dict__
    return twin


@BOTH
@pytest.mark.parametrize("output", ["last", "steps"])
def test_the_loss_of_what_is_held_out(rng: Generator, kind: Any, output: str) -> None:
    X = rng.normal(size=(80, 5, 2))
    y = (X[:, :, 0] > 0).astype(int) if output == "steps" else (X[:, 0, 0] > 0).astype(int)
    estimator = kind(**{**OPTIONS, "max_iter": 1}, scoring="loss", output=output)
    X_held, y_held = held_out_of(estimator, X, y)
    estimator.fit(X, y)
    if kind is LSTMClassifier:
        p = estimator.predict_proba(X_held).reshape(-1, 2)
        losses = -np.log(p[np.arange(len(p)), y_held])
    else:
        losses = (estimator.predict(X_held).ravel() - y_held) ** 2 / 2 / y.var()
    assert estimator.best_validation_score_ == pytest.approx(-losses.mean())


@pytest.mark.parametrize("form", ["array", "list", "table", "frame"])
def test_a_callable_is_given_the_form_of_x(rng: Generator, form: str) -> None:
    X, y = data(rng, 40)
    labels = np.array(["low", "middle", "high"])[y]
    if form == "frame":
        pandas = pytest.importorskip("pandas")
        X = pandas.DataFrame(X.reshape(40, -1)).rename(columns="x{}".format)
    else:
        X = {"array": X, "list": list(X), "table": X.reshape(40, -1)}[form]
    shown = []

    def scorer(estimator: Any, X_held: Any, y_held: Any) -> float:
        assert is_classifier(estimator)
        np.testing.assert_array_equal(estimator.classes_, ["high", "low", "middle"])
        predicted = estimator.predict(X_held)
        again = X_held[:3] if form != "frame" else X_held.iloc[:3]
        np.testing.assert_array_equal(predicted[:3], estimator.predict(again))
        shown.append((type(X_held), len(X_held), *sorted(set(y_held))))
        score = float((predicted == y_held).mean())
        assert estimator.score(X_held, y_held) == score
        return score

    options = {**OPTIONS, "n_timesteps": 6 if form in ("table", "frame") else None}
    estimator = LSTMClassifier(**options, scoring=scorer).fit(X, labels)
    assert shown[0] == (type(X), 12, "high", "low", "middle")
    assert len(shown) == estimator.n_iter_
    by_name = clone(estimator).set_params(scoring=None).fit(X, labels)
    assert by_name.validation_scores_ == pytest.approx(estimator.validation_scores_)
    pickle.dumps(estimator.set_params(scoring=None))


def test_steps_are_shown_one_after_another(rng: Generator) -> None:
    X = [rng.normal(size=(length, 2)) for length in rng.integers(1, 8, size=40)]
    y = [np.where(x[:, 0] > 0, "up", "down") for x in X]
    weights = rng.uniform(0.5, 2, size=40)
    numbers = {x.tobytes(): i for i, x in enumerate(X)}

    def scorer(estimator: Any, X_held: Any, y_held: Any, sample_weight: Any) -> float:
        rows = [numbers[x.tobytes()] for x in X_held]
        assert y_held.tolist() == np.concatenate([y[row] for row in rows]).tolist()
        of_steps = np.concatenate([np.full(len(X[row]), weights[row]) for row in rows])
        np.testing.assert_array_equal(sample_weight, of_steps)
        assert estimator.predict_proba(X_held).shape == (len(y_held), 2)
        return float(accuracy_score(y_held, estimator.predict(X_held), sample_weight=sample_weight))

    options = {**OPTIONS, "output": "steps"}
    estimator = LSTMClassifier(**options, scoring=scorer).fit(X, y, sample_weight=weights)
    by_name = clone(estimator).set_params(scoring=None).fit(X, y, sample_weight=weights)
    assert by_name.validation_scores_ == pytest.approx(estimator.validation_scores_)


def test_weights_of_sequences_reach_the_scorer_but_those_of_classes_do_not(rng: Generator) -> None:
    X, y = data(rng, 60)
    weights = np.where(np.arange(60) % 4, rng.uniform(0.5, 2, size=60), 0)
    place = {x.tobytes(): i for i, x in enumerate(X)}
    shown = []

    def scorer(estimator: Any, X_held: Any, y_held: Any, sample_weight: Any = None) -> float:
        shown.append((X_held, y_held, sample_weight))
        return 0.0

    options = {**OPTIONS, "class_weight": {1: 5.0}, "max_iter": 1}
    LSTMClassifier(**options, scoring=scorer).fit(X, y, sample_weight=weights)
    LSTMClassifier(**options, scoring=scorer).fit(X, y)
    rows = [place[x.tobytes()] for x in shown[0][0]]
    np.testing.assert_array_equal(shown[0][1], y[rows])
    np.testing.assert_array_equal(shown[0][2], weights[rows])
    assert weights[rows].min() > 0
    assert shown[1][2] is None


def test_outputs_are_computed_once_an_epoch(
    rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = data(rng, 60)
    outputs, calls = Network.outputs, []
    monkeypatch.setattr(Network, "outputs", lambda *args: calls.append(args) or outputs(*args))

    def scorer(estimator: Any, X: Any, y: Any) -> float:
        return get_scorer("neg_log_loss")(estimator, X, y) + get_scorer("accuracy")(estimator, X, y)

    estimator = LSTMClassifier(**OPTIONS, scoring=scorer).fit(X, y)
    assert len(calls) == estimator.n_iter_


@BOTH
def test_what_a_scorer_was_shown_is_not_kept(rng: Generator, kind: Any) -> None:
    X, y = data(rng, 60)
    plain = kind(**{**OPTIONS, "scoring": "loss"}).fit(X, y)
    scored = kind(
        **{**OPTIONS, "scoring": "neg_max_error" if kind is LSTMRegressor else "accuracy"}
    )
    scored.fit(X, y)
    assert scored._held_out is None
    assert len(pickle.dumps(scored)) < len(pickle.dumps(plain)) + 200
    assert outputs_of(scored, X[:2]).shape[0] == 2


@BOTH
def test_the_same_as_the_default(rng: Generator, kind: Any) -> None:
    X, y = data(rng, 60)
    name = "accuracy" if kind is LSTMClassifier else "r2"
    default, named = (kind(**OPTIONS, scoring=scoring).fit(X, y) for scoring in (None, name))
    assert named.validation_scores_ == pytest.approx(default.validation_scores_)
    np.testing.assert_array_equal(weights_of(named), weights_of(default))


def plain_scorer(estimator: Any, X: Any, y: Any) -> float:
    return float(estimator.score(X, y))


@pytest.mark.parametrize("scoring", ["f1_macro", plain_scorer, make_scorer(accuracy_score)])
def test_any_number_of_processes(scoring: Any) -> None:
    """A function has another address in each of them."""
    X, y = data(np.random.default_rng(0), 45)
    estimator = LSTMClassifier(**OPTIONS, shards=4, batch_size=20)

    def fit(group: Any) -> tuple[list[float], bytes]:
        own = scoring
        if scoring is plain_scorer:
            own = lambda *args: plain_scorer(*args)  # noqa: E731
        with group:
            fitted = clone(estimator).set_params(scoring=own).fit(X, y)
        return fitted.validation_scores_, weights_of(fitted).tobytes()

    alone = clone(estimator).set_params(scoring=scoring).fit(X, y)
    expected = (alone.validation_scores_, weights_of(alone).tobytes())
    assert outcomes(3, fit) == [expected] * 3


def test_other_names_are_an_error_in_all() -> None:
    X, y = data(np.random.default_rng(0), 45)
    estimator = LSTMClassifier(**OPTIONS, shards=4)

    def fit(group: Any) -> None:
        with group:
            scoring = "f1_macro" if group.rank else "accuracy"
            clone(estimator).set_params(scoring=scoring).fit(X, y)

    for error in outcomes(2, fit):
        assert isinstance(error, ValueError)
        assert "scoring: 'accuracy' on rank 0, 'f1_macro' on rank 1" in str(error)


WRONG = [
    (accuracy_score, ValueError, "looks like it is a metric function rather than a scorer"),
    (lambda *args: "good", TypeError, "^scoring: expected a scorer that returns a number, got str"),
    (lambda *args: np.nan, ValueError, "^scoring: expected a finite score of the 12 held-out pre"),
]


@pytest.mark.parametrize(("scoring", "kind", "message"), WRONG)
def test_wrong_scorers(rng: Generator, scoring: Any, kind: Any, message: str) -> None:
    X, y = data(rng, 40)
    classifier = LSTMClassifier(**OPTIONS, scoring=scoring)
    with pytest.raises(kind, match=message):
        classifier.fit(X, y)
    assert not hasattr(classifier, "lstm_")


def test_without_early_stopping_nothing_is_scored(rng: Generator) -> None:
    X, y = data(rng)
    scored = LSTMRegressor(**SMALL, scoring="neg_max_error").fit(X, y)
    assert scored.validation_scores_ is None
    np.testing.assert_array_equal(weights_of(scored), weights_of(LSTMRegressor(**SMALL).fit(X, y)))
