"""Counting right pronouns: models that are right, wrong, toss a coin or know nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

from fastlstm.cli import _memory
from fastlstm.cli._memory import COLUMNS, Question, questions
from fastlstm.cli._stories import stories
from fastlstm.models import LanguageModel

Texts = Sequence[Sequence[str]]


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    return questions(list(islice(stories(3), 4000)))


def test_questions_are_as_a_model_has_read_the_story() -> None:
    story = next(stories(3))
    for question, pronoun in zip(questions([story]), story.pronouns, strict=True):
        text = question.before + question.candidates[question.right]
        assert ("\n" + story.text).startswith(text)
        assert len(set(question.candidates)) == 3
        assert question.right == pronoun.kind


def test_columns_count_so_many_words(asked: list[Question]) -> None:
    told = list(islice(stories(3), 4000))
    distances = [p.distance for story in told for p in story.pronouns]
    few = questions(told[:50])
    pairs = zip(few, distances, strict=False)
    least = dict(zip(COLUMNS, (2, 6, 11, 21, 41), strict=True))
    for question, distance in pairs:
        name = list(COLUMNS)[question.column]
        assert least[name] <= distance <= COLUMNS[name]
    counts = np.bincount([q.column for q in asked])
    assert counts.tolist() == [_memory._MOST] * 5


def test_right_wrong_and_a_coin(asked: list[Question], rng: Generator) -> None:
    kinds = np.array([q.right for q in asked])
    right = np.eye(3)[kinds]

    def score(value: Any) -> Any:
        return lambda before, after: value

    assert _memory.right(score(right), asked) == [1.0] * 5
    assert _memory.right(score(-right), asked) == [0.0] * 5
    one_wrong = np.eye(3)[(kinds + 1) % 3]
    assert _memory.right(score(right + one_wrong), asked) == [0.5] * 5  # it cannot say which
    coin = np.where(rng.random(len(asked)) < 0.5, 2.0, 0.0)[:, None] * right + one_wrong
    assert _memory.right(score(coin), asked) == pytest.approx([0.5] * 5, abs=0.1)
    assert _memory.right(score(0 * right), asked) == pytest.approx([1 / 3] * 5)


def test_guessing_says_what_is_commonest(asked: list[Question]) -> None:
    some = [q._replace(right=i % 4 // 2, column=i % 5) for i, q in enumerate(asked[:2000])]
    some[::10] = [q._replace(right=0) for q in some[::10]]
    kinds = np.array([q.right for q in some])
    columns = np.array([q.column for q in some])
    expected = [max(np.mean(kinds[columns == c] == k) for k in range(3)) for c in range(5)]
    assert _memory.guessed(some) == pytest.approx(expected)


def test_log_probabilities_are_those_of_whole_words() -> None:
    """In rows of other lengths as character by character."""
    text = "Anna lost her hat. Tom lost his hat.\n"
    model = LanguageModel(text, hidden_size=12, seed=1)
    before = ["\nAnna lost ", "\n", "Tom lost his hat. Anna lost "]
    after = [("her ", "his "), ("Tom", "Anna"), ("his hat.", "h")]
    got = model._log_probabilities(before, after)
    for row, start in enumerate(before):
        for column, end in enumerate(after[row]):
            # bits_per_character is the mean over all but the first character
            both, first = (
                -np.log(2) * (len(t) - 1) * (model.bits_per_character(t) if len(t) > 1 else 0)
                for t in (start + end, start)
            )
            assert got[row, column] == pytest.approx(both - first, abs=1e-4)


def test_the_table_lines_up() -> None:
    rows = {"LSTM": [1.0, 0.987, 0.5, 0.0, 0.3], "guessing": [0.34] * 5}
    head, lstm, guessing = _memory.table(rows).split("\n")
    assert head.split() == ["right", "pronoun", *COLUMNS, "words"]
    assert lstm.split() == ["LSTM", "100%", "99%", "50%", "0%", "30%"]
    assert head.index("2-5") + 3 == lstm.index("100%") + 4 == guessing.index("34%") + 3
