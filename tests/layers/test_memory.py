"""Memory does not grow: not with calls of many shapes, not with layers made and dropped, not with
time where nothing needs to be remembered."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from support.memory import MEGABYTE, growth, resident

import fastlstm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")


def test_flat_over_calls_of_random_shapes(rng: np.random.Generator) -> None:
    lstm = fastlstm.LSTM(12, 24, num_layers=2, bidirectional=True, seed=0)
    x = np.ones((20, 20, 12), np.float32)

    def call() -> None:
        steps, batch = rng.integers(1, 20), rng.integers(1, 20)
        lstm(x[:steps, :batch])

    assert growth(call, 1000, 10_000) < 2 * MEGABYTE


def test_flat_over_training_steps_of_random_shapes(rng: np.random.Generator) -> None:
    lstm = fastlstm.LSTM(12, 24, num_layers=2, dropout=0.5, seed=0)
    optimizer = fastlstm.optim.Adam(lstm.parameters)
    x = np.ones((40, 20, 12), np.float32)

    def step() -> None:
        steps, batch = rng.integers(1, 40), rng.integers(1, 20)
        y, _, tape = lstm.forward(x[:steps, :batch])
        optimizer.step(lstm.backward(tape, y)[2])

    assert growth(step, 300, 2000) < 2 * MEGABYTE


def test_flat_over_layers_and_streams() -> None:
    x = np.ones((4, 3, 64), np.float32)

    def make() -> None:
        lstm = fastlstm.LSTM(64, 64, seed=0)
        lstm.stream(3).run(x)
        lstm(x)

    assert growth(make, 100, 1000) < 2 * MEGABYTE


def test_a_stream_needs_no_more_memory_for_more_steps() -> None:
    stream = fastlstm.LSTM(8, 16, num_layers=2, seed=0).stream()
    x, out = np.ones(8, np.float32), np.empty(16, np.float32)
    assert growth(lambda: stream.step(x, out), 1000, 100_000) < MEGABYTE // 4


def test_inference_keeps_no_history() -> None:
    """Beside x and y, a long sequence takes what a short one takes."""
    lstm = fastlstm.LSTM(1, 64, num_layers=3, seed=0)
    x = np.ones((100_000, 1, 1), np.float32)
    lstm(x[:1000])
    before = resident()
    y, _ = lstm(x)
    assert resident() - before < y.nbytes + 2 * MEGABYTE
    assert y.nbytes > 20 * MEGABYTE  # a kept history of two layers would show
