"""Connectionist temporal classification (Graves et al., 2006), row by row, in logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def collapsed(path: Array, blank: int) -> list[int]:
    """The symbols that a path of one symbol a step stands for: repeats are one, blanks none."""
    pairs = zip(path, [blank, *path], strict=False)
    return [int(symbol) for symbol, before in pairs if symbol not in (before, blank)]


def loss(logits: Array, target: Array, blank: int = 0) -> tuple[float, Array]:
    """-log p(target [S]) for a row of logits [T, K], and its gradient.

    Infinity and zeros if no path stands for the target.
    """
    T = len(logits)
    log_y = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    states = np.full(2 * len(target) + 1, blank)
    states[1::2] = target
    skips = np.zeros(len(states), bool)  # entered from the state before the last, too
    skips[3::2] = states[3::2] != states[1:-2:2]
    alpha = np.full((T + 1, len(states)), -np.inf)  # before the first step, and after each
    alpha[0, 0] = 0
    for t in range(T):
        alpha[t + 1] = _entered(alpha[t], skips) + log_y[t, states]
    beta = np.full((T + 1, len(states)), -np.inf)  # of all steps that follow
    beta[T, -2:] = 0
    backward = np.zeros_like(skips)
    backward[2:] = skips[2:][::-1]
    for t in range(T, 0, -1):
        beta[t - 1] = _entered((beta[t] + log_y[t - 1, states])[::-1], backward)[::-1]
    log_p = float(np.logaddexp.reduce(alpha[T] + beta[T]))
    if log_p == -np.inf:
        return np.inf, np.zeros_like(logits)
    dlogits = np.exp(log_y)
    for t in range(T):
        np.subtract.at(dlogits[t], states, np.exp(alpha[t + 1] + beta[t + 1] - log_p))
    return -log_p, dlogits


def _entered(log_p: Array, skips: Array) -> Array:
    """The sums of what enters each state: from itself, and from one and two states before."""
    one, two = (np.append(np.full(n, -np.inf), log_p)[: len(log_p)] for n in (1, 2))
    entered: Array = np.logaddexp(np.logaddexp(log_p, one), np.where(skips, two, -np.inf))
    return entered


def beam_search(y: Array, width: int, blank: int = 0) -> tuple[int, ...]:
    """The most probable symbols for probabilities y [T, K], of those that a beam finds.

    After each step the `width` most probable beginnings are kept, the first of equal ones: those
    that were kept before, in their order, and then these with one symbol more.
    """
    # p of the paths that end in a blank, and of those that end in the last symbol.
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}
    for row in y:
        found: dict[tuple[int, ...], tuple[float, float]] = {}
        for prefix, (of_blank, of_symbol) in beam.items():
            repeats = of_symbol * row[prefix[-1]] if prefix else 0.0
            found[prefix] = ((of_blank + of_symbol) * row[blank], repeats)
        for prefix, (of_blank, of_symbol) in beam.items():
            for symbol in (symbol for symbol in range(len(row)) if symbol != blank):
                before = of_blank if prefix[-1:] == (symbol,) else of_blank + of_symbol
                kept, own = found.get((*prefix, symbol), (0.0, 0.0))
                found[(*prefix, symbol)] = (kept, own + before * row[symbol])
        best = sorted(found, key=lambda prefix: -sum(found[prefix]))[:width]
        largest = sum(found[best[0]])
        if largest > 0:  # or no symbol is possible here: the step is passed over
            beam = {p: (found[p][0] / largest, found[p][1] / largest) for p in best}
    return max(beam, key=lambda prefix: sum(beam[prefix]))
