"""How far back a language model remembers: right pronouns by their distance, counted.

At each pronoun of stories it has not read, a model is asked which of he, she and it is likeliest to
go on with, given all of the story before: log p of the whole word and of the character behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.cli._stories import PRONOUNS, Story

# The last distance, in words, that a column counts.
COLUMNS = {"2-5": 5, "6-10": 10, "11-20": 20, "21-40": 40, "more": 10**9}

_MOST = 300  # questions of a column

Score = Callable[[Sequence[str], Sequence[Sequence[str]]], NDArray[np.float64]]
"""log p of each text of a row of the second argument, behind that of the first."""


class Question(NamedTuple):
    """A pronoun to guess."""

    before: str
    candidates: tuple[str, ...]
    """A pronoun of each kind, and the character behind it."""
    right: int
    column: int


def questions(stories: Sequence[Story]) -> list[Question]:
    """The first pronouns of stories, as many of each column as it takes at most."""
    found: list[Question] = []
    counts = [0] * len(COLUMNS)
    for story in stories:
        for pronoun in story.pronouns:
            column = int(np.searchsorted(list(COLUMNS.values()), pronoun.distance))
            if counts[column] < _MOST:
                counts[column] += 1
                found.append(
                    _question(story.text, pronoun.place, pronoun.form, pronoun.kind, column)
                )
    return found


def _question(text: str, place: int, form: int, kind: int, column: int) -> Question:
    words: tuple[str, ...] = PRONOUNS[form]
    if text[place].isupper():
        words = tuple(word.capitalize() for word in words)
    behind = text[place + len(words[kind])]
    # A line ends before a story: it is what a model has read before each.
    return Question("\n" + text[:place], tuple(w + behind for w in words), kind, column)


def right(score: Score, asked: Sequence[Question]) -> list[float]:
    """The part that is right in each column; of n that are likeliest, each counts for 1/n."""
    log_p = score([q.before for q in asked], [q.candidates for q in asked])
    likeliest = log_p == log_p.max(axis=1, keepdims=True)
    points = likeliest[range(len(asked)), [q.right for q in asked]] / likeliest.sum(axis=1)
    return _means(points, asked)


def guessed(asked: Sequence[Question]) -> list[float]:
    """The same of who always says what is commonest in a column."""
    kinds = np.eye(3)[[q.right for q in asked]]
    return [
        max(means) for means in zip(*(_means(kinds[:, k], asked) for k in range(3)), strict=True)
    ]


def table(rows: dict[str, list[float]]) -> str:
    """Lines of percentages by distance."""
    lines = ["right pronoun" + "".join(f"{name:>8}" for name in COLUMNS) + "  words"]
    lines += [f"{who:13}" + "".join(f"{p:8.0%}" for p in parts) for who, parts in rows.items()]
    return "\n".join(lines)


def _means(points: NDArray[np.float64], asked: Sequence[Question]) -> list[float]:
    columns = np.array([q.column for q in asked])
    return [float(points[columns == column].mean()) for column in range(len(COLUMNS))]
