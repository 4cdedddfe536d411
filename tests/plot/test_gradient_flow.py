"""How far back a gradient reaches."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator

import fastlstm
from fastlstm import plot

KINDS = [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN]


def test_gradient_norms(rng: Generator) -> None:
    """Against finite differences: what the last outputs change by with an earlier state."""
    rnn = fastlstm.RNN(2, 3, dtype="float64", seed=1)
    x, step = rng.standard_normal((5, 1, 2)), 1e-6
    norms = plot.gradient_norms(rnn, x)
    for t in range(4):
        h, slopes = rnn(x[: t + 1])[1], []
        for unit in range(3):
            move = np.zeros((1, 1, 3))
            move[..., unit] = step
            up, down = (rnn(x[t + 1 :], h + m)[0][-1].sum() for m in (move, -move))
            slopes.append((up - down) / (2 * step))
        assert norms[t] == pytest.approx(np.linalg.norm(slopes) / np.sqrt(3), rel=1e-6)
    assert norms[-1] == 1


def test_gradient_norms_of_all_layers_and_parts(rng: Generator) -> None:
    """A projection makes h narrower than c; both count, and the outputs are the narrow ones."""
    lstm = fastlstm.LSTM(2, 5, 2, proj_size=3, dtype="float64", seed=1)
    x = rng.standard_normal((4, 2, 2))
    _, state, _ = lstm.forward(x[:2])
    y, _, tape = lstm.forward(x[2:], state)
    dy = np.zeros_like(y)
    dy[-1] = 1
    dh, dc = lstm.backward(tape, dy)[1]
    expected = np.sqrt(((dh**2).sum() + (dc**2).sum()) / (2 * 3))
    assert plot.gradient_norms(lstm, x)[1] == pytest.approx(expected, rel=1e-12)


def test_small_gradients_are_not_none(rng: Generator) -> None:
    """Their squares are not numbers of float32, they are."""
    rnn = fastlstm.RNN(2, 3, seed=1)
    norms = plot.gradient_norms(rnn, rng.standard_normal((70, 1, 2), dtype=np.float32))
    assert norms.min() < 1e-24
    assert norms.all()


def test_picture_of_gradients(rng: Generator) -> None:
    pytest.importorskip("matplotlib")
    layers = {kind.__name__: kind(2, 5, seed=1) for kind in KINDS}
    x = rng.standard_normal((6, 3, 2), dtype=np.float32)
    [axes] = plot.gradient_flow(layers, x).axes
    for line, layer in zip(axes.lines, layers.values(), strict=True):
        assert np.array_equal(line.get_ydata(), plot.gradient_norms(layer, x))


def test_gradient_norms_of_both_directions() -> None:
    with pytest.raises(ValueError, match="layer: expected one direction"):
        plot.gradient_norms(fastlstm.RNN(2, 3, bidirectional=True), np.ones((3, 1, 2)))
