"""Dropout between layers: what it multiplies by, how often, and when it draws again."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, same_bits

import fastlstm
from fastlstm.models import LanguageModel


def read_by(layer: int, lstm: fastlstm.LSTM, steps: int, batch: int) -> Array:
    """What a layer above the first read in one call of `forward`: (T, B, H).

    These layers are made to forget and not to listen to themselves, so that a gradient that comes
    in at one step and row stays there: dW is then an outer product of db and what was read.
    """
    H = lstm.hidden_size
    for above in range(1, lstm.num_layers):
        lstm.parameters[f"weight_hh_l{above}"] = np.zeros((4 * H, H))
        lstm.parameters[f"bias_ih_l{above}"] = np.repeat([0, -1e4, 0, 0], H)
    y, _, tape = lstm.forward(np.ones((steps, batch, 1), lstm.dtype))
    read = np.empty_like(y)
    for t, b in np.ndindex(steps, batch):
        dy = np.zeros_like(y)
        dy[t, b] = 1
        _, _, grads = lstm.backward(tape, dy)
        db = grads[f"bias_ih_l{layer}"]
        row = np.argmax(np.abs(db))
        read[t, b] = grads[f"weight_ih_l{layer}"][row] / db[row]
    return read


def masks(lstm: fastlstm.LSTM, steps: int, batch: int) -> Array:
    """What one call multiplied the lower of two layers' output by."""
    below = fastlstm.LSTM(1, lstm.hidden_size, dtype=lstm.dtype)
    below.load_state_dict(lstm.state_dict(), strict=False)
    y, _ = below(np.ones((steps, batch, 1), lstm.dtype))
    return read_by(1, lstm, steps, batch) / y


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout_keeps_some_and_scales_them(rate: float) -> None:
    lstm = fastlstm.LSTM(1, 200, 2, dropout=rate, dtype="float64", seed=1)
    mask = masks(lstm, 5, 4)
    kept = mask != 0
    deviation = np.sqrt(rate * (1 - rate) / mask.size)
    assert abs(kept.mean() - (1 - rate)) <= 4 * deviation
    if kept.any():
        np.testing.assert_allclose(mask[kept], 1 / (1 - rate), rtol=1e-12)
    if deviation:
        again = masks(lstm, 5, 4) != 0
        for one, other in [(kept[0], kept[1]), (kept[:, 0], kept[:, 1]), (kept, again)]:
            together = (one & other).mean()  # as often as of independent draws
            expected, n = (1 - rate) ** 2, one.size
            assert abs(together - expected) <= 4 * np.sqrt(expected * (1 - expected) / n)


def test_dropout_is_seeded() -> None:
    seeds = [1, 1, 2]
    a, b, c = (masks(fastlstm.LSTM(1, 64, 2, dropout=0.5, seed=s), 2, 2) for s in seeds)
    assert same_bits(a == 0, b == 0)
    assert not same_bits(a == 0, c == 0)


def test_layers_draw_apart() -> None:
    """Each layer its own mask; a copy of the layer draws the same again."""
    lstm = fastlstm.LSTM(1, 64, 4, dropout=0.5, seed=1)
    kept = [read_by(layer, copy.deepcopy(lstm), 2, 2) != 0 for layer in (1, 2, 3, 1)]
    assert same_bits(kept[0], kept[3])
    assert not same_bits(kept[0], kept[1])
    assert not same_bits(kept[1], kept[2])


def test_dropout_is_in_forward_only(rng: Generator) -> None:
    lstm, plain = (fastlstm.LSTM(5, 6, 2, dropout=p, seed=1) for p in (0.5, 0.0))
    x = rng.random((4, 3, 5), "f4")
    assert same_bits(lstm(x)[0], plain(x)[0])
    assert not same_bits(lstm.forward(x)[0], plain.forward(x)[0])


@pytest.mark.parametrize("kind", [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN])
def test_dropout_leaves_one_layer_alone(rng: Generator, kind: Any) -> None:
    """It is between layers, so not on the last."""
    with pytest.warns(UserWarning, match=r"dropout: 1\.0 has no effect with num_layers=1") as told:
        layer = kind(5, 6, dropout=1.0, seed=1)
    assert [warning.filename for warning in told] == [__file__]
    plain, x = kind(5, 6, seed=1), rng.random((4, 3, 5), "f4")
    assert same_bits(layer.forward(x)[0], plain.forward(x)[0])


@pytest.mark.parametrize("name", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("value", [5.0, -0.5, float("nan"), None, "0.5"])
def test_rates_are_checked_after_construction_too(name: str, value: Any) -> None:
    lstm = fastlstm.LSTM(2, 3, 2, dropout=0.25, recurrent_dropout=0.25)
    with pytest.raises((TypeError, ValueError), match=f"{name}: expected a number from 0 to 1"):
        setattr(lstm, name, value)
    assert getattr(lstm, name) == 0.25
    setattr(lstm, name, 1)
    assert getattr(lstm, name) == 1.0


def test_a_model_tells_of_dropout_too() -> None:
    with pytest.warns(UserWarning, match=r"dropout: 0\.5 has no effect with num_layers=1"):
        LanguageModel("abc", hidden_size=2, dropout=0.5)
