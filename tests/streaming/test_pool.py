"""Pools: many streams of one layer, any of them stepped together, each as if it were alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, same_bits
from support.pools import CELLS, H, I, full_pool, random_state, same_state, states
from support.processes import script

import fastlstm
from fastlstm import StreamPool


def to_stream(state: Any) -> Any:
    """The state of a pool's stream as a stream of one row has it."""
    return tuple(s[:, None] for s in state) if isinstance(state, tuple) else state[:, None]


def of_stream(state: Any) -> Any:
    """The other way round."""
    return tuple(s[:, 0] for s in state) if isinstance(state, tuple) else state[:, 0]


def test_open_and_close(lstm: fastlstm.LSTM) -> None:
    """The lowest free slot, and never one that is open."""
    pool = StreamPool(lstm, 3)
    assert (len(pool), pool.capacity, pool.layer) == (0, 3, lstm)
    assert pool.open_slots.tolist() == []
    assert [pool.open() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="pool: all 3 slots are open; close one first"):
        pool.open()
    assert len(pool) == 3
    pool.close(2)
    pool.close(0)
    assert pool.open_slots.tolist() == [1]
    assert pool.open_slots.dtype == np.intp
    assert [type(pool.open()) for _ in range(2)] == [int, int]
    assert pool.open_slots.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_bits_are_those_of_a_stream_alone(
    rng: Generator, isa: str, cell: Callable[[str], Any], dtype: str
) -> None:
    """For every k, order and company."""
    layer, capacity = cell(dtype), 40
    pool = full_pool(layer, capacity, rng)
    alone = [layer.stream() for _ in range(capacity)]
    for slot, stream in enumerate(alone):
        stream.state = to_stream(pool.state(slot))
    for k in [*range(1, 14), 24, 31, 40, 1, 40]:
        slots = rng.permutation(capacity)[:k]
        x = rng.standard_normal((k, layer.input_size)).astype(dtype)
        y = pool.step(x, slots)
        assert (y.shape, y.dtype) == ((k, layer.hidden_size), layer.dtype)
        for x_t, y_t, slot in zip(x, y, slots, strict=True):
            assert same_bits(y_t, alone[slot].step(x_t))
    for slot, stream in enumerate(alone):
        assert same_state(pool.state(slot), of_stream(stream.state))


def test_no_streams_is_a_step_too(lstm: fastlstm.LSTM) -> None:
    pool = StreamPool(lstm, 2)
    assert pool.step(np.empty((0, I), "f4"), []).shape == (0, H)
    out = np.empty((0, H), "f4")
    assert pool.step(np.empty((0, I), "f4"), np.empty(0, np.intp), out) is out


class Twins:
    """A pool, and a dictionary of streams that live through the same."""

    def __init__(self, layer: Any, capacity: int, rng: Generator) -> None:
        self.pool, self.rng = StreamPool(layer, capacity), rng
        self.streams: dict[int, Any] = {}

    def open(self) -> None:
        layer, state = self.pool.layer, None
        if self.rng.random() < 0.3:
            state = random_state(layer, self.rng)
        if len(self.streams) == self.pool.capacity:
            with pytest.raises(RuntimeError):
                self.pool.open(state)
            return
        slot = self.pool.open(state)
        assert slot not in self.streams
        self.streams[slot] = layer.stream()
        self.set_stream(slot, state)

    def set_stream(self, slot: int, state: Any) -> None:
        self.streams[slot].state = None if state is None else to_stream(state)

    def some(self, most: int) -> Array:
        slots = self.rng.permutation(list(self.streams)).astype(np.intp)
        return slots[: int(self.rng.integers(1, most + 1))]

    def close(self) -> None:
        for slot in self.some(3):
            self.pool.close(slot)
            del self.streams[int(slot)]

    def set(self) -> None:
        for slot in self.some(1):
            state = random_state(self.pool.layer, self.rng) if self.rng.random() < 0.5 else None
            if state is None:
                self.pool.reset(slot)
            else:
                self.pool.set_state(slot, state)
            self.set_stream(slot, state)

    def step(self) -> None:
        slots, layer = self.some(8), self.pool.layer
        x = self.rng.standard_normal((len(slots), layer.input_size)).astype(layer.dtype)
        for x_t, y_t, slot in zip(x, self.pool.step(x, slots), slots, strict=True):
            assert same_bits(y_t, self.streams[slot].step(x_t))

    def check(self) -> None:
        assert len(self.pool) == len(self.streams)
        assert self.pool.open_slots.tolist() == sorted(self.streams)
        for slot, stream in self.streams.items():
            assert same_state(self.pool.state(slot), of_stream(stream.state))


@pytest.mark.parametrize("cell", [fastlstm.LSTM, fastlstm.GRU])
def test_ten_thousand_calls_in_any_order(rng: Generator, cell: Any) -> None:
    """Against a dictionary of streams, to the bit."""
    twins = Twins(cell(I, 18, 2, seed=1), 24, rng)
    calls = {"open": 0.25, "close": 0.1, "set": 0.1, "step": 0.55}
    for number, name in enumerate(rng.choice(list(calls), 10_000, p=list(calls.values()))):
        getattr(twins, name)()
        if number % 500 == 0:
            twins.check()
    twins.check()


def test_nothing_is_left_to_the_next_stream(lstm: fastlstm.LSTM, rng: Generator) -> None:
    pool = full_pool(lstm, 3, rng)
    x = rng.standard_normal((3, I)).astype("f4")
    pool.step(x, [0, 1, 2])
    others = [pool.state(0), pool.state(2)]
    pool.close(1)
    assert pool.open() == 1
    assert not any(part.any() for part in pool.state(1))
    assert same_bits(pool.step(x[1:2], [1])[0], lstm.stream().step(x[1]))
    assert all(map(same_state, [pool.state(0), pool.state(2)], others))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_stream_of_nan_is_alone(lstm: fastlstm.LSTM, rng: Generator, value: float) -> None:
    pool = full_pool(lstm, 9, rng)
    x = rng.standard_normal((9, I)).astype("f4")
    clean = full_pool(lstm, 9, np.random.default_rng(20260101))
    expected = clean.step(x, range(9))
    x[4] = value
    y = pool.step(x, range(9))
    others = [row for row in range(9) if row != 4]
    assert same_bits(y[others], expected[others])
    assert all(same_state(pool.state(s), clean.state(s)) for s in others)
    assert np.isnan(y[4]).any()


def test_states_are_copies(lstm: fastlstm.LSTM, rng: Generator) -> None:
    pool = StreamPool(lstm, 2)
    given = random_state(lstm, rng)
    kept = copy.deepcopy(given)
    slot = pool.open(given)
    for array in (*given, *pool.state(slot)):
        array[...] = 7
    assert same_state(pool.state(slot), kept)
    pool.set_state(slot, kept)
    kept[0][...] = 7
    assert not same_state(pool.state(slot), kept)
    pool.set_state(slot, None)
    assert not any(part.any() for part in pool.state(slot))


def test_streams_move(lstm: fastlstm.LSTM, rng: Generator) -> None:
    """From a call of the layer, into a pool, to another, and back."""
    x = rng.standard_normal((30, I)).astype("f4")
    y, state_n = lstm(x)
    y_1, state = lstm(x[:10])
    one, other = full_pool(lstm, 3, rng), full_pool(lstm, 5, rng)
    one.close(1)
    slot = one.open(state)
    y_2 = [one.step(x_t[None], [slot]) for x_t in x[10:17]]
    other.close(4)
    moved = other.open(pickle.loads(pickle.dumps(one.state(slot))))
    y_3 = [other.step(x_t[None], [moved]) for x_t in x[17:20]]
    y_4, state = lstm(x[20:], other.state(moved))
    assert same_bits(np.concatenate([y_1, *y_2, *y_3, y_4]), y)
    assert same_state(state, state_n)


def test_out(lstm: fastlstm.LSTM, rng: Generator) -> None:
    pool = full_pool(lstm, 4, rng)
    twin = full_pool(lstm, 4, np.random.default_rng(20260101))
    x, out = rng.standard_normal((3, I)).astype("f4"), np.full((3, H), np.nan, "f4")
    assert pool.step(x, [3, 0, 1], out=out) is out
    assert same_bits(out, twin.step(x, [3, 0, 1]))
    kept = twin.step(x, [3, 0, 1])
    before = kept.copy()
    twin.step(x, [3, 0, 1])
    assert same_bits(kept, before)


@pytest.mark.parametrize("shift", [0, 1, 300, 599])
def test_out_may_overlap_x(rng: Generator, shift: int) -> None:
    lstm = fastlstm.LSTM(200, 200, seed=1)
    memory = rng.random(1200, "f4")
    x, out = memory[:600].reshape(3, 200), memory[shift : shift + 600].reshape(3, 200)
    pool, twin = StreamPool(lstm, 3), StreamPool(lstm, 3)
    for each in (pool, twin):
        assert [each.open() for _ in range(3)] == [0, 1, 2]
    expected = twin.step(x.copy(), [2, 0, 1])
    assert same_bits(pool.step(x, [2, 0, 1], out=out), expected)


@pytest.mark.parametrize(
    "slots",
    [
        [2, 0, 3],
        (2, 0, 3),
        np.array([2, 0, 3], np.int32),
        np.array([2, 0, 3], np.uint8),
        np.array([2, 0, 3], np.uint64),
        np.array([2, 0, 3], ">i8"),
        np.array([2, 9, 0, 9, 3], np.intp)[::2],
        np.array([3, 0, 2], np.intp)[::-1],
        np.frombuffer(b"?" + np.array([2, 0, 3], np.intp).tobytes(), np.intp, offset=1),
    ],
    ids=repr,
)
def test_kinds_of_slots(lstm: fastlstm.LSTM, rng: Generator, slots: Any) -> None:
    pool, twin = (full_pool(lstm, 4, np.random.default_rng(1)) for _ in range(2))
    x = rng.standard_normal((3, I)).astype("f4")
    assert same_bits(pool.step(x, slots), twin.step(x, np.array([2, 0, 3], np.intp)))
    assert all(map(same_state, states(pool), states(twin)))


def test_layouts_of_x(lstm: fastlstm.LSTM, rng: Generator) -> None:
    x = rng.standard_normal((3, I)).astype("f4")
    expected = full_pool(lstm, 3, np.random.default_rng(1)).step(x, range(3))
    read_only = x.copy()
    read_only.flags.writeable = False
    for other in [
        np.asfortranarray(x),
        x[:, ::-1].copy()[:, ::-1],
        x.repeat(2, 0)[::2],
        x.repeat(2, 1)[:, ::2],
        read_only,
        np.frombuffer(b"?" + x.tobytes(), "f4", offset=1).reshape(3, I),
        memoryview(x.copy()),
    ]:
        assert same_bits(
            full_pool(lstm, 3, np.random.default_rng(1)).step(other, range(3)), expected
        )


def test_weights_of_now(lstm: fastlstm.LSTM, rng: Generator) -> None:
    """Every edit counts from the next step on; the state stays."""
    pool, stream = StreamPool(lstm, 2), lstm.stream()
    stream.state = to_stream(random_state(lstm, rng))
    pool.open()
    slot = pool.open()
    optimizer = fastlstm.optim.SGD(lstm.parameters, lr=0.1)

    def name() -> None:
        lstm.parameters["weight_hh_l1"] = lstm.parameters["weight_hh_l1"] * 2

    def flat() -> None:
        lstm.parameters.flat = lstm.parameters.flat * 0.5

    def train() -> None:
        y, _, tape = lstm.forward(np.ones((3, 2, I), "f4"))
        optimizer.step(lstm.backward(tape, np.ones_like(y))[2])

    def load() -> None:
        lstm.load_state_dict(fastlstm.LSTM(I, H, 2, seed=7).state_dict())

    x = rng.standard_normal(I).astype("f4")
    for edit in (name, flat, train, load):
        unedited = pool.step(x[None], [slot])[0]
        pool.set_state(slot, of_stream(stream.state))
        edit()
        y = pool.step(x[None], [slot])[0]
        assert not same_bits(y, unedited)
        assert same_bits(y, lstm.stream(1, stream.state).step(x))
        stream.step(x)


def test_the_example() -> None:
    text = script("examples/serve_streams.py", "--streams", "40", "--steps", "5", "--every", "0.01")
    assert "40 streams, 200 steps" in text
    assert "the bits of a stream alone: 40 of 40" in text


def test_the_benchmark() -> None:
    options = ["--hidden", "8", "--capacity", "20", "--seconds", "0.01", "--threads", "1"]
    text = script("benchmarks/stream_pool.py", *options)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| 8 ")]
    assert [int(row[1]) for row in rows] == [1, 8, 20]
    assert all(float(cell.replace(",", "").rstrip("x ")) > 0 for row in rows for cell in row)
