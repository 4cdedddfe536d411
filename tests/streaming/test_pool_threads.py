"""Pools used by many threads, in forked children, by finalizers; and their memory."""

from __future__ import annotations

import gc
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import same_bits
from support.memory import MEGABYTE, growth
from support.pools import H, I, full_pool
from support.processes import needs_openmp, python

import fastlstm
from fastlstm import StreamPool


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
    pool.run(np.ones((3, 1, 4), np.float32), [kept])
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
        made = StreamPool(lstm, 2000)
        for _ in range(20):
            made.open()
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
