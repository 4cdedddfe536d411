"""A language model beside the beam search of CTC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.compare import same_bits

from fastlstm.heads import ctc_decode
from fastlstm.models import LanguageModel, _prefixes

SYMBOLS = "-badc"  # not in the order of the alphabet


@pytest.fixture(scope="module", params=["lstm", "gru", "rnn", "slstm"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    model = LanguageModel("abcd .", hidden_size=8, cell=request.param, num_layers=2, seed=3)
    model.parameters.flat = 4 * model.parameters.flat  # probabilities that differ
    return model


def test_probabilities_are_those_of_the_texts(model: LanguageModel) -> None:
    prefixes = model.prefix_model(SYMBOLS, "a. ")
    for prefix in ((), (1,), (1, 4), (1, 4, 4), (3,), (3, 2)):
        before = "a. " + "".join(SYMBOLS[s] for s in prefix)
        [expected] = model._log_probabilities([before], [list(SYMBOLS[1:])])
        logs = prefixes(prefix)
        np.testing.assert_allclose(logs[1:], expected, rtol=1e-5)
        assert logs[0] == -np.inf


def test_what_is_asked_before_changes_no_bit(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = model.prefix_model(SYMBOLS, ". "), model.prefix_model(SYMBOLS, ". ")
    asked: list[tuple[int, ...]] = [(), (2,), (2, 3), (1,), (1, 1), (2, 3, 4), (1, 1, 2), (2,)]
    in_turn = [one(prefix) for prefix in asked]
    for prefix, logs in reversed(list(zip(asked, in_turn, strict=True))):
        assert same_bits(logs, other(prefix))
    monkeypatch.setattr(_prefixes, "_MOST_STATES", 1)
    for prefix, logs in zip(asked, in_turn, strict=True):
        assert same_bits(logs, one(prefix))
    assert len(one._states) == 1


def test_the_blank_is_anywhere_and_not_read(model: LanguageModel) -> None:
    first = model.prefix_model("?ab", ".")((1, 2))
    last = model.prefix_model("ab?", ".", blank=2)((0, 1))
    assert same_bits(first[1:], last[:2])
    assert last[2] == -np.inf


def test_a_row_begins_with_the_weights_of_now() -> None:
    model = LanguageModel("ab ", hidden_size=4, seed=1)
    prefixes = model.prefix_model("-ab", " ")
    before = prefixes(()), prefixes((1,))
    model.lstm.parameters.flat = 2 * model.lstm.parameters.flat
    after = prefixes(()), prefixes((1,))
    fresh = model.prefix_model("-ab", " ")
    assert same_bits(after[1], fresh((1,)))
    assert not same_bits(before[1], after[1])


def test_it_decides_what_the_signal_leaves_open() -> None:
    text = "abcabcabc " * 300
    model = LanguageModel(text, hidden_size=16, seed=0)
    model.fit(text, steps=100, batch_size=8, lr=0.03)
    symbols, target = "-abc", [1, 2, 3, 1, 2, 3]
    p = np.full((12, 4), 0.01)
    p[1::2, 0] = 1
    p[np.arange(0, 12, 2), target] = 1
    p[4] = [0.01, 0.6, 0.01, 0.5]  # a third letter that looks like an a
    decoded = [
        "".join(symbols[s] for s in ctc_decode(np.log(p), beam=8, model=known))
        for known in (None, model.prefix_model(symbols, " "))
    ]
    assert decoded == ["abaabc", "abcabc"]


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (("-a!", " "), {}, ValueError, "symbols: '!' .character 3. is not one of the 3"),
        (("", " "), {}, ValueError, "symbols: expected at least one character"),
        ((["-", "a"], " "), {}, TypeError, "symbols: expected str, got list"),
        (("-ab", ""), {}, ValueError, "before: expected at least one character"),
        (("-ab", "?"), {}, ValueError, "before: '[?]' .character 1. is not one of"),
        (("-ab", 3), {}, TypeError, "before: expected str, got int"),
        (("-ab", " "), {"blank": 3}, ValueError, "blank: expected at most 2, got 3"),
        (("-ab", " "), {"blank": 1.0}, TypeError, "blank: expected an integer"),
    ],
)
def test_refused(args: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LanguageModel("ab ", hidden_size=2).prefix_model(*args, **options)
