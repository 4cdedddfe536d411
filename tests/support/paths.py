"""Sums over all paths, counted one by one: what the recursions of the heads are compared with."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.reference import crf as reference_crf
from fastlstm.reference import ctc as reference_ctc

Array = NDArray[Any]


def tag_scores(emissions: Array, scores: reference_crf.Scores) -> dict[tuple[int, ...], float]:
    """The score of every row of tags for emissions [T, K]."""
    T, K = emissions.shape
    score = reference_crf.path_score
    return {
        path: score(emissions, scores, np.array(path, int))
        for path in itertools.product(range(K), repeat=T)
    }


def symbol_probabilities(y: Array, blank: int) -> dict[tuple[int, ...], float]:
    """p of every sequence of symbols that paths through probabilities y [T, K] stand for."""
    T, K = y.shape
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(K), repeat=T):
        symbols = tuple(reference_ctc.collapsed(np.array(path), blank))
        p = float(np.prod(y[np.arange(T), list(path)]))
        found[symbols] = found.get(symbols, 0.0) + p
    return found


def slopes(f: Any, x: Array, step: float = 1e-5) -> Array:
    """The gradient of f() in an array that it reads, by central differences."""
    found = np.empty_like(x)
    for place in np.ndindex(x.shape):
        before = x[place]
        x[place] = before + step
        above = f()
        x[place] = before - step
        found[place] = (above - f()) / (2 * step)
        x[place] = before
    return found
