"""How many threads a call may use: what decides, which of it wins, and what is shown."""

from __future__ import annotations

import os

import pytest
from support.processes import needs_linux, needs_openmp, python

import fastlstm
from fastlstm._core import library, processors, threads

pytestmark = needs_openmp

NAMES = ("FASTLSTM_NUM_THREADS", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT")
SHOW = "import fastlstm; print(fastlstm.get_num_threads())"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Four cores, eight threads of OpenMP, nothing decided and nothing set."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processors, "CORES", 4)
    monkeypatch.setattr(processors, "QUOTA", processors.UNLIMITED)
    monkeypatch.setattr(library, "USUAL_THREADS", 8)
    monkeypatch.setattr(library, "most_threads", lambda: 8)
    monkeypatch.setattr(threads, "_default", None)
    monkeypatch.setattr(threads, "_chosen", None)
    return monkeypatch


def fresh(code: str = SHOW, **environment: str) -> str:
    """What a new process prints; of the variables that count, only those given are set."""
    return python(code, **(dict.fromkeys(NAMES) | environment))


# The variables.


@pytest.mark.parametrize("text", ["3", " 3 ", "3,2", " 3 ,\t2", "+3", "3\n"])
def test_the_first_level_counts(machine: pytest.MonkeyPatch, text: str) -> None:
    machine.setenv("OMP_NUM_THREADS", text)
    assert fastlstm.get_num_threads() == 3


@pytest.mark.parametrize("text", ["", " ", "0", "-1", "two", "3x", "3,", ",3", "3,0", "3,x", "1e0"])
def test_malformed_variables_are_ignored(machine: pytest.MonkeyPatch, text: str) -> None:
    """As OpenMP ignores them; what is empty need not be mentioned."""
    machine.setenv("OMP_NUM_THREADS", text)
    machine.setenv("OMP_THREAD_LIMIT", "3,2")  # has no levels
    note = f"; OMP_NUM_THREADS={text!r} is malformed and ignored" if text.strip() else ""
    assert threads.explanation() == (
        f"4: the cores this process may use{note}; OMP_THREAD_LIMIT='3,2' is malformed and ignored"
    )


@pytest.mark.parametrize("text", ["3", " 3 ", "3,2", "0", "two", "3x", "3,x", ""])
def test_openmp_reads_them_alike(machine: pytest.MonkeyPatch, text: str) -> None:
    most = "from fastlstm._core import library; print(library.most_threads())"
    machine.setenv("OMP_NUM_THREADS", text)
    expected = "3" if threads.decision().threads == 3 else fresh(most)
    assert fresh(most, OMP_NUM_THREADS=text) == expected


@pytest.mark.parametrize(
    ("set_", "expected"),
    [
        ({}, "4: the cores this process may use"),
        ({"OMP_NUM_THREADS": "6"}, "4: the cores this process may use"),
        ({"OMP_NUM_THREADS": "3"}, "3: OMP_NUM_THREADS (this process may use 4 cores)"),
        ({"OMP_THREAD_LIMIT": "2"}, "2: OMP_THREAD_LIMIT (this process may use 4 cores)"),
        ({"OMP_NUM_THREADS": "2", "OMP_THREAD_LIMIT": "3"}, "2: OMP_NUM_THREADS (this"),
        ({"OMP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "2"}, "2: OMP_THREAD_LIMIT (this"),
        ({"OMP_NUM_THREADS": "2", "FASTLSTM_NUM_THREADS": "7"}, "7: FASTLSTM_NUM_THREADS"),
        ({"OMP_THREAD_LIMIT": "2", "FASTLSTM_NUM_THREADS": "7"}, "7: FASTLSTM_NUM_THREADS"),
    ],
    ids=str,
)
def test_the_least_is_the_default(
    machine: pytest.MonkeyPatch, set_: dict[str, str], expected: str
) -> None:
    for name, value in set_.items():
        machine.setenv(name, value)
    assert threads.explanation().startswith(expected)
    assert fastlstm.get_num_threads() == int(expected[0])
    fastlstm.set_num_threads(5)
    assert threads.explanation() == "5: set_num_threads"


def test_a_container(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(processors, "QUOTA", 2)
    machine.setenv("OMP_NUM_THREADS", "3")
    assert threads.explanation() == "2: the quota of the container (this process may use 4 cores)"


def test_openmp_was_loaded_with_less(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(library, "USUAL_THREADS", 3)
    machine.setenv("OMP_NUM_THREADS", "8")
    assert threads.explanation() == "3: what OpenMP was loaded with (this process may use 4 cores)"


def test_the_environment_counts_when_the_number_is_first_needed(
    machine: pytest.MonkeyPatch,
) -> None:
    machine.setenv("OMP_NUM_THREADS", "3")
    assert fastlstm.get_num_threads() == 3
    machine.setenv("OMP_NUM_THREADS", "2")
    assert fastlstm.get_num_threads() == 3


# In new processes, with an OpenMP that has read their environment.


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT"])
def test_what_openmp_obeys_holds_here(name: str) -> None:
    set_in_python = f"import fastlstm, os; os.environ[{name!r}] = '1'; " + SHOW  # as Ray does
    assert fresh(**{name: "1"}) == fresh(set_in_python) == "1"
    assert fresh(**{name: "1", "FASTLSTM_NUM_THREADS": "3"}) == "3"
    by_program = "import fastlstm, os; {}fastlstm.set_num_threads(3); " + SHOW
    assert fresh(by_program.format(""), **{name: "1"}) == "3"
    assert fresh(by_program.format(f"del os.environ[{name!r}]; "), **{name: "1"}) == "3"


@needs_linux
def test_the_default_is_the_cores_this_process_may_use() -> None:
    assert int(fresh()) == min(processors.CORES, processors.QUOTA)
    one = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); " + SHOW
    assert fresh(one) == "1"


@needs_linux
@pytest.mark.parametrize("name", ["OMP_PROC_BIND", "OMP_DYNAMIC"])
def test_what_makes_no_difference(name: str) -> None:
    """With the first OpenMP binds this thread to one processor, as soon as it is loaded."""
    assert fresh(**{name: "true"}) == fresh()


# Limits of OpenMP in a thread, as threadpoolctl sets them.

LIMITS = """
from threadpoolctl import threadpool_info, threadpool_limits
import fastlstm
from fastlstm._core import processors
processors.CORES = 4
"""


def limits(code: str, **environment: str) -> list[str]:
    """What a new process prints that thinks it has four cores, and so does its OpenMP."""
    pytest.importorskip("threadpoolctl")
    return fresh(LIMITS + code, **({"OMP_NUM_THREADS": "4"} | environment)).split()


@pytest.mark.peer
def test_threadpoolctl_finds_our_openmp() -> None:
    code = 'print(sum(info["user_api"] == "openmp" for info in threadpool_info()))'
    assert limits(code) == ["1"]


@pytest.mark.peer
@pytest.mark.parametrize(
    ("explicit", "environment", "found"),
    [
        ("", {}, ["4", "1", "3", "4"]),
        ("fastlstm.set_num_threads(8)", {}, ["8", "1", "3", "8"]),
        ("fastlstm.set_num_threads(2)", {}, ["2", "1", "2", "2"]),
        ("", {"FASTLSTM_NUM_THREADS": "8"}, ["8", "1", "3", "8"]),
        ("", {"OMP_NUM_THREADS": "2", "FASTLSTM_NUM_THREADS": "8"}, ["8", "1", "8", "8"]),
        ("", {"OMP_NUM_THREADS": "1", "FASTLSTM_NUM_THREADS": "8"}, ["8", "8", "8", "8"]),
    ],
)
def test_a_limit_of_threadpoolctl(
    explicit: str, environment: dict[str, str], found: list[str]
) -> None:
    """It holds in its block, even the first time that the number is needed; usual is no limit."""
    code = f"""
{explicit}
inside = []
for n in (1, 3):
    with threadpool_limits(n):
        inside.append(fastlstm.get_num_threads())
before = fastlstm.get_num_threads()
with threadpool_limits(1):
    pass
print(before, *inside, fastlstm.get_num_threads())
"""
    assert limits(code, **environment) == found


@pytest.mark.peer
def test_a_limit_is_of_the_thread_that_set_it() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(1) as pool, threadpool_limits(1):
    print(fastlstm.get_num_threads(), pool.submit(fastlstm.get_num_threads).result())
"""
    assert limits(code) == ["1", "4"]


@pytest.mark.peer
def test_a_limit_from_before_the_import() -> None:
    """It is of the thread that imports, and no longer than that thread keeps it."""
    of_openmp = 'next(i["filepath"] for i in threadpool_info() if i["user_api"] == "openmp")'
    [path] = limits(f"print({of_openmp})")
    code = f"""
import ctypes
openmp = ctypes.CDLL({path!r})
openmp.omp_set_num_threads(1)
import fastlstm
from fastlstm._core import processors
processors.CORES = 4
print(fastlstm.get_num_threads())
openmp.omp_set_num_threads(4)
print(fastlstm.get_num_threads())
"""
    assert fresh(code, OMP_NUM_THREADS="4").split() == ["1", "4"]


@pytest.mark.peer
def test_as_many_as_cores_are_no_limit() -> None:
    """torch sets that many where processors share cores."""
    code = """
fastlstm.set_num_threads(7)
with threadpool_limits(4):
    print(fastlstm.get_num_threads())
"""
    assert limits(code, OMP_NUM_THREADS="8") == ["7"]


@needs_linux
@pytest.mark.peer
def test_calls_obey_a_limit() -> None:
    """Layers and streams, while it is there and no longer."""
    code = """
import os
import numpy as np
fastlstm._core.library.PROCESSORS = 4
fastlstm._core.library.adapt_teams(False)
lstm = fastlstm.LSTM(256, 256)
x = np.zeros((1, 256), np.float32)
def count():
    return len(os.listdir("/proc/self/task"))
with threadpool_limits(1):
    lstm(x)  # packs the weights
before = count()
stream = lstm.stream()
with threadpool_limits(1):
    stream.step(x)
    lstm(np.zeros((20, 16, 256), np.float32))
    print(count() - before)
    stream = lstm.stream()
stream.step(x)
print(count() > before)
"""
    assert limits(code) == ["0", "True"]


# Those who start workers.

LOKY = """
import joblib
import fastlstm
ask = joblib.delayed(fastlstm.get_num_threads)
print(joblib.cpu_count(), *joblib.Parallel(n_jobs=2)(ask() for _ in range(2)))
"""

GRID = """
import joblib
import numpy as np
import fastlstm
from fastlstm.sklearn import LSTMClassifier
from sklearn.model_selection import GridSearchCV

def threads(model, X, y):
    return fastlstm.get_num_threads()

search = GridSearchCV(
    LSTMClassifier(4, max_iter=1), {"learning_rate": [0.1, 0.2]}, scoring=threads, cv=2, n_jobs=2
)
search.fit(np.random.default_rng(0).random((8, 5, 2), "f4"), [0, 1] * 4)
print(joblib.cpu_count(), *map(int, search.cv_results_["mean_test_score"]))
"""


@pytest.mark.peer
@pytest.mark.parametrize("code", [LOKY, GRID], ids=["joblib", "GridSearchCV"])
def test_workers_of_joblib_share_the_processors(code: str) -> None:
    pytest.importorskip("sklearn")
    processors_, *found = map(int, fresh(code).split())
    assert found == [min(processors.CORES, max(1, processors_ // 2))] * 2


SPAWN = """
import multiprocessing, os, sys
import fastlstm

if __name__ == "__main__":
    fastlstm.set_num_threads(3)
    os.environ["OMP_NUM_THREADS"] = "1"  # as Dask does for its workers
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(fastlstm.get_num_threads), fastlstm.get_num_threads())
"""


def test_spawned_workers() -> None:
    """They have their own number, by the environment that they were given."""
    assert fresh(SPAWN) == "1 3"


# What is shown.


def test_show_config(machine: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    machine.setenv("OMP_NUM_THREADS", "2,1")
    fastlstm.show_config()
    expected = "\nthreads    2: OMP_NUM_THREADS (this process may use 4 cores)\n"
    assert expected in capsys.readouterr().out
    machine.setattr(library, "most_threads", lambda: 1)
    fastlstm.show_config()
    expected = (
        "\nthreads    1: limited in this thread by omp_set_num_threads (threadpoolctl, torch)\n"
    )
    assert expected in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_show_config_in_a_forked_child() -> None:
    code = """
import os
import fastlstm
if os.fork() == 0:
    fastlstm.show_config()
else:
    os.wait()
"""
    assert "\nthreads    1: a forked child\n" in fresh(code)
