"""What objects print as: one line with kind, sizes and what is not the default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import optim
from fastlstm.models import LanguageModel

LSTM = fastlstm.LSTM(2, 3, seed=0)
DEEP = fastlstm.LSTM(2, 3, 2, seed=0)
ARRAYS = "weight_ih_l0 (12, 2), weight_hh_l0 (12, 3), bias_ih_l0 (12,), bias_hh_l0 (12,)"
X = np.zeros((1000, 4, 2), np.float32)
POOL = fastlstm.StreamPool(LSTM, 9)
POOL.open()
STEPPED = optim.SGD(LSTM.parameters, lr=0.1, momentum=0.9, nesterov=True)
STEPPED.step(LSTM.backward(LSTM.forward(X)[2], np.zeros((1000, 4, 3), np.float32))[2])


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (LSTM, "LSTM(2, 3)"),
        (LSTM.parameters, f"Parameters(84 x float32: {ARRAYS})"),
        (DEEP.parameters, f"Parameters(180 x float32: {ARRAYS}, and 4 more)"),
        (LSTM.stream(4), "Stream(LSTM(2, 3), batch_size=4)"),
        (POOL, "StreamPool(LSTM(2, 3), capacity=9, open=1)"),
        (optim.Adam([LSTM.parameters, DEEP.parameters]), "Adam(264 weights, lr=0.001, steps=0)"),
        (STEPPED, "SGD(84 weights, lr=0.1, momentum=0.9, nesterov=True, steps=1)"),
        (optim.AdamW(LSTM.parameters, 0.2), "AdamW(84 weights, lr=0.2, steps=0)"),
        (
            LanguageModel("abc", embedding_size=2, hidden_size=3),
            "LanguageModel(3 characters, 102 weights, "
            "embedding_size=2, hidden_size=3, num_layers=1)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_representation(shown: Any, expected: str) -> None:
    assert repr(shown) == expected


def test_representation_of_quantized_weights() -> None:
    text = repr(LSTM.quantize("int8").parameters)
    assert text.startswith(
        "StoredWeights(84 x int8: weight_ih_l0 (12, 2), weight_ih_l0_scale (12,)"
    )
    assert "\n" not in text


def test_representation_of_a_tape() -> None:
    tape = LSTM.forward(X[:, 0])[2]
    assert repr(tape) == f"Tape(LSTM(2, 3), steps=1000, {tape.nbytes / 1e6:.3g} MB)"
    tape = LSTM.forward(X, checkpoint_every=64, shards=2)[2]
    sizes = "steps=1000, rows=4, checkpoint_every=128, shards=2"
    assert repr(tape) == f"Tape(LSTM(2, 3), {sizes}, {tape.nbytes / 1e6:.3g} MB)"
