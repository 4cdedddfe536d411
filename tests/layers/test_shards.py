"""Gradients of shards: those of calls of their rows alone, whatever else is in the call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.compare import same_bits

import fastlstm
from fastlstm._shards import ShardGradients, Shards

Array = NDArray[Any]

T, B, INPUT, HIDDEN = 37, 13, 5, 9
LAYERS = {
    "plain": lambda: fastlstm.LSTM(INPUT, HIDDEN, seed=1),
    "packed dz": lambda: fastlstm.LSTM(INPUT, 140, seed=1),
    "stack": lambda: fastlstm.LSTM(INPUT, HIDDEN, 2, bidirectional=True, seed=1),
    "dropout": lambda: fastlstm.LSTM(INPUT, HIDDEN, 3, dropout=0.4, seed=1),
    "gru": lambda: fastlstm.GRU(INPUT, HIDDEN, 2, dtype="float64", seed=1),
    "gru before": lambda: fastlstm.GRU(INPUT, HIDDEN, reset_after=False, seed=1),
    "rnn": lambda: fastlstm.RNN(INPUT, HIDDEN, seed=1),
    "slstm": lambda: fastlstm.SLSTM(INPUT, HIDDEN, 2, num_heads=3, seed=1),
    "options": lambda: fastlstm.LSTM(
        INPUT,
        HIDDEN,
        2,
        proj_size=4,
        peephole=True,
        layer_norm=True,
        zoneout=(0.2, 0.3),
        recurrent_dropout=0.3,
        seed=1,
    ),
}


def gradients(
    layer: Any, x: Array, dy: Array, shards: Shards | int | None, rows: slice, **options: Any
) -> tuple[Any, ...]:
    """y, dx and gradients of some rows, with the random choices of a new layer."""
    layer._dropout_keys = np.random.default_rng(7)
    options = {
        name: value[..., rows] if isinstance(value, np.ndarray) else value
        for name, value in options.items()
    }
    y, _, tape = layer.forward(x[:, rows], shards=shards, **options)
    dx, dstate, grads = layer.backward(tape, dy[:, rows])
    return y, dx, dstate, grads


def data(layer: Any) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    width = layer(np.zeros((1, 1, INPUT), layer.dtype))[0].shape[-1]
    x = rng.standard_normal((T, B, INPUT)).astype(layer.dtype)
    return x, rng.standard_normal((T, B, width)).astype(layer.dtype)


ROWS = {
    "all": {},
    "lengths": {"lengths": np.array([37, 3, 0, 37, 20, 21, 36, 5, 37, 1, 30, 30, 29])},
    "reset": {"reset": np.arange(T * B).reshape(T, B) % 7 == 0},
}


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", LAYERS)
def test_of_any_number_of_processes(kind: str, rows: str, count: int) -> None:
    layer = LAYERS[kind]()
    x, dy = data(layer)
    y, dx, _, grads = gradients(layer, x, dy, count, slice(None), **ROWS[rows])
    for size in (2, 3, 5):
        for rank in range(size):
            own = Shards(B, count, rank, size)
            part = gradients(layer, x, dy, own, own.rows, **ROWS[rows])
            assert same_bits(part[0], y[:, own.rows])
            assert same_bits(part[1], dx[:, own.rows])
            assert isinstance(part[3], ShardGradients)
            assert same_bits(part[3].array, grads.array[own.first : own.end])


@pytest.mark.parametrize("kind", ["plain", "packed dz", "gru", "rnn"])
def test_equal_shards_are_calls_of_their_own(kind: str) -> None:
    """Nothing is drawn at random in these."""
    layer = LAYERS[kind]()
    x, dy = data(layer)
    x, dy = x[:, :12], dy[:, :12]
    _, _, _, grads = gradients(layer, x, dy, 4, slice(None))
    for i, of_shard in enumerate(grads):
        rows = slice(3 * i, 3 * i + 3)
        _, _, _, alone = gradients(layer, x, dy, None, rows)
        assert same_bits(alone.flat, of_shard.flat)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_sum_is_the_gradient(kind: str) -> None:
    layer = LAYERS[kind]()
    x, dy = data(layer)
    _, _, _, whole = gradients(layer, x, dy, None, slice(None))
    _, _, _, grads = gradients(layer, x, dy, 8, slice(None))
    total = grads.array.sum(axis=0, dtype=np.float64)
    assert np.abs(total - whole.flat).max() < 2e-5 * np.abs(whole.flat).max()


@pytest.mark.parametrize("table", ["one-hot", "embedding"])
def test_tokens(table: str) -> None:
    """The gradient of a table is that of each shard too."""
    layer = fastlstm.LSTM(INPUT, HIDDEN, 2, seed=1)
    rng = np.random.default_rng(3)
    dy = rng.standard_normal((300, B, HIDDEN)).astype(np.float32)
    embedding: Any = "one-hot"
    tokens = rng.integers(0, INPUT, (300, B))
    if table == "embedding":
        embedding = rng.standard_normal((11, INPUT)).astype(np.float32)
        tokens = rng.integers(0, 11, (300, B))

    def run(shards: Any, rows: slice) -> tuple[Any, Any]:
        _, _, tape = layer.forward(tokens[:, rows], embedding=embedding, shards=shards)
        dx, _, grads = layer.backward(tape, dy[:, rows])
        return dx, grads

    dx, grads = run(8, slice(None))
    for size in (2, 3):
        for rank in range(size):
            own = Shards(B, 8, rank, size)
            part_dx, part = run(own, own.rows)
            assert same_bits(part.array, grads.array[own.first : own.end])
            assert dx is None or same_bits(part_dx, dx[own.first : own.end])
    whole_dx, whole = run(None, slice(None))
    np.testing.assert_allclose(grads.array.sum(axis=0), whole.flat, atol=2e-4)
    if dx is not None:
        np.testing.assert_allclose(dx.sum(axis=0), whole_dx, atol=2e-4)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_checkpoints(threads: int) -> None:
    layer = fastlstm.LSTM(INPUT, 70, 2, dropout=0.2, seed=1)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((300, B, INPUT)).astype(np.float32)
    dy = rng.standard_normal((300, B, 70)).astype(np.float32)
    _, dx, _, grads = gradients(layer, x, dy, 4, slice(None))
    before = fastlstm.get_num_threads()
    fastlstm.set_num_threads(threads)
    try:
        _, again_dx, _, again = gradients(layer, x, dy, 4, slice(None), checkpoint_every=20)
    finally:
        fastlstm.set_num_threads(before)
    assert same_bits(dx, again_dx)
    assert same_bits(grads.array, again.array)


def test_instruction_sets(isa: str) -> None:
    """Each computes shards as it computes their rows."""
    layer = fastlstm.LSTM(INPUT, 140, seed=1)
    assert layer.isa == isa
    x, dy = data(layer)
    _, _, _, grads = gradients(layer, x, dy, 2, slice(0, 12))
    for i in range(2):
        _, _, _, alone = gradients(layer, x, dy, None, slice(6 * i, 6 * i + 6))
        assert same_bits(alone.flat, grads[i].flat)


def test_refused() -> None:
    layer = LAYERS["plain"]()
    x = np.zeros((T, B, INPUT), np.float32)
    with pytest.raises(ValueError, match="shards: expected a power of two, got 3"):
        layer.forward(x, shards=3)
    with pytest.raises(ValueError, match=r"shards: expected those of 13 rows, got .* with 7"):
        layer.forward(x, shards=Shards(B, 4, 1, 2))
    with pytest.raises(ValueError, match="shards: expected x with an axis of rows"):
        layer.forward(x[:, 0], shards=2)


def test_a_process_without_rows() -> None:
    layer = LAYERS["dropout"]()
    own = Shards(B, 1, 0, 2)
    assert own.rows == slice(0, 0)
    y, _, tape = layer.forward(np.zeros((T, 0, INPUT), np.float32), shards=own)
    _, _, grads = layer.backward(tape, y)
    assert len(grads) == 0
    drawn = layer._dropout_keys.bit_generator.state
    other = LAYERS["dropout"]()
    other.forward(np.zeros((T, B, INPUT), np.float32), shards=1)
    assert other._dropout_keys.bit_generator.state == drawn
