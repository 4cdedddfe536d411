"""Blocks of steps of some streams of a pool: as a loop of steps, and as a stream alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator as Random
from support.compare import Array, same_bits
from support.pools import CELLS, H, I, full_pool, random_state, same_state, states
from support.processes import needs_openmp

import fastlstm
from fastlstm import StreamPool

T = 6


def twins(layer: Any, capacity: int) -> tuple[StreamPool, StreamPool]:
    """Two pools of streams in the same states."""
    one, other = (full_pool(layer, capacity, np.random.default_rng(1)) for _ in range(2))
    return one, other


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_bits_are_those_of_steps(
    rng: Random, isa: str, cell: Callable[[str], Any], dtype: str
) -> None:
    """For every k, order, company and length."""
    layer, capacity = cell(dtype), 20
    pool, stepped = twins(layer, capacity)
    for k in [1, 2, 3, 5, 8, 13, 20, 1]:
        slots, steps = rng.permutation(capacity)[:k], int(rng.integers(1, 40))
        x = rng.standard_normal((steps, k, layer.input_size)).astype(dtype)
        y = pool.run(x, slots)
        assert same_bits(y, np.stack([stepped.step(x_t, slots) for x_t in x]))
        assert same_bits(pool.step(x[0], slots), stepped.step(x[0], slots))
    assert all(map(same_state, states(pool), states(stepped)))


def test_bits_are_those_of_a_stream(lstm: fastlstm.LSTM, rng: Random) -> None:
    pool = StreamPool(lstm, 9)
    slots = [pool.open() for _ in range(9)][::-2]
    x = rng.standard_normal((T, 5, I)).astype("f4")
    stream = lstm.stream(5)
    assert same_bits(pool.run(x, slots), stream.run(x))
    assert same_bits(pool.run(x, slots), stream.run(x))


def test_nothing_to_do(lstm: fastlstm.LSTM, rng: Random) -> None:
    pool = full_pool(lstm, 2, rng)
    before = states(pool)
    for shape, slots in [((0, 2), [1, 0]), ((T, 0), [])]:
        out = np.empty((*shape, H), "f4")
        assert pool.run(np.empty((*shape, I), "f4"), slots, out) is out
        assert pool.run(np.empty((*shape, I), "f4"), slots).shape == out.shape
    assert all(map(same_state, states(pool), before))


def test_out(lstm: fastlstm.LSTM, rng: Random) -> None:
    pool, twin = twins(lstm, 4)
    x, out = rng.standard_normal((T, 3, I)).astype("f4"), np.full((T, 3, H), np.nan, "f4")
    assert pool.run(x, [3, 0, 1], out=out) is out
    assert same_bits(out, twin.run(x, [3, 0, 1]))


@pytest.mark.parametrize("shift", [0, 1, 300, 1199])
def test_out_may_overlap_x(rng: Random, shift: int) -> None:
    lstm = fastlstm.LSTM(200, 200, seed=1)
    memory = rng.random(2400, "f4")
    x, out = (memory[at : at + 1200].reshape(2, 3, 200) for at in (0, shift))
    pool, twin = twins(lstm, 3)
    expected = twin.run(x.copy(), [2, 0, 1])
    assert same_bits(pool.run(x, [2, 0, 1], out=out), expected)


def test_layouts_of_x(lstm: fastlstm.LSTM, rng: Random) -> None:
    x = rng.standard_normal((T, 3, I)).astype("f4")
    expected = twins(lstm, 3)[0].run(x, range(3))
    read_only = x.copy()
    read_only.flags.writeable = False
    for other in [
        x.swapaxes(0, 1).copy().swapaxes(0, 1),
        x[::-1].copy()[::-1],
        x.repeat(2, 1)[:, ::2],
        x.repeat(2, 2)[..., ::2],
        np.asfortranarray(x),
        read_only,
        np.frombuffer(b"?" + x.tobytes(), "f4", offset=1).reshape(x.shape),
        memoryview(x.copy()),
    ]:
        pool = twins(lstm, 3)[0]
        assert same_bits(pool.run(other, range(3)), expected)
        pool = twins(lstm, 3)[0]
        assert same_bits(
            np.stack([pool.step(x_t, range(3)) for x_t in np.asarray(other)]), expected
        )


ONES = np.ones((T, 2, I), "f4")

BAD_RUNS: list[tuple[Any, Any, type[Exception], str]] = [
    (ONES, [0, 0], ValueError, "slots: expected each slot once, got 0 again"),
    (ONES, [2, 1], ValueError, "slots: expected open slots, got 1, which is closed"),
    (ONES, [2, 4], ValueError, "slots: expected slots from 0 to 3, got 4"),
    (ONES, [0.0, 2.0], TypeError, "slots: expected an array of integers, got float64"),
    (ONES, [0, 2, 3], ValueError, r"x: expected \(T, 3, 5\), got \(6, 2, 5\)"),
    (ONES[0], [0, 2], ValueError, r"x: expected \(T, 2, 5\), got \(2, 5\)"),
    (ONES[..., :4], [0, 2], ValueError, r"x: expected \(T, 2, 5\), got \(6, 2, 4\)"),
    (ONES.astype("f8"), [0, 2], TypeError, "x: expected float32, got float64; cast it with"),
    (np.ma.masked_equal(ONES, 1), [0, 2], ValueError, "x: expected an array without masked"),
]


@pytest.mark.parametrize(("x", "slots", "error", "message"), BAD_RUNS)
def test_refused_runs_change_nothing(
    lstm: fastlstm.LSTM, rng: Random, x: Any, slots: Any, error: type[Exception], message: str
) -> None:
    pool = full_pool(lstm, 4, rng)
    pool.close(1)
    before, out = states(pool), np.zeros((*x.shape[:-1], H), "f4")
    with pytest.raises(error, match=message) as caught:
        pool.run(x, slots, out)
    assert caught.type is error
    assert not out.any()
    assert all(map(same_state, states(pool), before))
    assert pool.run(ONES, [3, 0]).shape == (T, 2, H)


@pytest.mark.parametrize(
    "out",
    [
        np.ones((T, 3, 5), "f4"),
        np.ones((T - 1, 3, 4), "f4"),
        np.ones((3, 4), "f4"),
        np.ones((T, 3, 4)),
        np.ones((T, 4, 3), "f4").swapaxes(1, 2),
        np.broadcast_to(np.float32(1), (T, 3, 4)),
        [[[1.0] * 4] * 3] * T,
    ],
)
def test_refused_out_changes_nothing(lstm: fastlstm.LSTM, rng: Random, out: Any) -> None:
    pool = full_pool(lstm, 3, rng)
    before = states(pool)
    expected = r"out: expected a writable C-contiguous float32 array \(6, 3, 4\)"
    with pytest.raises(ValueError, match=expected):
        pool.run(np.ones((T, 3, I), "f4"), range(3), out=out)
    assert all(map(same_state, states(pool), before))


@needs_openmp
def test_teams(rng: Random) -> None:
    """Workers that share the rows, and the hidden units; their number may change."""
    before = fastlstm.get_num_threads()
    pool, stepped = twins(fastlstm.LSTM(40, 300, 2, seed=1), 64)
    try:
        for k in (1, 3, 17, 64):
            for threads in (1, 2, 3):
                fastlstm.set_num_threads(threads)
                slots = rng.permutation(64)[:k]
                x = rng.standard_normal((T, k, 40)).astype("f4")
                expected = np.stack([stepped.step(x_t, slots) for x_t in x])
                assert same_bits(pool.run(x, slots), expected)
    finally:
        fastlstm.set_num_threads(before)
    assert all(map(same_state, states(pool), states(stepped)))


# Long runs: they are cut, and in between others have their turns.

LONG = 8000  # steps, about half a second


def long_run(rng: Random) -> tuple[StreamPool, Array]:
    """A pool of six streams, and input for a long run of four."""
    pool = full_pool(fastlstm.LSTM(8, 256, seed=0), 6, rng)
    return pool, rng.standard_normal((LONG, 4, 8)).astype("f4")


@pytest.fixture
def at_a_signal() -> Generator[Callable[[Callable[[], Any]], Array], None, None]:
    """Has something called by a handler, once, after the first steps of a run into an array."""
    before = signal.getsignal(signal.SIGUSR1)
    threads = []

    def arrange(action: Callable[[], Any]) -> Array:
        y = np.full((LONG, 4, 256), np.nan, np.float32)

        def send() -> None:
            while np.isnan(y[0, 0, 0]):
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, lambda *_: action())
        threads.append(threading.Thread(target=send, daemon=True))
        threads[0].start()
        return y

    yield arrange
    for thread in threads:
        thread.join(60)
    signal.signal(signal.SIGUSR1, before)


needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals")


class Stop(Exception):
    """What a handler raises."""


def stop() -> None:
    raise Stop


@needs_signals
def test_an_interrupted_run_moves_no_stream(rng: Random, at_a_signal: Any) -> None:
    pool, x = long_run(rng)
    before = states(pool)
    out = at_a_signal(stop)
    with pytest.raises(Stop):
        pool.run(x, [4, 0, 3, 1], out)
    assert all(map(same_state, states(pool), before))
    y = pool.run(x[:5], [4, 0, 3, 1])
    for slot, state in enumerate(before):
        pool.set_state(slot, state)
    assert same_bits(pool.run(x[:5], [4, 0, 3, 1]), y)


@needs_signals
def test_a_handler_uses_the_pool_that_it_interrupts(rng: Random, at_a_signal: Any) -> None:
    """For another stream, in a batch of another size; and the run goes on with the right bits."""
    pool, x = long_run(rng)
    twin = full_pool(pool.layer, 6, np.random.default_rng(1))
    for slot, state in enumerate(states(pool)):
        twin.set_state(slot, state)
    slots, seen = np.array([4, 0, 3, 1]), []

    def handle() -> None:
        seen.append(pool.step(x[0, :1], [5]))
        slots[:] = 99  # the run has its own

    y = at_a_signal(handle)
    pool.run(x, slots, y)
    assert len(seen) == 1
    assert same_bits(seen[0], twin.step(x[0, :1], [5]))
    for first in range(0, LONG, 500):
        part = slice(first, first + 500)
        assert same_bits(y[part], twin.run(x[part], [4, 0, 3, 1]))
    assert all(map(same_state, states(pool), states(twin)))


@needs_signals
@pytest.mark.parametrize("open_again", [False, True])
def test_a_stream_is_closed_during_a_run(rng: Random, at_a_signal: Any, open_again: bool) -> None:
    """The run ends, the others are as before, and a new stream in the slot is left alone."""
    pool, x = long_run(rng)
    before, state = states(pool), random_state(pool.layer, rng)

    def handle() -> None:
        pool.close(3)
        if open_again:
            assert pool.open(state) == 3

    out = at_a_signal(handle)
    message = "slots: expected open slots, got 3, which is closed"
    with pytest.raises(ValueError, match=message):
        pool.run(x, [4, 0, 3, 1], out)
    for slot in (0, 1, 2, 4, 5):
        assert same_state(pool.state(slot), before[slot])
    if open_again:
        assert same_state(pool.state(3), state)


def test_other_threads_have_turns_during_a_run(rng: Random) -> None:
    """One that waits for the pool has it at the next cut, of which there are ten."""
    pool, x = long_run(rng)
    begun, done, turns = threading.Event(), threading.Event(), []

    def step() -> None:
        while not done.is_set():
            turns.append(pool.step(x[0, :1], [5]))
            begun.set()

    thread = threading.Thread(target=step)
    thread.start()
    begun.wait()
    first = len(turns)
    pool.run(x, [4, 0, 3, 1])
    during = len(turns) - first
    done.set()
    thread.join()
    assert during >= 3
