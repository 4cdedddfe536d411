"""Decoding of CTC: the best path, and the best symbols against all that there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from support.paths import symbol_probabilities

from fastlstm._core.ctc_beam import search
from fastlstm.heads import ctc_decode
from fastlstm.reference.ctc import beam_search, collapsed

Array = NDArray[Any]


def softmax(logits: Array) -> Array:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("blank", [0, 2])
def test_best_path(rng: Generator, dtype: str, blank: int) -> None:
    logits = rng.standard_normal((40, 7, 4)).astype(dtype)
    lengths = np.array([40, 0, 1, 17, 40, 2, 30])
    found = ctc_decode(logits, lengths, blank=blank)
    assert isinstance(found, list)
    for b, symbols in enumerate(found):
        path = logits[: lengths[b], b].argmax(axis=1)
        assert symbols.tolist() == collapsed(path, blank)
    assert ctc_decode(logits[:, 0], blank=blank).tolist() == found[0].tolist()


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("T", [1, 2, 4, 6])
def test_wide_beam_finds_the_best(rng: Generator, T: int, blank: int) -> None:
    """The best of all sequences of symbols, which is often not that of the best path."""
    differ = 0
    for _ in range(20):
        logits = rng.standard_normal((T, 3))
        all_of_them = symbol_probabilities(softmax(logits), blank)
        best = max(all_of_them, key=all_of_them.__getitem__)
        assert tuple(ctc_decode(logits, beam=3**T, blank=blank)) == best
        differ += best != tuple(ctc_decode(logits, blank=blank))
    assert differ > 0 or T == 1


@pytest.mark.parametrize(("weight", "bonus"), [(1.0, 0.0), (0.4, 1.1), (2.0, -0.5)])
def test_model(rng: Generator, weight: float, bonus: float) -> None:
    """A trigram model, against all sequences; asked once for each prefix, its beginning first."""
    T, K, blank = 5, 3, 1
    differ = 0
    for _ in range(20):
        table = np.log(rng.dirichlet(np.ones(K - 1), (K, K)))
        table = np.insert(table, blank, np.nan, axis=-1)  # is not read
        asked: list[tuple[int, ...]] = []

        def model(prefix: tuple[int, ...], table: Array = table, asked: Any = asked) -> Array:
            assert prefix not in asked
            assert not prefix or prefix[:-1] in asked
            asked.append(prefix)
            before = (blank, blank, *prefix)
            return table[before[-2], before[-1]]

        def score(symbols: tuple[int, ...], p: float, table: Array = table) -> float:
            before = (blank, blank, *symbols)
            logs = [table[before[i], before[i + 1], s] for i, s in enumerate(symbols)]
            return float(np.log(p) + weight * sum(logs) + bonus * len(symbols))

        logits = rng.standard_normal((T, K))
        p = symbol_probabilities(softmax(logits), blank)
        best = max(p, key=lambda symbols: score(symbols, p[symbols]))
        options: Any = {"beam": 3**T, "blank": blank, "symbol_bonus": bonus}
        found = ctc_decode(logits, model=model, model_weight=weight, **options)
        assert tuple(found) == best
        differ += tuple(ctc_decode(logits, beam=3**T, blank=blank)) != best
    assert differ > 0


def test_impossible_for_the_model() -> None:
    """A symbol that the model gives no chance is not chosen, however clear it is."""
    logits = np.array([[0.0, 9, 1], [9, 0, 0], [0, 9, 1]])

    def no_repeats(prefix: tuple[int, ...]) -> Array:
        logs = np.log([1, 0.5, 0.5])
        if prefix:
            logs[prefix[-1]] = -np.inf
        return logs

    assert ctc_decode(logits, beam=9).tolist() == [1, 1]
    found = ctc_decode(logits, beam=9, model=no_repeats).tolist()
    assert 0 < len(found) <= 2
    assert found != [1, 1]
    one = np.full(3, -np.inf)
    assert ctc_decode(logits, beam=9, model=lambda prefix: one).tolist() == []
    assert ctc_decode(logits, beam=9, model=no_repeats, model_weight=0).tolist() == [1, 1]


def test_bonus() -> None:
    logits = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert ctc_decode(logits, symbol_bonus=-1.0).tolist() == []
    assert ctc_decode(logits, beam=4, symbol_bonus=-1.0).tolist() == []
    assert ctc_decode(logits, beam=4, symbol_bonus=1.0).tolist() == [1]


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("blank", [0, 2])
def test_narrow_beams(rng: Generator, width: int, blank: int) -> None:
    """As defined: what leaves the beam may come back, and of equal beginnings the first stays."""
    for _ in range(50):
        logits = rng.standard_normal((12, 3))
        found = tuple(ctc_decode(logits, beam=width, blank=blank, symbol_bonus=1e-300))
        assert found == beam_search(softmax(logits), width, blank)
        y = rng.permuted(np.tile([0.125, 0.125, 0.25, 0.5], (12, 1)), axis=1)  # many are equal
        assert search(y, blank, width, 1.0) == beam_search(y, width, blank)


def test_long_rows(rng: Generator) -> None:
    """Probabilities far below the least double: that of the best path is e^-2000."""
    logits = rng.standard_normal((1500, 2, 8))
    found = ctc_decode(logits, [1500, 900], beam=16)
    for b, length in enumerate([1500, 900]):
        assert tuple(found[b]) == beam_search(softmax(logits[:length, b]), 16)
        assert len(found[b]) > 300


@pytest.mark.parametrize("less", [0, 600, 700, 5000])
def test_all_that_is_likely_is_forbidden(less: float) -> None:
    """The best probability of a step may be denormal, or none at all: the next ones still count."""
    logits = np.array([[-12.0 - less, 0, -5], [-5, -5, 0], [-5, 3, 0]])

    def model(prefix: tuple[int, ...]) -> Array:
        return np.array([0, -0.1, -0.1]) if prefix else np.array([0, -20 - less, -20 - less])

    expected = [] if less > 1000 else [1, 2, 1]
    assert ctc_decode(logits, beam=4, model=model).tolist() == expected


def test_a_step_where_no_symbol_is_possible() -> None:
    y = np.array([[0.0, 0.5, 0.5], [0.0, 0.0, 0.0], [0.0, 0.2, 0.8]])
    assert search(y, 0, 4, 1.0) == beam_search(y, 4)


def test_views_are_read() -> None:
    wide = np.broadcast_to(np.log([0.1, 0.2, 0.3, 0.4]), (6, 2, 4))
    expected = [s.tolist() for s in ctc_decode(wide.copy(), beam=3)]
    for x in (wide, wide.copy()[::-1], np.asfortranarray(wide)):
        assert [s.tolist() for s in ctc_decode(x, beam=3)] == expected


def test_weights_of_a_model_that_are_too_large() -> None:
    """Logarithms a little above 0 are those of 1, rounded."""
    x = np.zeros((3, 3))
    rounded = ctc_decode(x, beam=4, model=lambda prefix: np.full(3, 1e-4), model_weight=1e8)
    exact = ctc_decode(x, beam=4, model=lambda prefix: np.zeros(3), model_weight=1e8)
    assert rounded.tolist() == exact.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("beam", [1, 5])
def test_logits_that_are_not_finite(value: float, beam: int) -> None:
    """No crash, and symbols that there are."""
    logits = np.zeros((6, 3))
    logits[2, 1] = value
    with np.errstate(invalid="ignore"):
        found = ctc_decode(logits, beam=beam)
        assert set(found.tolist()) <= {1, 2}
        logits[3] = value
        assert set(ctc_decode(logits, beam=beam).tolist()) <= {1, 2}


def test_nothing() -> None:
    assert ctc_decode(np.zeros((0, 3))).tolist() == []
    assert ctc_decode(np.zeros((0, 3)), beam=3).tolist() == []
    assert ctc_decode(np.zeros((4, 0, 3))) == ctc_decode(np.zeros((4, 0, 3)), beam=3) == []
    assert not len(ctc_decode(np.ones((4, 2, 3)), [0, 2], beam=3)[0])


Z = np.zeros((4, 3))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beam": 0}, ValueError, "beam: expected at least 1, got 0"),
        ({"beam": 2.0}, TypeError, "beam: expected an integer, got float"),
        ({"beam": 1 << 60}, ValueError, "beam: too large"),
        ({"blank": 3}, ValueError, "blank: expected at most 2, got 3"),
        ({"lengths": 5}, ValueError, "lengths: expected integers from 0 to 4, got 5"),
        ({"model": 3}, TypeError, "model: expected a callable, got int"),
        ({"model_weight": -1}, ValueError, "model_weight: expected a number >= 0, got -1"),
        ({"symbol_bonus": np.inf}, ValueError, "symbol_bonus: expected a finite number, got inf"),
        ({"symbol_bonus": 101}, ValueError, "symbol_bonus: expected from -100 to 100, got 101"),
        ({"model": lambda p: np.zeros(2)}, ValueError, r"model: expected 3 log-prob.* \(2,\)"),
        ({"model": lambda p: np.ones(3)}, ValueError, "model: expected log-probabilities, got 1.0"),
        ({"model": lambda p: np.full(3, np.nan)}, ValueError, "model: expected log-probabilities"),
    ],
)
def test_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        ctc_decode(Z, **options)


def test_errors_of_the_model_pass_through() -> None:
    def model(prefix: tuple[int, ...]) -> Array:
        raise KeyError(prefix)

    with pytest.raises(KeyError):
        ctc_decode(Z, beam=2, model=model)
