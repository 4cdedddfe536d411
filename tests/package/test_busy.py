"""benchmarks/busy.py: tiny runs, its targets, and that nothing goes on running."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.checkout import CHECKOUT
from support.processes import script

from fastlstm._core import processors

SCRIPT = "benchmarks/busy.py"
BESIDE_IT = {"PYTHONSAFEPATH": ""}  # the script imports the file beside it
TINY = ["--busy", "0", "--seconds", "0.01", "--rounds", "2"]


def started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHECKOUT / SCRIPT), *arguments]
    pipe = subprocess.PIPE
    env = os.environ | BESIDE_IT
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)


def test_fastlstm_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    options = [*TINY, "--no-torch", "--against", sys.executable, "--json", str(path)]
    more = processors.CORES + 1
    settings = {"FASTLSTM_NUM_THREADS": str(more), "OMP_WAIT_POLICY": "passive"}
    text = script(SCRIPT, *options, **settings, **BESIDE_IT)
    found = json.loads(path.read_text())
    sets = ["train", "batch", "row", "big", "blocks", "every"]
    assert [(row["set"], row["busy"]) for row in found["rows"]] == [(name, 0) for name in sets]
    for row in found["rows"]:
        assert list(row["engines"]) == ["1 thread", "default", "other"]
        for values in row["engines"].values():
            assert values["calls"] >= 2
            assert 0 < values["median_ms"] <= values["p999_ms"]
            assert ("late" in values) == (row["set"] in ("blocks", "every"))
    threads = {name: said["threads"] for name, said in found["engines"].items()}
    assert threads["1 thread"] == 1
    assert threads["default"] == threads["other"] != more  # not that of the environment
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "OMP_WAIT_POLICY=passive" in lines[2]
    for name in [*sets, "blocks over", "every processors"]:
        assert any(line.startswith(f"{name} ") for line in lines)


@pytest.mark.peer
def test_torch_and_scikit_learn(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    path = tmp_path / "a.json"
    options = [*TINY, "--rounds", "1", "--set", "train,blocks,grid", "--json", str(path)]
    script(SCRIPT, *options, OMP_WAIT_POLICY="passive", **BESIDE_IT)
    train, blocks, grid = json.loads(path.read_text())["rows"]
    for row in (train, blocks):
        assert list(row["engines"]) == ["1 thread", "default", "torch"]
    assert list(grid["engines"]) == ["n_jobs=1", "n_jobs=2"]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    return importlib.import_module("busy_children")


@pytest.fixture
def busy(children: ModuleType) -> ModuleType:
    return importlib.import_module("busy")


@pytest.mark.parametrize(
    ("name", "ms", "over", "missed"),
    [
        ("train", [10, 13, 13], [0, 0, 0], []),
        ("train", [10, 13.1, 14], [0, 0, 0], ["1 thread"]),
        ("train", [10, 12, 11], [0, 0, 0], ["torch"]),
        ("blocks", [1, 1, 1], [10, 13, 0], []),
        ("blocks", [1, 1, 1], [10, 14, 0], ["over"]),
        ("grid", [10, 10], [0, 0], []),
        ("grid", [10, 10.1], [0, 0], ["n_jobs=1"]),
    ],
)
def test_targets(
    busy: ModuleType, name: str, ms: list[float], over: list[int], missed: list[str]
) -> None:
    titles = busy.JOBS if name == "grid" else (busy.ONE, busy.DEFAULT, busy.TORCH)
    turns = [{"ms": [t] * (3000 - n) + [t + 1] * n} for t, n in zip(ms, over, strict=True)]
    turns = [turn | {"late": 0, "processors": 1.0} for turn in turns]
    values = [busy.statistics([turn], 0.0015 if name == "blocks" else 0.0) for turn in turns]
    row = {"set": name, "busy": 1, "others": 0.0, "engines": dict(zip(titles, values, strict=True))}
    assert busy.above(row) == missed
    assert "".join(busy.lines(row)).count("*") == len(missed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train,abacus"], "--set: expected some of train, batch, row, big, blocks"),
        (["--set", ","], "--set: expected some of"),
        (["--busy", "1,-1"], "--busy: expected numbers from 0"),
        (["--busy", ""], "--busy: expected numbers from 0"),
        (["--rounds", "0"], "--rounds: expected at least 1, got 0"),
        (["--seconds", "nan"], "--seconds: expected from above 0 to 3600, got nan"),
        (["--against", "no/such/python"], "--against: expected a Python interpreter"),
        (["--json", "no/such/folder/a.json"], "there is no directory"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    with started(*arguments) as process:
        printed, said = process.communicate()
    assert process.returncode == 2
    assert message in said.splitlines()[-1]
    assert printed == ""


def ends(process: subprocess.Popen[str], number: int | None) -> str:
    """What a process says after a signal; others that hold its standard error have ended, too."""
    if number is not None:
        process.send_signal(number)
    return process.communicate(timeout=60)[1]


WITH_BUSY = """
import sys
sys.path.insert(0, sys.argv[1])
from busy_children import busy_processes
with busy_processes(2):
    print("they run", flush=True)
    sys.stdin.readline()
    raise KeyError
"""


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_busy_processes_end_with_the_one_that_started_them(number: int | None) -> None:
    command = [sys.executable, "-c", WITH_BUSY, str(CHECKOUT / "benchmarks")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "they run\n"
        assert ("KeyError" in ends(process, number)) == (number is None)


def test_a_worker_is_ended_in_the_middle_of_a_turn(children: ModuleType) -> None:
    parts = [["infer", 1, 2, 3, 2, 2]]
    worker = children.Worker("default", sys.executable, "fastlstm", parts, {})
    message = {"seconds": 3000, "warm": 0, "period": 0}
    print(json.dumps(message), file=worker._process.stdin, flush=True)
    worker.close()
    assert worker._process.returncode == -signal.SIGKILL


def test_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    options = ["--set", "row", "--no-torch", "--busy", "1", "--seconds", "3000"]
    with started(*options, "--json", str(path)) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("---"):
            pass
        assert ends(process, signal.SIGINT) == "interrupted; what was measured is kept\n"
    assert process.returncode == 130
    assert json.loads(path.read_text())["rows"] == []
