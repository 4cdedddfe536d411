"""Measuring a language model on a text, in parallel rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer
from fastlstm._parameters import Parameters
from fastlstm.heads._softmax import softmax_nll
from fastlstm.training._batches import Codes

_WARMUP = 128  # characters a row reads before the part it measures


class EvaluationWindows(NamedTuple):
    """Where parallel rows read when they measure a text, each character once.

    Row r reads `steps` characters from ``r * spacing`` on.  The first `steps - spacing` of
    every row but the first only warm up its state: the row before has measured them.
    """

    rows: int
    steps: int
    spacing: int

    @classmethod
    def of(cls, length: int, rows: int, warmup: int) -> EvaluationWindows:
        """Cover `length` predictions; fewer rows, where they would mostly warm up."""
        rows = max(1, min(rows, length // max(1, 2 * warmup)))
        warmup = warmup if rows > 1 else 0
        steps = -(-(length + (rows - 1) * warmup) // rows)
        return cls(rows, steps, steps - warmup)

    def places(self, start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the places read at time steps start to stop, and which count; [T, B] each."""
        row, step = np.arange(self.rows), np.arange(start, stop)[:, None]
        counts = (row == 0) | (step >= self.steps - self.spacing)
        return row * self.spacing + step, counts


def mean_bits(lstm: Layer[Any, Any, Any], parameters: Parameters, codes: Codes, rows: int) -> float:
    """The mean of -log2 p(code) over all codes but the first, read in so many rows."""
    windows = EvaluationWindows.of(len(codes) - 1, rows, _WARMUP)
    block = max(1, 2048 // windows.rows)
    state, total, weight = None, 0.0, parameters["embedding.weight"]
    for start in range(0, windows.steps, block):
        places, counts = windows.places(start, min(start + block, windows.steps))
        y, state = lstm(codes.take(places, mode="clip"), state, embedding=weight)
        nll = softmax_nll(lstm, parameters, y, codes.take(places + 1, mode="clip"))
        counts &= places + 1 < len(codes)
        total += float(nll.sum(where=counts, dtype=np.float64))
    return total / ((len(codes) - 1) * math.log(2))


def log_probabilities(
    lstm: Layer[Any, Any, Any],
    parameters: Parameters,
    before: Sequence[Codes],
    after: Sequence[Sequence[Codes]],
) -> NDArray[np.float64]:
    """log p of each text of row r of `after`, where ``before[r]`` precedes it.

    Each row has as many texts, and each text and what precedes it at least one code.
    """
    weight = parameters["embedding.weight"]
    result = np.empty((len(before), len(after[0])))
    order = np.argsort([len(codes) for codes in before], kind="stable")  # little is padded
    for rows in np.array_split(order, -(-len(order) // 64)):
        codes, lengths = _padded([before[r][:-1] for r in rows])
        _, state = lstm(codes, lengths=lengths, embedding=weight)
        for i in range(result.shape[1]):
            texts = [np.append(before[r][-1:], after[r][i]) for r in rows]
            codes, lengths = _padded(texts)
            y, _ = lstm(codes[:-1], state, embedding=weight)
            nll = softmax_nll(lstm, parameters, y, codes[1:])
            counts = np.arange(1, len(codes))[:, None] < lengths
            result[rows, i] = -nll.sum(axis=0, where=counts, dtype=np.float64)
    return result


def _padded(texts: Sequence[Codes]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Codes [T, B] of texts, zeros behind their ends, and their lengths."""
    lengths = np.array([len(codes) for codes in texts])
    padded = np.zeros((lengths.max(), len(texts)), np.intp)
    for column, codes in enumerate(texts):
        padded[: len(codes), column] = codes
    return padded, lengths
