"""Writing text with a language model, character by character."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer

Array = NDArray[Any]


def generate(
    lstm: Layer[Any, Any, Any],
    parameters: Mapping[str, Array],
    codes: Array,
    uniform: Iterable[float],
    temperature: float,
) -> list[int]:
    """Codes that go on from `codes`, one for each of the uniform numbers in [0, 1)."""
    weight = parameters["embedding.weight"]
    linear, bias = parameters["linear.weight"], parameters["linear.bias"]
    stream = lstm.stream()
    stream.run(weight[codes[:-1], None])
    code, y, written = int(codes[-1]), np.empty(linear.shape[1], np.float32), []
    for u in uniform:
        stream.step(weight[code], out=y)
        code = _sample(linear @ y + bias, temperature, u)
        written.append(code)
    return written


def _sample(logits: Array, temperature: float, u: float) -> int:
    """Draw a code from softmax(logits / temperature) with the uniform number u in [0, 1)."""
    if temperature == 0:
        return int(logits.argmax())
    with np.errstate(over="ignore"):  # towards -inf, at tiny temperatures
        scaled = (logits - logits.max()).astype(np.float64) / temperature
    cumulative = np.exp(scaled).cumsum()
    code = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    return min(code, len(logits) - 1)
