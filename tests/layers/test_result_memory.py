"""Memory of large results is used again when they die; never for two at a time, never too much."""

from __future__ import annotations

import os
import pickle
import random
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.processes import python, script

import fastlstm
from fastlstm._core import memory

Array = NDArray[Any]
F32 = np.dtype(np.float32)
MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    fastlstm.release_memory()


def address(array: Array) -> int:
    return int(array.ctypes.data)


def megabytes(count: float, dtype: Any = F32) -> Array:
    return memory.empty((int(count * MEGABYTE) // dtype.itemsize,), dtype)


# Arrays


def test_they_are_arrays_like_others() -> None:
    y = memory.empty((300, 4, 256), F32)
    assert (y.shape, y.dtype, y.base) == ((300, 4, 256), F32, None)
    assert y.flags.owndata
    assert y.flags.c_contiguous
    assert y.flags.writeable
    assert address(y) % 64 == 0
    y[...] = np.arange(y.size).reshape(y.shape)
    assert (pickle.loads(pickle.dumps(y)) == y).all()
    assert (y.copy() == y).all()


def test_resize() -> None:
    for count in (500_000, 1000, 200_000):
        y = memory.empty((100_000,), F32)
        y[...] = np.arange(y.size)
        y.resize(count, refcheck=False)
        both = min(count, 100_000)
        assert (y[:both] == np.arange(both)).all()
        assert (y[both:] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros_are_zero_in_used_memory(dtype: Any) -> None:
    y = megabytes(1, np.dtype(dtype))
    y.fill(7)
    before, shape = address(y), y.shape
    del y
    zeros = memory.zeros(shape, np.dtype(dtype))
    assert address(zeros) == before
    assert not zeros.any()


def test_other_arrays_are_numpys() -> None:
    """The handler is put back, also when there is not enough memory."""
    used = memory.usage()
    arrays = [megabytes(1)]
    with pytest.raises(MemoryError):
        memory.empty((1 << 60,), F32)
    arrays += [np.empty(MEGABYTE), memory.empty((100,), F32)]
    assert memory.usage()[0] - used[0] == MEGABYTE


def test_tracemalloc_sees_them() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        y = megabytes(3)
        assert 0 <= tracemalloc.get_traced_memory()[0] - before - y.nbytes < MEGABYTE // 10
        del y
        assert abs(tracemalloc.get_traced_memory()[0] - before) < MEGABYTE // 10
    finally:
        tracemalloc.stop()


# Use


def test_memory_is_used_again_when_the_last_view_dies() -> None:
    y = megabytes(2)
    before, view = address(y), y[5:][::2]
    del y
    assert address(megabytes(2)) != before
    del view
    assert address(megabytes(2)) == before
    assert address(megabytes(1.1)) == before  # a block that is less than twice as large
    assert address(megabytes(0.9)) != before
    assert address(megabytes(2.1)) != before


def test_a_loop_that_keeps_its_last_results_needs_no_more_memory() -> None:
    lstm = fastlstm.LSTM(64, 96, seed=0)
    x = np.ones((40, 64, 64), np.float32)
    held = []
    for _ in range(6):
        y, _, tape = lstm.forward(x)
        dx, _, grads = lstm.backward(tape, y)
        held.append(sum(memory.usage()))
    assert held[2:] == held[2:3] * 4
    assert dx is not None
    assert grads.flat.size


def test_all_large_results_come_from_here() -> None:
    """y, states, dx, gradients, what heads give, blocks of streams and pools; tapes and weights."""
    lstm = fastlstm.LSTM(64, 96, 2, seed=0)
    x = np.ones((40, 256, 64), np.float32)
    y, state, tape = lstm.forward(x)
    dx, dstate, grads = lstm.backward(tape, y, state)
    pool = fastlstm.StreamPool(lstm, 256)
    slots = [pool.open() for _ in range(256)]
    trace = lstm.trace(x)[1]
    results = [y, *state, dx, *dstate, grads.flat, lstm.stream(256).run(x), pool.run(x, slots)]
    assert all(array.nbytes >= 128 << 10 for array in [*results, *trace])
    for array in [*results, *trace]:
        owner = array if array.base is None else array.base
        before, nbytes = memory.usage()[0], owner.nbytes
        owner.resize(0, refcheck=False)  # NumPy gives its memory back
        assert 0 <= before - memory.usage()[0] - nbytes < nbytes
    assert given_back(lambda: lstm.forward(x)[2]._buffer) > 0
    assert given_back(lambda: fastlstm.LSTM(96, 96)._packed_weights()) > 0


def given_back(make: Callable[[], object]) -> int:
    """Bytes that are no longer in use when what this makes dies."""
    made = make()
    before = memory.usage()[0]
    del made
    return before - memory.usage()[0]


def change(live: dict[int, tuple[Array, Array, int]], draw: random.Random, mark: int) -> None:
    """Make, check, view or drop arrays, each full of a number of its own."""
    if len(live) < 12 and draw.random() < 0.6:
        size = int(2 ** draw.uniform(14, 19))
        array = (memory.empty if draw.random() < 0.7 else memory.zeros)((size,), F32)
        array.fill(mark)
        live[mark] = array, array, mark
    elif live:
        array, view, number = live.pop(draw.choice(list(live)))
        assert (view == number).all()
        if draw.random() < 0.5:  # a part of it lives on
            part = view[draw.randrange(len(view)) :]
            live[number] = part, part, number


@pytest.mark.parametrize("seed", range(3))
def test_no_two_arrays_share_memory(seed: int) -> None:
    draw, live = random.Random(seed), {}
    for mark in range(1, 800):
        change(live, draw, mark)
    assert all((view == number).all() for _, view, number in live.values())


def test_threads_share_nothing_and_free_what_others_made() -> None:
    errors: list[BaseException] = []
    shared: dict[int, list[Array]] = {}

    def work(number: int) -> None:
        try:
            draw, live = random.Random(number), {}
            for turn in range(300):
                change(live, draw, 1 + number + 4 * turn)
                array = megabytes(draw.choice([0.2, 0.5, 1]))
                array.fill(turn)
                shared[turn % 7] = [array]  # whoever replaces it frees it
                assert (array == turn).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# Limits


def test_as_much_is_kept_as_was_in_use_at_once() -> None:
    for _ in range(2 * 256):  # what was in use before is forgotten
        megabytes(1)
    fastlstm.release_memory()
    used = memory.usage()[0]
    arrays = [megabytes(16) for _ in range(8)]
    assert memory.usage()[0] - used == 128 * MEGABYTE
    while arrays:
        arrays.pop()
    assert memory.usage() == (used, 128 * MEGABYTE)
    for _ in range(2 * 256):
        megabytes(1)
    assert 48 * MEGABYTE <= memory.usage()[1] <= 64 * MEGABYTE


def test_what_was_used_longest_ago_goes_first() -> None:
    for _ in range(2 * 256):
        megabytes(1)
    fastlstm.release_memory()
    sizes = (6, 12, 24)  # none fits another
    arrays = [megabytes(size) for size in sizes]
    before = [address(array) for array in arrays]
    del arrays
    megabytes(6)
    megabytes(28)  # of 70 MiB the 24 go, which died before the 12
    assert memory.usage()[1] == 46 * MEGABYTE
    arrays = [megabytes(size) for size in sizes]
    assert [address(array) for array in arrays[:2]] == before[:2]


SETTING = """
import fastlstm
import numpy as np
from fastlstm._core import memory
size = {size} << 18
for _ in range(2):
    y = memory.empty((size,), np.dtype("f4"))
    del y
print(*memory.usage(), fastlstm.release_memory(), *memory.usage())
"""


@pytest.mark.parametrize(
    ("value", "size", "kept"),
    [(None, 1000, 1024), (None, 1100, 0), ("", 5, 5), ("8", 8, 8), ("8", 9, 0), ("0", 5, 0)],
)
def test_setting(value: str | None, size: int, kept: int) -> None:
    found = python(SETTING.format(size=size), FASTLSTM_KEEP_MEMORY=value)
    assert found == f"0 {kept * MEGABYTE} {kept * MEGABYTE} 0 0"


def test_without_it_arrays_are_numpys() -> None:
    code = """
import numpy as np, fastlstm
from fastlstm._core import memory
lstm = fastlstm.LSTM(64, 64)
y, _, tape = lstm.forward(np.ones((100, 32, 64), np.float32))
results = lstm.backward(tape, y)
print(*memory.usage(), np._core.multiarray.get_handler_name(y))
"""
    assert python(code, FASTLSTM_KEEP_MEMORY="0") == "0 0 default_allocator"


def test_nothing_goes_for_a_block_that_is_too_large() -> None:
    code = """
import numpy as np
from fastlstm._core import memory
for size in (5, 9):
    memory.empty((size << 18,), np.dtype("f4"))
print(*memory.usage())
"""
    assert python(code, FASTLSTM_KEEP_MEMORY="8") == f"0 {5 * MEGABYTE}"


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "1 GiB", "\u0663"])
def test_wrong_setting(value: str) -> None:
    code = """
import numpy as np, fastlstm
for _ in range(2):
    try:
        fastlstm.LSTM(2, 3)(np.ones((4, 2), np.float32))
    except ValueError as error:
        print(ascii(str(error)))
"""
    expected = f"FASTLSTM_KEEP_MEMORY: expected a whole number of MiB, got {value!r}"
    assert python(code, FASTLSTM_KEEP_MEMORY=value) == f"{expected!a}\n{expected!a}"


def test_kept_memory_goes_before_a_call_fails() -> None:
    code = """
import resource
import numpy as np
from fastlstm._core import memory
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
y = memory.empty((200 << 18,), np.dtype("f4"))
del y
y = memory.empty((250 << 18,), np.dtype("f4"))
print(*memory.usage())
try:
    memory.empty((250 << 18,), np.dtype("f4"))
except MemoryError:
    print(*memory.usage())
"""
    assert python(code) == f"{256 * MEGABYTE} 0\n{256 * MEGABYTE} 0"


# Processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forks_while_threads_allocate() -> None:
    """A child goes on with memory of its own; an alarm ends one that waits for ever."""
    code = """
import os, signal, threading
import numpy as np
from fastlstm._core import memory

stop = threading.Event()

def make():
    while not stop.is_set():
        memory.empty((1 << 18,), np.dtype("f4"))

threads = [threading.Thread(target=make) for _ in range(3)]
for thread in threads:
    thread.start()
kept = memory.empty((1 << 18,), np.dtype("f4"))
kept.fill(7)
codes = []
for _ in range(30):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        del kept
        for size in range(1 << 16, 1 << 18, 9999):
            memory.empty((size,), np.dtype("f4")).fill(1)
        memory.release_memory()
        os._exit(0)
    codes.append(os.waitpid(child, 0)[1])
stop.set()
for thread in threads:
    thread.join()
print(set(codes), (kept == 7).all())
"""
    assert python(code) == "{0} True"


def test_arrays_that_outlive_the_module() -> None:
    """Freed at the very end, when no names of modules are left."""
    code = """
import sys
import fastlstm, numpy as np
class Late:
    def __init__(self): self.y = fastlstm.LSTM(64, 64)(np.ones((99, 32, 64), np.float32))[0]
    def __del__(self): self.y = None
late = Late()
sys.late = late
"""
    assert python(code) == ""


def test_benchmark() -> None:
    options = ["--hidden", "8", "--batch", "2", "--threads", "1", "--turns", "1", "--calls", "2"]
    rows = [
        line for line in script("benchmarks/kept_results.py", *options).splitlines() if "|" in line
    ]
    assert [row.count("|") for row in rows] == [8] * 5
