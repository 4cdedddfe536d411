"""A linear-chain conditional random field, row by row, in logarithms."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Scores(NamedTuple):
    """Scores of pairs of tags (from, to) [K, K], of first tags [K], and of last tags [K]."""

    transitions: Array
    start: Array
    end: Array


def path_score(emissions: Array, scores: Scores, tags: Array) -> float:
    """The score of the tags [T] of a row of emissions [T, K]; that of no tags is 0."""
    if not len(tags):
        return 0.0
    score = scores.start[tags[0]] + scores.end[tags[-1]]
    score += emissions[np.arange(len(tags)), tags].sum()
    return float(score + scores.transitions[tags[:-1], tags[1:]].sum())


def path_sums(emissions: Array, scores: Scores) -> tuple[Array, Array, float]:
    """Logarithms of sums of e^score over paths through a row [T, K] of at least one step.

    Returns
    -------
    alpha, beta : (T, K) arrays
        Of all beginnings of paths that are in a tag at a step, with what that tag scores there, and
        of all that can follow it.
    log_z : float
        Of all paths.
    """
    alpha, beta = np.empty_like(emissions), np.empty_like(emissions)
    alpha[0] = scores.start + emissions[0]
    for t in range(1, len(emissions)):
        paths = alpha[t - 1][:, None] + scores.transitions
        alpha[t] = np.logaddexp.reduce(paths, axis=0) + emissions[t]
    beta[-1] = scores.end
    for t in range(len(emissions) - 1, 0, -1):
        beta[t - 1] = np.logaddexp.reduce(scores.transitions + (emissions[t] + beta[t]), axis=1)
    return alpha, beta, float(np.logaddexp.reduce(alpha[-1] + scores.end))


def marginals(emissions: Array, scores: Scores) -> Array:
    """p(tag at a step) [T, K] of a row [T, K]; zeros if it has no possible path."""
    if not len(emissions):
        return np.zeros_like(emissions)
    alpha, beta, log_z = path_sums(emissions, scores)
    return np.zeros_like(emissions) if log_z == -np.inf else np.exp(alpha + beta - log_z)


def loss(emissions: Array, scores: Scores, tags: Array) -> tuple[float, Array, Scores]:
    """-log p(tags) of a row [T, K], and its gradients; infinity if the tags are impossible.

    Those of a row without any possible path are zeros.
    """
    demissions = marginals(emissions, scores)
    grads = Scores(*(np.zeros_like(array) for array in scores))
    if not len(tags):
        return 0.0, demissions, grads
    alpha, beta, log_z = path_sums(emissions, scores)
    if log_z == -np.inf:
        return np.inf, demissions, grads
    for t in range(1, len(tags)):
        paths = alpha[t - 1][:, None] + scores.transitions + (emissions[t] + beta[t])
        grads.transitions[...] += np.exp(paths - log_z)
        grads.transitions[tags[t - 1], tags[t]] -= 1
    demissions[np.arange(len(tags)), tags] -= 1
    grads.start[...], grads.end[...] = demissions[0], demissions[-1]
    return log_z - path_score(emissions, scores, tags), demissions, grads


def best_path(emissions: Array, scores: Scores) -> Array:
    """The tags [T] with the largest score: of equal ones the lowest, the last tag first."""
    if not len(emissions):
        return np.zeros(0, np.intp)
    best = [scores.start + emissions[0]]
    for e in emissions[1:]:
        best.append((best[-1][:, None] + scores.transitions).max(axis=0) + e)
    tags = [int(np.argmax(best[-1] + scores.end))]
    for score in best[-2::-1]:
        tags.append(int(np.argmax(score + scores.transitions[:, tags[-1]])))
    return np.array(tags[::-1], np.intp)
