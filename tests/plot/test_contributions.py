"""What enters the gates: the sum of the parts, through their functions, is the trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

import fastlstm
from fastlstm import plot
from fastlstm.reference import sigmoid

KINDS: dict[str, tuple[Any, dict[str, Any], list[Any]]] = {
    "LSTM": (fastlstm.LSTM, {}, [sigmoid, sigmoid, np.tanh, sigmoid]),
    "projection": (fastlstm.LSTM, {"proj_size": 3}, [sigmoid, sigmoid, np.tanh, sigmoid]),
    "GRU": (fastlstm.GRU, {}, [sigmoid, sigmoid, np.tanh]),
    "GRU-before": (fastlstm.GRU, {"reset_after": False}, [sigmoid, sigmoid, np.tanh]),
    "RNN": (fastlstm.RNN, {}, [np.tanh]),
    "relu": (fastlstm.RNN, {"nonlinearity": "relu"}, [lambda z: np.maximum(z, 0)]),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_sum_is_what_enters_the_gates(
    rng: Generator, kind: Any, batch_first: bool, bias: bool
) -> None:
    """Of every layer and direction."""
    make, options, functions = kind
    layer = make(4, 7, 2, bidirectional=True, batch_first=batch_first, bias=bias, seed=1, **options)
    x = rng.standard_normal((5, 3, 4), dtype=np.float32)
    for index, trace in enumerate(layer.trace(x)):
        parts = plot.contributions(layer, x, index=index)
        assert parts.input.shape == parts.bias.shape == (5, 3, len(functions), 7)
        for gate, (function, array) in enumerate(zip(functions, trace, strict=False)):
            found = function(sum(parts)[..., gate, :])
            np.testing.assert_allclose(found, array, atol=1e-5)
        first = (slice(None), 0) if batch_first else (0,)
        last = (slice(None), -1) if batch_first else (-1,)
        assert not parts.hidden[last if index % 2 else first].any()
        assert parts.hidden[first if index % 2 else last].any()
        assert bool(parts.bias.any()) == bias


def test_the_parts(rng: Generator) -> None:
    lstm = fastlstm.LSTM(4, 7, dtype="float64", seed=1)
    x = rng.standard_normal((5, 4))
    parts, p, [trace] = plot.contributions(lstm, x), lstm.parameters, lstm.trace(x)
    np.testing.assert_allclose(parts.input[3, 2], p["weight_ih_l0"][14:21] @ x[3])
    np.testing.assert_allclose(parts.hidden[3, 2], p["weight_hh_l0"][14:21] @ trace.hidden[2])
    np.testing.assert_allclose(parts.bias[3, 2], (p["bias_ih_l0"] + p["bias_hh_l0"])[14:21])


def test_tokens(rng: Generator) -> None:
    lstm, tokens = fastlstm.LSTM(4, 7, seed=1), rng.integers(0, 4, (5, 3))
    table = rng.standard_normal((9, 4), dtype=np.float32)
    for embedding, x in ((table, table[tokens]), ("one-hot", np.eye(4, dtype=np.float32)[tokens])):
        found = plot.contributions(lstm, tokens, embedding=embedding)
        for part, expected in zip(found, plot.contributions(lstm, x), strict=True):
            assert np.array_equal(part, expected)


X = np.ones((3, 4), np.float32)
LSTM = fastlstm.LSTM(4, 7)


@pytest.mark.parametrize(
    ("layer", "options", "error", "message"),
    [
        (fastlstm.LSTM(4, 7, layer_norm=True), {}, ValueError, r"plain cell, got LSTM\(4, 7, laye"),
        (fastlstm.LSTM(4, 7, coupled=True), {}, ValueError, r"plain cell, .* coupled=True"),
        (LSTM.quantize("int8"), {}, ValueError, "weights of float32, got int8"),
        (LSTM, {"index": 1}, ValueError, "index: expected 0 to 0, got 1"),
        (LSTM, {"index": 0.5}, TypeError, "index: expected an integer"),
        (LSTM, {"embedding": "one-hot"}, TypeError, "x: expected"),
        ("LSTM", {}, TypeError, "layer: expected an LSTM, GRU or RNN, got str"),
    ],
)
def test_errors(layer: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot.contributions(layer, X, **options)
