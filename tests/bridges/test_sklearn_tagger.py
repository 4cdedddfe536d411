"""LSTMTagger: tags of tokens and of features, that may depend on each other."""

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
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from fastlstm.sklearn import LSTMTagger
from fastlstm.sklearn._tagging import TaggingNetwork

pytestmark = pytest.mark.peer

Array = np.ndarray[Any, Any]
SMALL: dict[str, Any] = {"hidden_size": 6, "embedding_size": 5, "max_iter": 3, "random_state": 0}
every_crf = pytest.mark.parametrize("crf", [True, False], ids=["crf", "softmax"])


def sentences(rng: Generator, n: int = 40) -> tuple[list[list[str]], list[list[str]]]:
    """Words; one after "Mr" is a name, unless it is "a"."""
    words = np.array(["Mr", "a", "Brown", "Green", "sees"])
    X = [words[rng.integers(5, size=k)].tolist() for k in rng.integers(1, 9, size=n)]

    def tags(sentence: list[str]) -> list[str]:
        before = ["", *sentence[:-1]]
        pairs = zip(before, sentence, strict=True)
        return ["name" if b == "Mr" and w != "a" else "-" for b, w in pairs]

    return X, [tags(sentence) for sentence in X]


def numbers(rng: Generator, n: int = 20) -> tuple[list[Array], list[Array]]:
    X = [rng.standard_normal((k, 3)) for k in rng.integers(1, 9, size=n)]
    return X, [(np.cumsum(x[:, 0]) > 0).astype(int) + (x[:, 1] > 1) for x in X]


def weights_of(tagger: LSTMTagger) -> Array:
    return np.concatenate([p.flat for p in tagger._network.trainable])


@every_crf
@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "features"])
@pytest.mark.parametrize("bidirectional", [True, False], ids=["both-ways", "one-way"])
@pytest.mark.parametrize("lengths", [[5, 2, 4, 1], None], ids=["ragged", "equal"])
def test_gradients_are_slopes(
    rng: Generator, crf: bool, tokens: bool, bidirectional: bool, lengths: list[int] | None
) -> None:
    options = {"batch_first": True, "bidirectional": bidirectional, "dtype": "float64", "seed": 1}
    layer = fastlstm.LSTM(3, 4, 2, **options)
    vocabulary = {word: i for i, word in enumerate("abcdef", 1)} if tokens else None
    network = TaggingNetwork(layer, 3, np.random.RandomState(0), crf, vocabulary)
    x = rng.integers(1, 7, (4, 5)) if tokens else rng.normal(size=(4, 5, 3))
    steps = sum(lengths) if lengths else 20
    targets, weights = rng.integers(3, size=steps), np.full(steps, 0.3)
    given = None if lengths is None else np.array(lengths)

    _, grads = network.gradients(x, given, targets, weights)
    assert len(grads) == len(network.trainable) == 2 + crf + tokens
    for parameters, grad in zip(network.trainable, grads, strict=True):
        start = parameters.flat.copy()
        free = np.ones(start.size)
        if tokens and parameters is network.embedding:
            free[:3] = 0  # the unknown token stays
            assert not grad.flat[:3].any()
        for _ in range(3):
            direction, values = rng.normal(size=start.size) * free, []
            for shift in (1e-6, -1e-6):
                parameters.flat = start + shift * direction
                values.append(network.gradients(x, given, targets, weights)[0])
            parameters.flat = start
            slope = (values[0] - values[1]) / 2e-6
            assert grad.flat @ direction == pytest.approx(slope, rel=1e-6, abs=1e-8)


@every_crf
def test_the_loss_is_the_mean_over_steps(rng: Generator, crf: bool) -> None:
    X, y = sentences(rng)
    tagger = LSTMTagger(**{**SMALL, "max_iter": 1}, crf=crf, batch_size=7, learning_rate=0.0)
    tagger.fit(X, y)
    total = 0.0
    for sentence, tags in zip(X, y, strict=True):
        codes = np.searchsorted(tagger.classes_, tags)
        [logs] = tagger.predict_log_proba([sentence])
        if not crf:
            total -= logs[np.arange(len(codes)), codes].sum()
            continue
        tokens = np.array([[tagger.vocabulary_[word] for word in sentence]])
        out, _ = tagger.lstm_(tokens, embedding=tagger.embedding_["weight"])
        emissions = out[0].astype(float) @ tagger.out_["weight"].T + tagger.out_["bias"]
        total += tagger.crf_.loss(emissions, codes)[0]
    assert tagger.loss_curve_ == [pytest.approx(total / sum(map(len, X)), rel=1e-6)]


@every_crf
def test_it_learns(rng: Generator, crf: bool) -> None:
    X, y = sentences(rng, 200)
    tagger = LSTMTagger(16, crf=crf, random_state=0, max_iter=30).fit(X[:150], y[:150])
    assert tagger.score(X[150:], y[150:]) > 0.97
    assert 0.8 < tagger.sequence_score(X[150:], y[150:]) <= tagger.score(X[150:], y[150:])
    found = tagger.predict(X)
    assert [len(tags) for tags in found] == [len(sentence) for sentence in X]
    for tags, p in zip(found, tagger.predict_proba(X), strict=True):
        np.testing.assert_allclose(p.sum(axis=1), 1)
        assert crf or (tagger.classes_[p.argmax(axis=1)] == tags).all()


def test_scores_by_hand(rng: Generator) -> None:
    X, _ = sentences(rng)
    tagger = LSTMTagger(**SMALL).fit(*sentences(rng))
    found = tagger.predict(X)
    assert tagger.score(X, found) == tagger.sequence_score(X, found) == 1
    wrong = [tags.copy() for tags in found]
    for tags in wrong[:3]:
        tags[0] = "name" if tags[0] == "-" else "-"
    assert tagger.sequence_score(X, wrong) == 1 - 3 / len(X)
    assert tagger.score(X, wrong) == pytest.approx(1 - 3 / sum(map(len, X)))


def test_a_crf_knows_what_follows_what(rng: Generator) -> None:
    """The features tell nothing of every other step, but its neighbours do."""

    def example(n: int) -> tuple[Array, Array]:
        tags = (np.arange(n) + rng.integers(3)) % 3  # 0 1 2 0 1 2 ...
        x = np.eye(3)[tags] + rng.normal(0, 0.7, (n, 3))
        return x, tags

    pairs = [example(int(n)) for n in rng.integers(4, 12, size=120)]
    X, y = [x for x, _ in pairs], [tags for _, tags in pairs]
    # A layer of one unit cannot do it.
    options = {"hidden_size": 2, "bidirectional": False, "cell": "rnn", "random_state": 0}
    with_crf = LSTMTagger(**options).fit(X[:80], y[:80])
    without = LSTMTagger(**options, crf=False).fit(X[:80], y[:80])
    assert with_crf.score(X[80:], y[80:]) > without.score(X[80:], y[80:])
    transitions = with_crf.crf_.parameters["transitions"]
    assert (transitions.argmax(axis=1) == [1, 2, 0]).all()
    assert without.crf_ is None


def test_features_in_all_forms(rng: Generator) -> None:
    X, y = numbers(rng)
    tagger = LSTMTagger(**SMALL).fit(X, y)
    assert tagger.n_features_in_ == 3
    assert tagger.embedding_ is None
    assert not hasattr(tagger, "vocabulary_")
    whole = rng.standard_normal((5, 4, 3))
    assert tagger.predict(whole).shape == (5, 4)
    assert tagger.predict_proba(whole).shape == (5, 4, 3)
    for tags, x in zip(tagger.predict(whole), whole, strict=True):
        assert (tagger.predict([x])[0] == tags).all()
    LSTMTagger(**SMALL).fit(whole.astype(np.float32), (whole[..., 0] > 0)).predict(whole)


def test_tokens_in_all_forms(rng: Generator) -> None:
    words, y = sentences(rng)
    first = LSTMTagger(**SMALL).fit(words, y)
    for X in (
        tuple(map(tuple, words)),
        [np.array(sentence) for sentence in words],
        np.array([*map(np.array, words)], object),
    ):
        again = LSTMTagger(**SMALL).fit(X, y)
        np.testing.assert_array_equal(weights_of(first), weights_of(again))
    letters = LSTMTagger(**SMALL).fit(["ab", "b"], [[1, 2], [2]])
    assert letters.vocabulary_ == {"a": 1, "b": 2}
    LSTMTagger(**SMALL).fit([[5, 7], [7]], [[1, 2], [2]])


def test_unknown_tokens_are_alike_and_stay_unknown(rng: Generator) -> None:
    X, y = sentences(rng)
    tagger = LSTMTagger(**SMALL).fit(X, y)
    assert not tagger.embedding_["weight"][0].any()
    one, other = tagger.predict_proba([["Mr", "Blue", "a"], ["Mr", "Pink", "a"]])
    np.testing.assert_array_equal(one, other)
    before = dict(tagger.vocabulary_)
    tagger.partial_fit([["Blue", "a"]], [["name", "-"]])
    assert tagger.vocabulary_ == before
    assert not tagger.embedding_["weight"][0].any()


@every_crf
def test_partial_fit_goes_on(rng: Generator, crf: bool) -> None:
    X, y = sentences(rng)
    options = {**SMALL, "crf": crf, "num_layers": 2, "dropout": 0.3, "batch_size": 8}
    whole = LSTMTagger(**{**options, "max_iter": 4}).fit(X, y)
    parts = LSTMTagger(**options)
    for step in range(4):
        parts.partial_fit(X, y, classes=["-", "name"])
        parts = pickle.loads(pickle.dumps(parts)) if step == 1 else copy.deepcopy(parts)
    np.testing.assert_array_equal(weights_of(parts), weights_of(whole))
    assert parts.loss_curve_ == whole.loss_curve_


@pytest.mark.parametrize("scoring", [None, "loss", "f1_macro", "balanced_accuracy"])
def test_early_stopping(rng: Generator, scoring: Any) -> None:
    X, y = sentences(rng, 80)
    tagger = LSTMTagger(16, early_stopping=True, scoring=scoring, random_state=0, max_iter=30,
                        validation_fraction=0.25, n_iter_no_change=4)  # fmt: skip
    tagger.fit(X, y)
    assert tagger.validation_scores_ is not None
    assert len(tagger.validation_scores_) == tagger.n_iter_
    assert tagger.validation_scores_[0] < tagger.best_validation_score_
    assert tagger.score(X, y) > 0.9


def test_parameters_and_threads(rng: Generator) -> None:
    X, y = sentences(rng)
    tagger = LSTMTagger(**SMALL)
    assert clone(tagger).get_params() == tagger.get_params()
    assert set(tagger.get_params()) & {"n_timesteps", "shards", "output", "class_weight"} == set()
    before = fastlstm.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            fastlstm.set_num_threads(threads)
            found.append(weights_of(clone(tagger).fit(X, y)))
    finally:
        fastlstm.set_num_threads(before)
    np.testing.assert_array_equal(*found)
    assert repr(LSTMTagger(8, crf=False)) == "LSTMTagger(crf=False, hidden_size=8)"


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "features"])
def test_quantize(rng: Generator, tokens: bool) -> None:
    X, y = sentences(rng, 150) if tokens else numbers(rng, 150)
    tagger = LSTMTagger(16, random_state=0, max_iter=20).fit(X, y)
    small = tagger.quantize("int8")
    assert small.lstm_.weights_dtype == "int8"
    assert small.score(X, y) > tagger.score(X, y) - 0.05
    with pytest.raises(ValueError, match="partial_fit: expected weights of float32, got int8"):
        small.partial_fit(X, y)
    np.testing.assert_array_equal(tagger.predict_proba(X[:1])[0], tagger.predict_proba(X[:1])[0])


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([["a"], ["b", "c"]], [[1], [1]], r"y\[1\]: expected \(2,\), .* got \(1,\)"),
        ([["a"], []], [[1], []], r"X\[1\]: expected at least one token, got none"),
        ([[], ["a"]], [[], [1]], r"X\[0\]: expected at least one token, got none"),
        ([["a"], [["b"]]], [[1], [1]], r"X\[1\]: expected a sequence of tokens, each a"),
        ([["a", ["b"]]], [[1, 1]], r"X\[0\]: expected a sequence of tokens, each a word, .* got l"),
        ("ab", [1, 1], r"X: expected a list of sequences, got a text; put it in one: \['ab'\]"),
        ([], [], "X: expected at least one sequence, got none"),
        ([[0.5, 1.5]], [[1, 1]], "X: expected a list of sequences of tok.*, got a list of 2 axes"),
        ([["a"], ["b"]], [["N"], [1]], r"y\[1\]: expected targets of the kind of y\[0\], <U1, got"),
        ([["a"]], [[1], [2]], "inconsistent numbers of samples"),
        ([["a"]], None, "requires y to be passed"),
        (np.ones((3, 4)), np.ones((3, 4)), r"X: expected a list of sequences .*, got \(3, 4\)"),
        ([np.ones((3, 2)), np.ones((2, 3))], [[1] * 3, [1] * 2], r"X\[1\]: expected \(T, 2\)"),
        ([["a", "b"]], [[1.5, 2.5]], "Unknown label type"),
    ],
)
def test_bad_arguments(X: Any, y: Any, message: str) -> None:
    tagger = LSTMTagger(**SMALL)
    with pytest.raises((TypeError, ValueError), match=message):
        tagger.fit(X, y)
    assert not hasattr(tagger, "lstm_")


def test_a_single_tag(rng: Generator) -> None:
    X, y = sentences(rng)
    tagger = LSTMTagger(**SMALL).fit(X, [["-"] * len(tags) for tags in y])
    assert tagger.score(X, [["-"] * len(tags) for tags in y]) == 1


def test_forms_of_pandas_and_numpy(rng: Generator) -> None:
    pd = pytest.importorskip("pandas")
    X = ["ab", "ba", "aa"]
    y = [[*"xy"], [*"yx"], [*"xx"]]
    expected = LSTMTagger(**SMALL).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(
        LSTMTagger(**SMALL).fit(X, ["xy", "yx", "xx"]).predict_proba(X), expected
    )
    for form in (pd.Series(X), pd.Series([[*text] for text in X]), np.array([[*t] for t in X])):
        np.testing.assert_array_equal(
            LSTMTagger(**SMALL).fit(form, y).predict_proba(form), expected
        )


def test_a_sentence_that_is_not_in_a_list(rng: Generator) -> None:
    tagger = LSTMTagger(**SMALL).fit(*sentences(rng))
    with pytest.warns(UserWarning, match="none of its tokens, such as 'M', is in the vocabulary"):
        tagger.predict(["Mr", "Brown"])


def test_what_a_fit_before_left(rng: Generator) -> None:
    tagger = LSTMTagger(**SMALL).fit(*numbers(rng))
    assert tagger.n_features_in_ == 3
    tagger.fit(*sentences(rng))
    assert not hasattr(tagger, "n_features_in_")
    tagger.fit(*numbers(rng))
    assert not hasattr(tagger, "vocabulary_")
    with pytest.raises(ValueError, match="crf: expected True as before, got False"):
        tagger.set_params(crf=False, warm_start=True).fit(*numbers(rng))


def test_cross_validation(rng: Generator) -> None:
    """Of lists of lists, which scikit-learn takes for something else in a classifier."""
    X, y = sentences(rng)
    scores = cross_val_score(LSTMTagger(**SMALL), X, y, cv=KFold(2))
    arrays = [np.array(tags) for tags in y]
    assert len(scores) == len(cross_val_score(LSTMTagger(**SMALL), X, arrays, cv=2)) == 2
    search = GridSearchCV(LSTMTagger(**SMALL), {"crf": [True, False]}, cv=2).fit(X, arrays)
    assert search.best_score_ > 0


def test_bad_later_arguments(rng: Generator) -> None:
    X, y = sentences(rng)
    with pytest.raises(NotFittedError):
        LSTMTagger().predict(X)
    tagger = LSTMTagger(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match="X: expected sequences of tokens, as in fit, got feat"):
        tagger.predict([np.ones((3, 2))])
    with pytest.raises(ValueError, match=r"X: expected features \(T, F\), as in fit, got sequ"):
        LSTMTagger(**SMALL).fit(*numbers(rng)).predict(X)
    good = tagger.predict(X)
    with pytest.raises(ValueError, match="requires y"):
        tagger.fit([["other", "words"]], None)
    for before, after in zip(good, tagger.predict(X), strict=True):
        np.testing.assert_array_equal(before, after)
    with pytest.raises(ValueError, match=r"y: expected labels of .* got"):
        tagger.partial_fit([["a"]], [["verb"]])
    for option, message in {
        "embedding_size": "embedding_size: expected at least 1, got 0",
        "hidden_size": "hidden_size: expected at least 1, got 0",
        "batch_size": "batch_size: expected at least 1, got 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            LSTMTagger(**{**SMALL, option: 0}).fit(X, y)
