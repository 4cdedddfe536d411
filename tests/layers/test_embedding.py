"""Input as tokens: rows of a table, or of the unit matrix, that are not multiplied again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, check_bits, check_close, error_bound, same_bits

import fastlstm

LAYERS: dict[str, dict[str, Any]] = {
    "one": {"hidden_size": 24},
    "odd": {"hidden_size": 17, "bias": False},
    "both-ways": {"hidden_size": 33, "num_layers": 2, "bidirectional": True},
    "batch-first": {"hidden_size": 70, "num_layers": 2, "batch_first": True, "dropout": 0.3},
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
# (V, T, B): fewer tokens than rows of the table, and more; one row, few, many.
SIZES = [(50, 4, 3), (5, 30, 1), (7, 9, 20), (3, 2, 300)]


def tokens_of(rng: Generator, lstm: fastlstm.LSTM, count: int, steps: int, batch: int) -> Array:
    tokens = rng.integers(0, count, (steps, batch))
    tokens[0, 0] = count - 1
    return tokens.T if lstm.batch_first else tokens


def results(lstm: fastlstm.LSTM, x: Array, dy: Array, **options: Any) -> dict[str, Array]:
    """Of forward and backward; the same dropout each time."""
    lstm._dropout_keys = np.random.default_rng(1)
    y, (h_n, c_n), tape = lstm.forward(x, **options)
    dx, (dh_0, dc_0), grads = lstm.backward(tape, dy)
    named = {"y": y, "h_n": h_n, "c_n": c_n, "dh_0": dh_0, "dc_0": dc_0}
    found = named | {f"d {name}": grads[name] for name in grads}
    return found if dx is None else found | {"dx": dx}


@every_dtype
@every_layer
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_embedding(
    rng: Generator, isa: str, layer: dict[str, Any], size: tuple[int, int, int], dtype: str
) -> None:
    """As the rows themselves: outputs to the bit, sums of gradients in another order."""
    count, steps, batch = size
    lstm = fastlstm.LSTM(9, **layer, dtype=dtype, seed=0)
    embedding = rng.standard_normal((count, 9)).astype(dtype)
    tokens = tokens_of(rng, lstm, count, steps, batch)
    dy = rng.standard_normal(lstm(embedding[tokens])[0].shape).astype(dtype)
    got = results(lstm, tokens, dy, embedding=embedding)
    rows = results(lstm, embedding[tokens], dy)
    dx = np.zeros((count, 9))
    np.add.at(dx, tokens.ravel(), rows.pop("dx").reshape(-1, 9).astype(np.float64))
    exact = ("y", "h_n", "c_n", "dh_0", "dc_0")
    if isa != "baseline":
        check_bits({name: got[name] for name in exact}, {name: rows[name] for name in exact})
        assert same_bits(lstm(tokens, embedding=embedding)[0], lstm(embedding[tokens])[0])
    check_close(got, rows | {"dx": dx}, error_bound(lstm, steps, batch))


@every_dtype
@every_layer
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_hot(
    rng: Generator, isa: str, layer: dict[str, Any], size: tuple[int, int, int], dtype: str
) -> None:
    count, steps, batch = size
    lstm = fastlstm.LSTM(count, **layer, dtype=dtype, seed=0)
    tokens = tokens_of(rng, lstm, count, steps, batch)
    x = np.eye(count, dtype=dtype)[tokens]
    dy = rng.standard_normal(lstm(x)[0].shape).astype(dtype)
    got, rows = results(lstm, tokens, dy, embedding="one-hot"), results(lstm, x, dy)
    assert same_bits(got["y"], rows["y"])
    del rows["dx"]  # there is no table that could have a gradient
    check_close(got, rows, error_bound(lstm, steps, batch))


@pytest.mark.parametrize("embedding", ["table", "one-hot"])
@pytest.mark.parametrize("batch", [2, 40])
def test_threads(rng: Generator, embedding: str, batch: int) -> None:
    """Enough work for a team, which shares rows or hidden units."""
    lstm = fastlstm.LSTM(30, 150, seed=0)
    table = rng.standard_normal((30, 30), dtype=np.float32) if embedding == "table" else embedding
    tokens = rng.integers(0, 30, (60, batch))
    dy = rng.standard_normal((60, batch, 150), dtype=np.float32)
    before, found = fastlstm.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            fastlstm.set_num_threads(n)
            found.append(results(lstm, tokens, dy, embedding=table))
    finally:
        fastlstm.set_num_threads(before)
    check_bits(found[1], found[0])
    check_bits(found[2], found[0])


def test_unbatched_and_kinds_of_integers(rng: Generator) -> None:
    lstm = fastlstm.LSTM(4, 5, seed=0)
    tokens = rng.integers(0, 4, 9)
    y = lstm(np.eye(4, dtype=np.float32)[tokens])[0]
    for same in (tokens, tokens.astype(np.uint8), tokens.astype(">i2"), tokens.tolist()):
        assert same_bits(lstm(same, embedding="one-hot")[0], y)


def test_tokens_may_change_before_backward(rng: Generator) -> None:
    """They are indices: a change must not reach memory that is not theirs."""
    lstm = fastlstm.LSTM(4, 5, seed=0)
    tokens = rng.integers(0, 4, (6, 2))
    y, _, tape = lstm.forward(tokens, embedding="one-hot")
    before = lstm.backward(tape, y)[2].flat
    tokens[...] = 1 << 40
    assert same_bits(lstm.backward(tape, y)[2].flat, before)


def test_no_tokens() -> None:
    lstm = fastlstm.LSTM(4, 5, seed=0)
    embedding = np.ones((3, 4), np.float32)
    y, _, tape = lstm.forward(np.zeros((0, 2), int), embedding=embedding)
    dx, _, grads = lstm.backward(tape, y)
    assert y.shape == (0, 2, 5)
    assert dx is not None
    assert dx.shape == (3, 4)
    assert not dx.any()
    assert not grads.flat.any()


X = np.zeros((3, 2), int)
TABLE = np.zeros((7, 4), np.float32)


@pytest.mark.parametrize(
    ("x", "embedding", "error", "message"),
    [
        (X + 7, TABLE, ValueError, "x: expected tokens from 0 to 6, got 7"),
        (X - 1, TABLE, ValueError, "x: expected tokens from 0 to 6, got -1"),
        (X + 4, "one-hot", ValueError, "x: expected tokens from 0 to 3, got 4"),
        (X + 0.0, TABLE, TypeError, "x: expected an array of integers, got float64"),
        (X > 0, TABLE, TypeError, "x: expected an array of integers, got bool"),
        ([[1], [2, 3]], TABLE, TypeError, "x: expected an array of integers, got"),
        (X[None], TABLE, ValueError, r"x: expected \(T, B\) or \(T,\), got \(1, 3, 2\)"),
        (X, "one hot", ValueError, "embedding: expected an array or 'one-hot', got 'one hot'"),
        (X, TABLE[:, :3], ValueError, r"embedding: expected \(V, 4\), got \(7, 3\)"),
        (X, TABLE[:0], ValueError, r"embedding: expected \(V, 4\), got \(0, 4\)"),
        (X, TABLE[0], ValueError, r"embedding: expected \(V, 4\), got \(4,\)"),
        (X, TABLE.astype(float), TypeError, "embedding: expected float32, got float64"),
    ],
)
@pytest.mark.parametrize("call", ["__call__", "forward"])
def test_errors(call: str, x: Any, embedding: Any, error: type[Exception], message: str) -> None:
    method: Callable[..., Any] = getattr(fastlstm.LSTM(4, 5), call)
    with pytest.raises(error, match=message):
        method(x, embedding=embedding)
