"""Recomputation: the same bits from a part of the memory.  And gradients that nobody wants."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Arrays, check_bits, random_call

import fastlstm

LAYERS: dict[str, dict[str, Any]] = {
    "one": {"input_size": 5, "hidden_size": 7},
    "three": {"input_size": 20, "hidden_size": 33, "num_layers": 3, "bias": False},
    "dropout": {"input_size": 3, "hidden_size": 16, "num_layers": 2, "dropout": 0.4},
    "batch-first": {"input_size": 3, "hidden_size": 16, "batch_first": True},
    "options": {
        "input_size": 3,
        "hidden_size": 20,
        "num_layers": 2,
        "proj_size": 6,
        "peephole": True,
        "layer_norm": True,
        "zoneout": (0.2, 0.1),
        "recurrent_dropout": 0.3,
    },
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def results(lstm: fastlstm.LSTM, v: Arrays, **options: Any) -> Arrays:
    """Of forward, and of backward twice: a tape may be used again."""
    y, (h_n, c_n), tape = copy.deepcopy(lstm).forward(v["x"], (v["h_0"], v["c_0"]), **options)
    named = {"y": y, "h_n": h_n, "c_n": c_n}
    for time in ("first", "second"):
        dx, (dh_0, dc_0), grads = tape._layer.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))
        assert dx is not None
        named |= {f"{time} dx": dx, f"{time} dh_0": dh_0, f"{time} dc_0": dc_0}
        named |= {f"{time} d {name}": grads[name] for name in grads}
    return named


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_layer
@pytest.mark.parametrize(
    ("steps", "batch", "every"),
    [(600, 1, 256), (300, 2, "auto"), (40, 30, 1), (40, 30, 9), (12, 300, 5), (10, 3, 1000)],
)
def test_same_bits(
    rng: Generator, layer: dict[str, Any], steps: int, batch: int, every: Any, dtype: str
) -> None:
    lstm = fastlstm.LSTM(**layer, dtype=dtype, seed=0)
    v = random_call(rng, lstm, steps, batch)
    check_bits(results(lstm, v, checkpoint_every=every), results(lstm, v))


@pytest.mark.parametrize("embedding", ["table", "one-hot"])
def test_same_bits_of_tokens(rng: Generator, embedding: str) -> None:
    """Their sums are settled after the same steps."""
    lstm = fastlstm.LSTM(6, 20, seed=0)
    table = rng.standard_normal((6, 6), dtype=np.float32) if embedding == "table" else embedding
    v = random_call(rng, lstm, 3000, 2)
    tokens, found = rng.integers(0, 6, (3000, 2)), []
    for every in (None, 1000, "auto"):
        _, _, tape = lstm.forward(tokens, embedding=table, checkpoint_every=every)
        dx, _, grads = lstm.backward(tape, v["dy"])
        found.append({"grads": grads.flat} | ({} if dx is None else {"dx": dx}))
    check_bits(found[1], found[0])
    check_bits(found[2], found[0])


def test_same_bits_of_tokens_with_a_short_last_part(rng: Generator) -> None:
    """27 steps of 32 rows are three parts of 8, and one of 3 whose place counts in whole parts."""
    lstm = fastlstm.LSTM(5, 9, seed=0)
    v, tokens = random_call(rng, lstm, 27, 32), rng.integers(0, 5, (27, 32))
    found = []
    for every in (None, 8):
        _, _, tape = lstm.forward(tokens, embedding="one-hot", checkpoint_every=every)
        found.append({"grads": lstm.backward(tape, v["dy"])[2].flat})
    check_bits(found[1], found[0])


@pytest.mark.parametrize("threads", [2, 3])
def test_same_bits_with_threads(
    rng: Generator, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that share the hidden units pass each other the gradients at an edge."""
    monkeypatch.setattr(fastlstm._core.library, "PROCESSORS", 4)
    lstm = fastlstm.LSTM(64, 256, seed=0)
    v = random_call(rng, lstm, 300, 2)
    expected, before = results(lstm, v), fastlstm.get_num_threads()
    fastlstm.set_num_threads(threads)
    try:
        check_bits(results(lstm, v, checkpoint_every=128), expected)
    finally:
        fastlstm.set_num_threads(before)


def test_memory(rng: Generator) -> None:
    """Two values for each state, and the tape of one segment."""
    lstm = fastlstm.LSTM(4, 16, 2, seed=0)
    x = rng.standard_normal((5000, 4, 4), dtype=np.float32)
    whole = lstm.forward(x)[2].nbytes
    kept = lstm.forward(x, checkpoint_every="auto")[2].nbytes
    length = 128  # of a segment: the square root of 5000, in units of 256 / 4 steps
    states = -(-5000 // length) * 2 * 2 * 4 * 16 * 4
    assert kept == states + lstm.forward(x[:length])[2].nbytes
    assert kept < whole / 20


def test_no_steps() -> None:
    lstm = fastlstm.LSTM(4, 16)
    y, _, tape = lstm.forward(np.empty((0, 2, 4), np.float32), checkpoint_every="auto")
    dx, _, grads = lstm.backward(tape, y)
    assert dx is not None
    assert dx.shape == (0, 2, 4)
    assert not grads.flat.any()


@pytest.mark.parametrize(
    ("options", "every", "error", "message"),
    [
        ({}, 0, ValueError, "checkpoint_every: expected at least 1, got 0"),
        ({}, 2.5, TypeError, "checkpoint_every: expected an integer, got float"),
        ({}, "often", ValueError, "checkpoint_every: expected an integer or 'auto', got 'often'"),
        ({"bidirectional": True}, 5, ValueError, "checkpoint_every: expected a layer of one dir"),
    ],
)
def test_errors(options: dict[str, Any], every: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastlstm.LSTM(4, 5, **options).forward(
            np.ones((9, 2, 4), np.float32), checkpoint_every=every
        )


def test_without_the_gradient_of_the_input(rng: Generator) -> None:
    lstm = fastlstm.LSTM(4, 16, 2, seed=0)
    v = random_call(rng, lstm, 9, 3)
    y, _, tape = lstm.forward(v["x"])
    dx, dstate, grads = lstm.backward(tape, y, input_gradient=False)
    _, other_dstate, other_grads = lstm.backward(tape, y)
    assert dx is None
    check_bits({"0": dstate[0], "1": dstate[1]}, {"0": other_dstate[0], "1": other_dstate[1]})
    check_bits({"grads": grads.flat}, {"grads": other_grads.flat})


def test_sums_of_many_terms(rng: Generator) -> None:
    """Weight gradients over 100,000 terms: 9e-7 of the largest, 6e-7 of the norm, measured."""
    steps, batch = 1000, 100
    lstm = fastlstm.LSTM(16, 24, seed=0)
    exact = fastlstm.LSTM(16, 24, dtype="float64")
    exact.parameters.flat = lstm.parameters.flat
    v = random_call(rng, lstm, steps, batch)
    tokens = rng.zipf(1.5, (steps, batch)) % 16  # one token in four is the same
    for x, options in ((v["x"], {}), (tokens, {"embedding": "one-hot"})):
        wide = x.astype(np.float64) if not options else x
        grads = lstm.backward(lstm.forward(x, **options)[2], v["dy"])[2]
        _, _, tape = exact.forward(wide, **options)
        expected = exact.backward(tape, v["dy"].astype(np.float64))[2]
        for name in grads:
            error = grads[name] - expected[name]
            assert np.abs(error).max() < 1e-6 * np.abs(expected[name]).max()
            assert np.linalg.norm(error) < 1e-6 * np.linalg.norm(expected[name])
