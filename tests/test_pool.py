"""Pools: many streams of one layer, any of them stepped together, each as if it were alone."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from oracle import Array, same_bits
from test_memory import MEGABYTE, growth
from test_threads import needs_openmp, python

import fastlstm
from fastlstm import StreamPool

I, H = 5, 4
CHECKOUT = Path(__file__).parent.parent


@pytest.fixture
def lstm() -> fastlstm.LSTM:
    return fastlstm.LSTM(I, H, 2, seed=1)


def parts(state: Any) -> tuple[Array, ...]:
    """(h, c), or (h,) of a cell that has no c."""
    return state if isinstance(state, tuple) else (state,)


def same_state(a: Any, b: Any) -> bool:
    return all(map(same_bits, parts(a), parts(b)))


def to_stream(state: Any) -> Any:
    """The state of a pool's stream as a stream of one row has it."""
    return tuple(s[:, None] for s in state) if isinstance(state, tuple) else state[:, None]


def of_stream(state: Any) -> Any:
    """The other way round."""
    return tuple(s[:, 0] for s in state) if isinstance(state, tuple) else state[:, 0]


def full_pool(layer: Any, capacity: int, rng: Generator) -> StreamPool:
    """All slots open, with random states."""
    pool = StreamPool(layer, capacity)
    for _ in range(capacity):
        pool.open(random_state(layer, rng))
    return pool


def random_state(layer: Any, rng: Generator) -> Any:
    shape = (2, layer.num_layers, layer.hidden_size)
    h, c = rng.standard_normal(shape).astype(layer.dtype)
    return (h, c) if isinstance(layer, fastlstm.LSTM) else h


def states(pool: StreamPool) -> list[Any]:
    return [pool.state(slot) for slot in pool.open_slots]


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


CELLS: dict[str, Callable[[str], Any]] = {
    "LSTM": lambda dtype: fastlstm.LSTM(7, 20, 2, dtype=dtype, seed=1),
    "LSTM, one layer, wide": lambda dtype: fastlstm.LSTM(33, 130, dtype=dtype, seed=1),
    "GRU": lambda dtype: fastlstm.GRU(7, 20, 3, dtype=dtype, seed=1),
    "RNN": lambda dtype: fastlstm.RNN(7, 20, 2, dtype=dtype, seed=1),
}


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


ONES = np.ones((2, I), "f4")

BAD_STEPS: list[tuple[Any, Any, type[Exception], str]] = [
    (ONES, [0, 0], ValueError, "slots: expected each slot once, got 0 again"),
    (ONES, [2, 1], ValueError, "slots: expected open slots, got 1, which is closed"),
    (ONES, [2, 4], ValueError, "slots: expected slots from 0 to 3, got 4"),
    (ONES, [0, -1], ValueError, "slots: expected slots from 0 to 3, got -1"),
    (ONES, [0, 1 << 62], ValueError, "slots: expected slots from 0 to 3, got 46116860184273"),
    (np.ones((9, I), "f4"), [0, 2, 3] * 3, ValueError, "slots: expected each slot once, got 0"),
    (ONES, [0.0, 2.0], TypeError, "slots: expected an array of integers, got float64"),
    (ONES, [True, False], TypeError, "slots: expected an array of integers, got bool"),
    (ONES, [[0], [2, 3]], TypeError, "slots: expected an array of integers, got"),
    (ONES, [0, 1 << 70], TypeError, "slots: expected an array of integers, got object"),
    (ONES, None, TypeError, "slots: expected an array of integers, got object"),
    (ONES, [[0, 2]], ValueError, r"slots: expected \(k,\), got \(1, 2\)"),
    (ONES[0], 0, ValueError, r"slots: expected \(k,\), got \(\)"),
    (ONES, [0, 2, 3], ValueError, r"x: expected \(3, 5\), got \(2, 5\)"),
    (ONES, [], ValueError, r"x: expected \(0, 5\), got \(2, 5\)"),
    (ONES[0], [0], ValueError, r"x: expected \(1, 5\), got \(5,\)"),
    (ONES[:, :4], [0, 2], ValueError, r"x: expected \(2, 5\), got \(2, 4\)"),
    (ONES.astype("f8"), [0, 2], TypeError, "x: expected float32, got float64; cast it with"),
    (None, [0, 2], TypeError, "x: expected float32, got object"),
]


@pytest.mark.parametrize(("x", "slots", "error", "message"), BAD_STEPS)
def test_refused_steps_change_nothing(
    lstm: fastlstm.LSTM, rng: Generator, x: Any, slots: Any, error: type[Exception], message: str
) -> None:
    pool = full_pool(lstm, 4, rng)
    pool.close(1)
    before, out = states(pool), np.zeros((len(x) if x is not None else 2, H), "f4")
    with pytest.raises(error, match=message) as caught:
        pool.step(x, slots, out)
    assert caught.type is error
    assert not out.any()
    assert all(map(same_state, states(pool), before))
    assert pool.step(ONES, [3, 0]).shape == (2, H)


@pytest.mark.parametrize(
    "out",
    [
        np.ones((3, 5), "f4"),
        np.ones((2, 4), "f4"),
        np.ones(12, "f4"),
        np.ones((3, 4)),
        np.ones((4, 3), "f4").T,
        np.broadcast_to(np.float32(1), (3, 4)),
        np.frombuffer(bytes(48), "f4").reshape(3, 4),
        [[1.0] * 4] * 3,
    ],
)
def test_refused_out_changes_nothing(lstm: fastlstm.LSTM, rng: Generator, out: Any) -> None:
    pool = full_pool(lstm, 3, rng)
    before = states(pool)
    expected = r"out: expected a writable C-contiguous float32 array \(3, 4\)"
    with pytest.raises(ValueError, match=expected):
        pool.step(np.ones((3, I), "f4"), range(3), out=out)
    assert all(map(same_state, states(pool), before))


CALLS: dict[str, Callable[[StreamPool, Any], Any]] = {
    "close": lambda pool, slot: pool.close(slot),
    "reset": lambda pool, slot: pool.reset(slot),
    "state": lambda pool, slot: pool.state(slot),
    "set_state": lambda pool, slot: pool.set_state(slot, None),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_refused_slots_change_nothing(lstm: fastlstm.LSTM, rng: Generator, call: Any) -> None:
    pool = full_pool(lstm, 3, rng)
    pool.close(1)
    before = states(pool)
    for slot, error, message in [
        (1, ValueError, "slot: expected an open slot, got 1, which is closed"),
        (3, ValueError, "slot: expected at most 2, got 3"),
        (-1, ValueError, "slot: expected at least 0, got -1"),
        (1 << 70, ValueError, "slot: expected at most 2"),
        (0.0, TypeError, "slot: expected an integer, got float"),
        ([0], TypeError, "slot: expected an integer, got list"),
    ]:
        with pytest.raises(error, match=message):
            call(pool, slot)
    assert all(map(same_state, states(pool), before))
    assert pool.open_slots.tolist() == [0, 2]
    call(pool, np.int32(2))


def test_refused_states_change_nothing(lstm: fastlstm.LSTM, rng: Generator) -> None:
    pool = full_pool(lstm, 2, rng)
    pool.close(0)
    before = states(pool)
    good, bad = np.zeros((2, H), "f4"), np.zeros((2, 1, H), "f4")
    for value in [(good, bad), (bad, good), (good,), good, 3, (good, good.astype("f8"))]:
        for call in (pool.open, lambda state: pool.set_state(1, state)):
            with pytest.raises((TypeError, ValueError), match=r"^(state|h_0|c_0): expected"):
                call(value)
    assert pool.open_slots.tolist() == [1]
    assert all(map(same_state, states(pool), before))


def test_refused_pools(lstm: fastlstm.LSTM) -> None:
    with pytest.raises(ValueError, match="layer: expected one direction, got a bidirectional"):
        StreamPool(fastlstm.LSTM(I, H, bidirectional=True), 4)
    with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN, got Stream"):
        StreamPool(lstm.stream(), 4)  # type: ignore[arg-type]
    for capacity in (0, -1, 1 << 60):
        with pytest.raises(ValueError, match="capacity: "):
            StreamPool(lstm, capacity)
    for wrong in (1.5, None, True, "4"):
        with pytest.raises(TypeError, match="capacity: expected an integer"):
            StreamPool(lstm, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        StreamPool.__new__(StreamPool)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_pools_are_not_copied(lstm: fastlstm.LSTM, duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="a StreamPool cannot be pickled or copied; open"):
        duplicate(StreamPool(lstm, 2))


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


def test_edits_under_way(rng: Generator) -> None:
    """A step computes with the parameters of one moment, old or new, never with both."""
    lstm = fastlstm.LSTM(20, 64, seed=1)
    one, two = lstm.parameters.flat.copy(), lstm.parameters.flat * 2
    x, allowed = rng.random((40, 20), "f4"), set()
    for flat in (one, two):
        lstm.parameters.flat = flat
        allowed |= {y.tobytes() for y in lstm(x[None])[0][0]}
    pool = StreamPool(lstm, 160)
    mine = [[pool.open() for _ in range(40)] for _ in range(4)]

    def steps(slots: list[int]) -> set[bytes]:
        found = set()
        for _ in range(50):
            found |= {y.tobytes() for y in pool.step(x, slots)}
            for slot in slots:
                pool.reset(slot)
        return found

    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(steps, slots) for slots in mine]
        for k in range(200):
            lstm.parameters.flat = (one, two)[k % 2]
        for call in calls:
            assert call.result() <= allowed


@pytest.mark.parametrize("hidden", [16, 100])
@pytest.mark.parametrize("team", [1, 2])
def test_many_threads_at_once(rng: Generator, team: int, hidden: int) -> None:
    """16 threads, 64 streams in one pool, batches of changing sizes; to the bit as one by one.

    Steps of the smaller layer keep the GIL, those of the larger one give it away.
    """
    before = fastlstm.get_num_threads()
    fastlstm.set_num_threads(team)
    lstm, T = fastlstm.LSTM(20, hidden, 2, seed=1), 40
    pool = StreamPool(lstm, 64)
    slots = rng.permutation([pool.open() for _ in range(64)]).reshape(16, 4)
    x = rng.standard_normal((64, T, 20)).astype("f4")
    y = np.empty((64, T, hidden), "f4")
    start = threading.Barrier(16)

    def walk(number: int) -> None:
        mine, at = slots[number], np.zeros(4, int)
        generator = np.random.default_rng(number)
        start.wait()
        while (at < T).any():
            chosen = generator.permutation(np.flatnonzero(at < T))
            chosen = chosen[: int(generator.integers(1, 5))]
            rows = mine[chosen]
            y[rows, at[chosen]] = pool.step(x[rows, at[chosen]], rows)
            at[chosen] += 1

    try:
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(walk, range(16)))
    finally:
        fastlstm.set_num_threads(before)
    assert same_bits(y, lstm(x.swapaxes(0, 1))[0].swapaxes(0, 1).copy())


def test_many_threads_open_and_close(lstm: fastlstm.LSTM) -> None:
    """No slot is given to two, and a state is seen by nobody else."""
    pool, refused = StreamPool(lstm, 10), []

    def live(number: int) -> None:
        mark = np.full((2, H), number, "f4")
        for _ in range(300):
            try:
                slot = pool.open((mark, mark))
            except RuntimeError:
                refused.append(number)
                continue
            assert all((part == number).all() for part in pool.state(slot))
            pool.step(np.ones((1, I), "f4"), [slot])
            assert (pool.state(slot)[0] != number).all()
            pool.close(slot)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(live, range(1, 17)))
    assert len(pool) == 0
    assert [pool.open() for _ in range(10)] == list(range(10))
    for slot in range(10):
        assert not any(part.any() for part in pool.state(slot))


@needs_openmp
def test_teams(rng: Generator) -> None:
    """Workers that share the rows, and the hidden units; their number may change."""
    before = fastlstm.get_num_threads()
    lstm = fastlstm.LSTM(40, 300, 2, seed=1)
    pool, alone = StreamPool(lstm, 64), [lstm.stream() for _ in range(64)]
    for _ in range(64):
        pool.open()
    try:
        for k in (1, 2, 3, 17, 64):
            for threads in (1, 2, 3):
                fastlstm.set_num_threads(threads)
                slots = rng.permutation(64)[:k]
                x = rng.standard_normal((k, 40)).astype("f4")
                for x_t, y_t, slot in zip(x, pool.step(x, slots), slots, strict=True):
                    assert same_bits(y_t, alone[slot].step(x_t))
    finally:
        fastlstm.set_num_threads(before)


# A pool in a forked child: its team is gone, and a thread that held its lock as well.
FORK = """
import os, signal, sys, threading, time
import numpy as np
import fastlstm

fastlstm.set_num_threads(2)
lstm = fastlstm.LSTM(64, 400, seed=1)
pool = fastlstm.StreamPool(lstm, 41)
slots = np.array([pool.open() for _ in range(41)])
x = np.ones((41, 64), np.float32)
expected = lstm.stream().step(x[0]).tobytes()
done = threading.Event()

def keep_stepping():
    while not done.is_set():
        pool.step(x[:40], slots[:40])

pool.step(x[:40], slots[:40])  # with a team
threads = [threading.Thread(target=keep_stepping) for _ in range({threads})]
for thread in threads:
    thread.start()
for _ in range(20):
    time.sleep(0.003)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        same = pool.step(x[40:], slots[40:]).tobytes() == expected
        pool.step(x, slots)
        os._exit(0 if same and fastlstm.get_num_threads() == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0, "the child hangs or differs"
done.set()
for thread in threads:
    thread.join()
assert pool.step(x[40:], slots[40:]).tobytes() == expected
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("threads", [0, 1])
def test_forked_children(threads: int) -> None:
    assert python(FORK.format(threads=threads), PYTHONWARNINGS="ignore") == "done"


FINALIZER = """
import gc, faulthandler
import numpy as np
import fastlstm

faulthandler.dump_traceback_later(30, exit=True)
lstm = fastlstm.LSTM(4, 4, seed=0)
pool = fastlstm.StreamPool(lstm, 50)
closed = []

class Session:
    def __init__(self):
        self.me, self.slot = self, pool.open()

    def __del__(self):
        pool.close(self.slot)
        closed.append(self.slot)

gc.set_threshold(1)
kept = pool.open()
for k in range(2000):
    Session()
    pool.step(np.ones((1, 4), np.float32), [kept])
    pool.step([np.ones(4, np.float32)], (kept,))
    if k % 10 == 0:
        lstm.parameters.flat = lstm.parameters.flat
    pool.state(kept), pool.open_slots
    try:
        pool.step(np.ones((2, 4), np.float32), [kept, kept])
    except ValueError:
        pass
print(len(closed) > 1000)
"""


def test_finalizers_may_close_slots() -> None:
    """A garbage collection runs them in the middle of any call."""
    assert python(FINALIZER) == "True"


def test_memory_is_flat(rng: Generator) -> None:
    """Over steps of many sizes, and over pools made and dropped."""
    lstm = fastlstm.LSTM(12, 24, 3, seed=0)
    pool, x = full_pool(lstm, 40, rng), np.ones((40, 12), np.float32)
    slots = rng.permutation(40)

    def step() -> None:
        k = int(rng.integers(1, 40))
        pool.close(slots[k])
        assert pool.open() == slots[k]
        pool.step(x[:k], slots[:k])

    assert growth(step, 500, 5000) < MEGABYTE

    def make() -> None:
        made = full_pool(lstm, 20, rng)
        made.step(x[:20], range(20))

    assert growth(make, 100, 1000) < MEGABYTE


def test_a_step_leaves_no_objects_behind(lstm: fastlstm.LSTM, rng: Generator) -> None:
    pool = full_pool(lstm, 9, rng)
    x, out, slots = np.ones((9, I), "f4"), np.empty((9, H), "f4"), np.arange(9)
    arguments = [(x[:k], slots[:k], out[:k]) for k in (9, 4, 1)]
    for step in arguments:
        pool.step(*step)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(300):
        for step in arguments:
            pool.step(*step)
    assert sys.getallocatedblocks() - before < 10


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(CHECKOUT / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_example() -> None:
    text = run("examples/serve_streams.py", "--streams", "40", "--steps", "5", "--every", "0.01")
    assert "40 streams, 200 steps" in text
    assert "the bits of a stream alone: 40 of 40" in text


def test_the_benchmark() -> None:
    options = ["--hidden", "8", "--capacity", "20", "--seconds", "0.01", "--threads", "1"]
    text = run("bench/stream_pool.py", *options)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| 8 ")]
    assert [int(row[1]) for row in rows] == [1, 8, 20]
    assert all(float(cell.replace(",", "").rstrip("x ")) > 0 for row in rows for cell in row)
