"""A machine that others use too: more busy processes than processors, and teams beside them.

No time is asserted, but all that waits has a limit: a call that hangs fails its test.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Generator

import pytest
from support.checkout import CHECKOUT
from support.processes import needs_openmp, python

pytestmark = needs_openmp


@pytest.fixture(scope="module", autouse=True)
def busy_machine() -> Generator[None, None, None]:
    """One busy process more than processors: workers are put aside, each at another moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CHECKOUT / "benchmarks")
        children = importlib.import_module("busy_children")
    with children.busy_processes((os.cpu_count() or 1) + 1):
        yield


# Five processors: else workers that meet after each step would be no more than there are.
START = """
import os, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from support.compare import check_bits, random_call, results
from support.teams import TEAMS
import fastlstm
fastlstm._core.library.PROCESSORS = 5

def work(name):
    options, T, B = TEAMS[name]
    lstm = fastlstm.LSTM(**options, seed=1)
    return results(lstm, random_call(np.random.default_rng(1), lstm, T, B))

fastlstm.set_num_threads(1)
expected = {name: work(name) for name in TEAMS}
"""

TEAMS_OF_ALL_SIZES = """
fastlstm._core.library.adapt_teams({adapts})
for threads in (2, 3, 4, 5):
    fastlstm.set_num_threads(threads)
    for name in TEAMS:
        for _ in range(3):
            check_bits(work(name), expected[name])
print("same")
"""


@pytest.mark.parametrize("adapts", [True, False], ids=["adapting", "not adapting"])
def test_bits(adapts: bool) -> None:
    """Whoever is put aside, and whoever does the work instead."""
    assert python(START + TEAMS_OF_ALL_SIZES.format(adapts=adapts)) == "same"


CALLERS = """
fastlstm.set_num_threads(3)
calls = [*TEAMS] * 3
with ThreadPoolExecutor(8) as pool:
    for name, got in zip(calls, pool.map(work, calls)):
        check_bits(got, expected[name])
print("same")
"""


def test_many_callers_with_teams() -> None:
    assert python(START + CALLERS) == "same"


# One thread computes in teams, the other forks.  An alarm ends a child that waits for ever.
FORK = """
fastlstm.set_num_threads(4)
called, ends = threading.Semaphore(0), threading.Event()

def compute():
    while not ends.is_set():
        for name in TEAMS:
            check_bits(work(name), expected[name])
            called.release()

with ThreadPoolExecutor(1) as pool:
    computing = pool.submit(compute)
    try:
        check_bits(work("units"), expected["units"])  # this thread has a team too
        for _ in range(5):
            assert called.acquire(timeout=30)
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                for name in ("rows", "units"):
                    check_bits(work(name), expected[name])
                os._exit(fastlstm.get_num_threads())
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
            check_bits(work("rows"), expected["rows"])
    finally:
        ends.set()
    computing.result()
print("same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forks_beside_a_call() -> None:
    """A child computes with one thread; the calls of its parent go on, with their teams."""
    assert python(START + FORK) == "same"


# Both calls would take longer than the test may.
INTERRUPT = """
fastlstm.set_num_threads({threads})
lstm = fastlstm.LSTM(8, 256, proj_size=8, seed=0)
x = np.random.default_rng(0).standard_normal((10, {rows}, 8), "f4")
y, _, tape = lstm.forward(x)
grads = lstm.backward(tape, y)[2].flat
for _ in range(2):
    thread = threading.Timer(0.1, lambda: {send})
    try:
        thread.start()
        lstm(np.broadcast_to(x[:1], ({steps}, {rows}, 8)))
        print("went on")
    except KeyboardInterrupt:
        pass
    thread.join()
    again, _, tape = lstm.forward(x)
    assert again.tobytes() == y.tobytes()
    assert lstm.backward(tape, again)[2].flat.tobytes() == grads.tobytes()
print("ended")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
@pytest.mark.parametrize(("rows", "steps"), [(1, 2_000_000), (20, 200_000)], ids=["units", "rows"])
@pytest.mark.parametrize(
    "send",
    ["signal.raise_signal(signal.SIGINT)", "os.kill(os.getpid(), signal.SIGINT)"],
    ids=["raise", "kill"],
)
def test_ctrl_c(rows: int, steps: int, send: str) -> None:
    """All workers leave, however late; the next call has the bits it would have had."""
    code = START + INTERRUPT.format(threads=3, rows=rows, steps=steps, send=send)
    assert python(code) == "ended"
