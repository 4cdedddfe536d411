"""Threads: how many, from where, after a fork, and what the caller's own threads notice."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import check_bits, random_call, results
from support.processes import needs_linux, needs_openmp, python

import fastlstm
from fastlstm._core import library, probes, threads


@needs_openmp
def test_set_and_get() -> None:
    before = fastlstm.get_num_threads()
    try:
        for n in (1, 3, np.int64(2), 1024):
            fastlstm.set_num_threads(n)
            assert fastlstm.get_num_threads() == n
            assert type(fastlstm.get_num_threads()) is int
    finally:
        fastlstm.set_num_threads(before)


def test_without_openmp_there_is_one_thread() -> None:
    if library.has_openmp():
        pytest.skip("built with OpenMP")
    fastlstm.set_num_threads(4)
    assert fastlstm.get_num_threads() == 1
    assert threads.explanation() == "1: built without OpenMP"


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", " 2", "1025", "9" * 30])
def test_refused_environment(value: str) -> None:
    """At the first call: importing never fails."""
    code = """
import fastlstm
try:
    fastlstm.get_num_threads()
except ValueError as error:
    print(error)
fastlstm.set_num_threads(1)
assert fastlstm.get_num_threads() == 1
"""
    expected = f"FASTLSTM_NUM_THREADS: expected an integer from 1 to 1024, got {value!r}"
    assert python(code, FASTLSTM_NUM_THREADS=value) == expected


TEAM = """
import os
import numpy as np
from support.compare import random_call, results
from support.teams import TEAMS
import fastlstm

options, T, B = TEAMS[{name!r}]
lstm = fastlstm.LSTM(**options, seed=1)
v = random_call(np.random.default_rng(1), lstm, T, B)
fastlstm.set_num_threads(1)
results(lstm, v)
before = len(os.listdir("/proc/self/task"))
fastlstm._core.library.PROCESSORS = {processors}
fastlstm._core.library.adapt_teams(False)
for n in (2, 3, 4):
    fastlstm.set_num_threads(n)
    {call}
    print(len(os.listdir("/proc/self/task")) - before, end=" ")
"""

# Backward alone: its forward call was made by one thread.
BACKWARD = """fastlstm.set_num_threads(1)
    y, _, tape = lstm.forward(v["x"])
    fastlstm.set_num_threads(n)
    lstm.backward(tape, y)"""


@needs_linux
@needs_openmp
@pytest.mark.parametrize("call", ['lstm(v["x"])', BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("name", ["rows", "uneven-rows", "units", "uneven-units"])
def test_the_contract_is_tested_with_real_teams(name: str, call: str) -> None:
    """The sizes of support/teams.py are worth the threads that are allowed: they are there."""
    assert python(TEAM.format(name=name, call=call, processors=4)) == "1 2 3"


@needs_linux
@needs_openmp
@pytest.mark.parametrize(
    "call", ["lstm(x)", "lstm.backward(tape, y)", "adam.step(gradients)"], ids=str
)
def test_no_thread_is_left_spinning_where_a_pause_is_likely(call: str) -> None:
    """Requests of one call; native/team_test.c knows others."""
    code = f"""
import os, time
import numpy as np
import fastlstm

def count_threads():
    return len(os.listdir("/proc/self/task"))

lstm = fastlstm.LSTM(256, 256, seed=1)
adam = fastlstm.optim.Adam(lstm.parameters)
x = np.ones((20, 16, 256), np.float32)
fastlstm.set_num_threads(1)
y, _, tape = lstm.forward(x)
gradients = lstm.backward(tape, y)[-1]
before = count_threads()
fastlstm.set_num_threads(2)
{call}
end = time.monotonic() + 20
while time.monotonic() < end:  # a team that lost time, on a busy machine, rests before it is back
    time.sleep(0.02)
    {call}
    time.sleep(0.02)  # those that have ended are listed for a moment
    if count_threads() == before:
        print("none")
        break
"""
    assert python(code) == "none"


@needs_linux
@needs_openmp
@pytest.mark.parametrize(("name", "expected"), [("rows", "1 2 3"), ("units", "1 1 1")])
def test_workers_that_wait_for_each_other_have_a_processor_each(name: str, expected: str) -> None:
    """Those that share the hidden units meet after each step; those that share rows never do."""
    assert python(TEAM.format(name=name, call='lstm(v["x"])', processors=2)) == expected


@needs_linux
@needs_openmp
def test_small_work_is_done_by_one_thread() -> None:
    code = """
import os
import numpy as np
import fastlstm
fastlstm.set_num_threads(8)
before = len(os.listdir("/proc/self/task"))
lstm = fastlstm.LSTM(48, 48)
y, _, tape = lstm.forward(np.ones((1, 4, 48), np.float32))
lstm.backward(tape, y)
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert python(code) == "0"


@needs_openmp
@pytest.mark.parametrize("limit", [{"OMP_THREAD_LIMIT": "2"}, {"OMP_DYNAMIC": "true"}], ids=str)
def test_fewer_threads_than_asked_for(limit: dict[str, str]) -> None:
    """The system may refuse: one thread then does the work of all, to the bit."""
    code = """
import numpy as np
from support.compare import check_bits, random_call, results
from support.teams import TEAMS
import fastlstm
fastlstm._core.library.PROCESSORS = 4
for options, T, B in TEAMS.values():
    found = []
    for n in (1, 4):
        fastlstm.set_num_threads(n)
        lstm = fastlstm.LSTM(**options, seed=1)
        found.append(results(lstm, random_call(np.random.default_rng(1), lstm, T, B)))
    check_bits(*found)
print("same")
"""
    assert python(code, **limit) == "same"


@pytest.mark.parametrize("team", [1, 2])
def test_many_callers_at_once(rng: Generator, team: int) -> None:
    """16 threads on one layer, calls of different sizes, each with the bits it has alone."""
    before = fastlstm.get_num_threads()
    fastlstm.set_num_threads(team)
    lstm = fastlstm.LSTM(20, 64, 2, bidirectional=True, seed=1)
    calls = [random_call(rng, lstm, 5 + k % 7, 1 + k % 13) for k in range(48)]
    try:
        expected = [results(lstm, v) for v in calls]
        with ThreadPoolExecutor(16) as pool:
            for _ in range(3):
                for got, want in zip(
                    pool.map(lambda v: results(lstm, v), calls), expected, strict=True
                ):
                    check_bits(got, want)
    finally:
        fastlstm.set_num_threads(before)


def test_many_streams_at_once(rng: Generator) -> None:
    """Each thread its own stream, all of one layer."""
    lstm = fastlstm.LSTM(20, 64, 2, seed=1)
    xs = rng.random((32, 50, 20), "f4")
    with ThreadPoolExecutor(16) as pool:

        def walk(x: np.ndarray) -> np.ndarray:
            stream = lstm.stream()
            return np.stack([stream.step(x_t) for x_t in x])

        for x, y in zip(xs, pool.map(walk, xs), strict=True):
            assert np.array_equal(y, lstm(x)[0])


def test_edits_under_way(rng: Generator) -> None:
    """A call computes with the parameters of one moment, old or new, never with both."""
    lstm = fastlstm.LSTM(20, 64, seed=1)
    one, two = lstm.parameters.flat.copy(), lstm.parameters.flat * 2
    x = rng.random((30, 4, 20), "f4")
    allowed = []
    for flat in (one, two):
        lstm.parameters.flat = flat
        allowed.append(lstm(x)[0].tobytes())
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(lambda: lstm(x)[0].tobytes()) for _ in range(200)]
        for k in range(200):
            lstm.parameters.flat = (one, two)[k % 2]
        assert {call.result() for call in calls} <= set(allowed)


@needs_linux
@needs_openmp
def test_the_end_of_a_team_looks_for_no_gpu(tmp_path: Path) -> None:
    """OpenMP can be asked in a way that loads what it has for GPUs, and may start their drivers."""
    code = """
import time
import numpy as np
import fastlstm
fastlstm.set_num_threads(2)
for _ in range(2):  # single calls: the team of the second is dismissed
    time.sleep(0.02)
    fastlstm.LSTM(64, 256)(np.zeros((20, 8, 64), "f4"))
"""
    python(code, LD_DEBUG="libs", LD_DEBUG_OUTPUT=str(tmp_path / "libs"))
    loaded = "".join(path.read_text() for path in tmp_path.iterdir())
    if not loaded:
        pytest.skip("this system's loader keeps no such list")
    assert "libgomp-plugin" not in loaded


# After a fork the threads of the parent's team are gone, and GNU OpenMP waits for them for ever.

FORK = """
import multiprocessing, os, sys
import numpy as np
import fastlstm

def work(hidden):
    lstm = fastlstm.LSTM(32, hidden, seed=1)
    y, _, tape = lstm.forward(np.ones((10, 16, 32), np.float32))
    return lstm.backward(tape, y)[2].flat.tobytes()

def run(method):
    fastlstm.set_num_threads(2)
    sizes = [8, 64, 128, 512]
    expected = [work(hidden) for hidden in sizes]
    lstm = fastlstm.LSTM(32, 512, seed=1)
    stream = lstm.stream(16)
    x = np.ones((16, 32), np.float32)
    stream.step(x)
    twin = stream.copy()
    if method == "os.fork":
        child = os.fork()
        if child == 0:
            same = [work(hidden) for hidden in sizes] == expected
            same = same and stream.step(x).tobytes() == lstm(np.stack([x, x]))[0][1].tobytes()
            os._exit(0 if same and fastlstm.get_num_threads() == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
    else:
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(work, sizes) == expected
    assert [work(hidden) for hidden in sizes] == expected  # the parent goes on, with its team
    assert fastlstm.get_num_threads() == 2 or not fastlstm._core.library.has_openmp()
    print("done")

if __name__ == "__main__":
    run(sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("method", ["os.fork", "fork", "spawn", "forkserver"])
def test_processes_after_a_team_was_used(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FORK)
    command = [sys.executable, "-W", "ignore", str(script), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            out, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # its children too
            pytest.fail("still waiting after 30 seconds")
    assert out.strip() == b"done"


@pytest.mark.peer
@pytest.mark.parametrize("module", ["torch", "sklearn.linear_model"])
def test_importing_another_library_changes_nothing(module: str) -> None:
    """Bits, number of threads and denormals, with its OpenMP loaded after ours and before."""
    pytest.importorskip(module)
    code = f"""
import sys
import numpy as np
if sys.argv[1] == "before":
    import {module}
import fastlstm
lstm = fastlstm.LSTM(64, 256, seed=0)
x = np.random.default_rng(0).standard_normal((30, 40, 64), dtype=np.float32)
def run():
    y, _, tape = lstm.forward(x)
    return y.tobytes(), lstm.backward(tape, y)[2].flat.tobytes(), fastlstm.get_num_threads()
first = run()
import {module}
assert run() == first
assert np.float32(1e-45) / 1 > 0
import hashlib
print(hashlib.sha256(first[0] + first[1]).hexdigest(), first[2])
"""
    command = [sys.executable, "-c", code]
    found = [
        subprocess.run([*command, when], capture_output=True, text=True, check=True).stdout
        for when in ("before", "after")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("threads", [1, 4])
def test_the_callers_denormals_are_left_alone(rng: Generator, threads: int) -> None:
    """Workers flush denormals to zero; the caller's floating-point mode is as it was."""
    before = fastlstm.get_num_threads()
    lstm = fastlstm.LSTM(64, 256, seed=1)
    v = random_call(rng, lstm, 12, 3)
    stream = lstm.stream()
    tiny = np.full(100, np.finfo(np.float32).smallest_normal)
    try:
        fastlstm.set_num_threads(threads)
        for call in (
            lambda: results(lstm, v),
            lambda: stream.step(v["x"][0, 0]),
            lambda: stream.run(v["x"][:, 0]),
            lambda: probes.activate(lstm.isa, "tanh", tiny),
        ):
            call()
            assert (tiny / 2 != 0).all()  # not flushed
            assert (tiny / 2 * 2 == tiny).all()  # not taken for zero
    finally:
        fastlstm.set_num_threads(before)


def test_denormals_inside_are_flushed() -> None:
    """Else a decaying state would run twenty times slower: here c is halved at each step."""
    lstm = fastlstm.LSTM(1, 1, dtype="float64")
    lstm.parameters.flat = np.zeros(lstm.parameters.flat.size)
    smallest = np.finfo(np.float64).smallest_normal
    c_0 = np.full((1, 1, 1), 4 * smallest)
    _, (_, c_n) = lstm(np.zeros((2, 1, 1)), (np.zeros((1, 1, 1)), c_0))
    assert c_n.item() == smallest
    _, (_, c_n) = lstm(np.zeros((3, 1, 1)), (np.zeros((1, 1, 1)), c_0))
    assert c_n.item() == 0
