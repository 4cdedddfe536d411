"""The definitions of the CRF and of CTC, against all paths counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator
from support.paths import slopes, symbol_probabilities, tag_scores

from fastlstm.reference import crf, ctc

SIZES = [(1, 1), (1, 3), (2, 4), (5, 3), (4, 4)]


def random_scores(rng: Generator, K: int) -> crf.Scores:
    return crf.Scores(*(rng.standard_normal(shape) for shape in ((K, K), K, K)))


@pytest.mark.parametrize(("T", "K"), SIZES)
def test_crf(rng: Generator, T: int, K: int) -> None:
    emissions, scores = rng.standard_normal((T, K)), random_scores(rng, K)
    paths = tag_scores(emissions, scores)
    weights = {path: np.exp(score) for path, score in paths.items()}
    z = sum(weights.values())
    p = np.zeros((T, K))
    for path, weight in weights.items():
        p[np.arange(T), path] += weight / z
    np.testing.assert_allclose(crf.marginals(emissions, scores), p, atol=1e-12)
    for path in list(paths)[:: max(1, len(paths) // 7)]:
        nll = crf.loss(emissions, scores, np.array(path))[0]
        assert nll == pytest.approx(-np.log(weights[path] / z), abs=1e-12)
    best = max(paths, key=paths.__getitem__)
    assert tuple(crf.best_path(emissions, scores)) == best


def test_gradients_of_the_crf(rng: Generator) -> None:
    emissions, scores = rng.standard_normal((4, 3)), random_scores(rng, 3)
    tags = np.array([2, 0, 0, 1])

    def loss() -> float:
        return crf.loss(emissions, scores, tags)[0]

    _, demissions, grads = crf.loss(emissions, scores, tags)
    np.testing.assert_allclose(demissions, slopes(loss, emissions), atol=1e-9)
    for ours, array in zip(grads, scores, strict=True):
        np.testing.assert_allclose(ours, slopes(loss, array), atol=1e-9)


def test_equal_paths() -> None:
    """The lowest tags, the last one first."""
    zeros = crf.Scores(np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    emissions = np.array([[0.0, 0], [0, 1], [0, 0]])
    assert crf.best_path(emissions, zeros).tolist() == [0, 1, 0]
    changes = crf.Scores(np.array([[0.0, 1], [1, 0]]), np.zeros(2), np.zeros(2))
    assert crf.best_path(np.zeros((4, 2)), changes).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(("T", "K", "blank"), [(1, 2, 0), (3, 3, 2), (5, 3, 1), (4, 4, 0)])
def test_ctc(rng: Generator, T: int, K: int, blank: int) -> None:
    logits = rng.standard_normal((T, K))
    y = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = symbol_probabilities(y, blank)
    assert sum(found.values()) == pytest.approx(1)
    for target, p in found.items():
        nll = ctc.loss(logits, np.array(target, int), blank)[0]
        assert nll == pytest.approx(-np.log(p), abs=1e-12)
    a = int(blank == 0)
    nll, dlogits = ctc.loss(logits, np.full(T, a), blank)  # repeats need more steps
    assert (nll == np.inf) == (T > 1)
    assert dlogits.any() == (T == 1)


def test_gradient_of_ctc(rng: Generator) -> None:
    logits = rng.standard_normal((6, 3))
    for target in ([], [1], [2, 2], [1, 2, 1], [1, 1, 2]):
        symbols = np.array(target, int)
        dlogits = ctc.loss(logits, symbols)[1]
        numeric = slopes(lambda symbols=symbols: ctc.loss(logits, symbols)[0], logits)
        np.testing.assert_allclose(dlogits, numeric, atol=1e-9)
