"""Sequences of tokens: words, characters, anything that a dictionary can have as a key."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastlstm.sklearn._sequences import Sequences

Vocabulary = dict[Hashable, int]

UNKNOWN = 0  # the number of all tokens that the vocabulary does not have


@dataclass(frozen=True)
class Tokens(Sequences):
    """Sequences whose steps are numbers of tokens, (N,)."""

    vocabulary: Vocabulary = field(default_factory=dict)


def are_tokens(X: Any) -> bool:
    """Whether the items of a list are sequences of tokens, not of features: by the first of them.

    A list of texts is one of characters.  Floating-point numbers are features.
    """
    if not isinstance(X, list | tuple) or not len(X):
        return False
    if isinstance(X[0], Sequence) and any(isinstance(token, str) for token in X[0]):
        return True  # what else there is among them is an error
    if not _is_sequence(X[0]):
        return False
    return not len(X[0]) or not all(isinstance(x, float | np.floating) for x in X[0])


def _is_sequence(item: Any) -> bool:
    """Whether it is a sequence of tokens."""
    if isinstance(item, np.ndarray):
        return item.ndim == 1
    if not isinstance(item, Sequence):
        return False
    return all(isinstance(token, Hashable) and not isinstance(token, tuple) for token in item)


def read_tokens(X: Sequence[Any], vocabulary: Vocabulary | None) -> Tokens:
    """The numbers of the tokens of each sequence.

    Without a vocabulary they get numbers from 1 on, in the order in which they come.

    Raises
    ------
    TypeError, ValueError
        An item is no sequence of tokens, or empty.
    """
    for i, item in enumerate(X):
        if not _is_sequence(item):
            got = type(item).__name__
            raise TypeError(
                f"X[{i}]: expected a sequence of tokens, each a word, a character or a number, "
                f"got {got}"
            )
        if not len(item):
            raise ValueError(f"X[{i}]: expected at least one token, got none")
    if vocabulary is None:
        tokens = dict.fromkeys(token for sequence in X for token in sequence)
        vocabulary = {token: i for i, token in enumerate(tokens, UNKNOWN + 1)}
    codes = [vocabulary.get(token, UNKNOWN) for sequence in X for token in sequence]
    if not any(codes):
        warnings.warn(
            f"X: none of its tokens, such as {X[0][0]!r}, is in the vocabulary; a sequence of "
            "tokens alone has to be in a list",
            UserWarning,
            stacklevel=2,
        )
    lengths = np.array([len(sequence) for sequence in X], np.intp)
    starts = np.cumsum(lengths) - lengths
    return Tokens(np.array(codes, np.intp), starts, lengths, True, vocabulary)
