"""The benchmark suite: tiny runs, their files, comparing them.  Nothing here depends on a time."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.bench import cases, cli, limits, measuring, peers, plot, report, results
from fastlstm.bench.worker import EngineError, Worker
from fastlstm.cli import main

SIZES = ["2,3,5,1,1", "block:1,1,4,1,6", "2,3,5,1,7", "2,3,5,4,7", "train:2,3,5,4,7"]
TINY = measuring.Plan(calls=4, seconds=0.01, rounds=2, warm=0.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder with the files of a run of every kind of work, and what it printed."""
    folder = tmp_path_factory.mktemp("bench")
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "QUICK", TINY)
        patch.setattr("builtins.print", lambda *a, **_: printed.extend(map(str, a)))
        arguments = ["bench", "--quick", "--threads", "1"]
        arguments += [word for size in SIZES for word in ("--size", size)]
        arguments += ["--json", f"{folder}/a.json", "--markdown", f"{folder}/a.md"]
        assert main(arguments) == 0
    return folder, "\n".join(printed)


@pytest.fixture
def found(files: tuple[Path, str]) -> dict[str, Any]:
    return results.load(files[0] / "a.json")


def test_json(found: dict[str, Any]) -> None:
    assert found["command"].startswith("fastlstm bench --size 2,3,5,1,1")
    assert {"cpu", "cpus", "isa", "caches"} <= set(found["machine"])
    assert {"fastlstm", "numpy", "python", "compiler"} <= set(found["versions"])
    assert [cases.of_row(row) for row in found["rows"]] == [cases.of_size(s) for s in SIZES]
    for row in found["rows"]:
        times = row["engines"]["fastlstm"]
        assert 0 < times["q1_us"] <= times["median_us"] <= times["q3_us"]
        assert times["calls"] == (40 if row["steps"] == 1 else 4)
        assert ("p99_us" in times) == (row["steps"] == 1)


def test_limits_are_plausible(found: dict[str, Any]) -> None:
    [limit] = found["limits"]
    assert limit["fma"] > 1e8
    assert all(limit["read"][level] > 1e8 for level in limits.LEVELS)
    for row in found["rows"]:
        assert 0 < row["fma_share"] <= 1.2
        one = row["batch"] == 1 and row["work"] != "train"
        assert ("floor_share" in row) == one
        if one:
            assert row["weights_in"] == "L1"
            assert row["floor_us"] > 0


def test_terminal_table(files: tuple[Path, str]) -> None:
    lines = files[1].splitlines()
    assert max(map(len, lines)) <= 100
    for size in SIZES:
        sizes = size.rpartition(":")[2]
        assert any(sizes in line.split() for line in lines)
    assert "1 thread" in lines
    assert any("99.9%" in line for line in lines)


def test_table_with_peers_fits_100_columns(found: dict[str, Any]) -> None:
    names = list(peers.PEERS)
    row = copy.deepcopy(found["rows"][0])
    times = {"median_us": 172058.0, "q1_us": 171000.0, "q3_us": 173000.0}
    row |= {"layers": 1, "input": 1024, "hidden": 1024, "batch": 32, "steps": 50}
    row["engines"] = dict.fromkeys(peers.ENGINES, times)
    table = report.Table(names)
    line = table.row(row)
    assert len(line) <= 100
    assert line.count("172,058") == 5
    assert "1.00x" in line
    assert max(map(len, table.head(2))) <= 100


def test_markdown(files: tuple[Path, str], found: dict[str, Any]) -> None:
    text = (files[0] / "a.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(SIZES)
    assert len({line.count("|") for line in lines}) == 1
    assert found["command"] in text
    lost = copy.deepcopy(found)
    lost["peers"] = ["torch"]
    for row in lost["rows"]:
        row["engines"]["torch"] = {"median_us": row["engines"]["fastlstm"]["median_us"] / 2}
    for row in lost["rows"]:
        us = row["engines"]["torch"]["median_us"]
        assert f" | **{report.number(us)}** | 0.50x |" in report.markdown(lost)
    assert report.markdown(lost).count("| 0.50x |") == len(SIZES)
    assert "0.50x at least, 5 lost" in "\n".join(report.summary(lost))


def test_compare(
    files: tuple[Path, str], found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = f"{files[0]}/a.json", f"{files[0]}/b.json"
    assert main(["bench", "compare", before, before]) == 0
    found["rows"][1]["engines"]["fastlstm"]["median_us"] *= 1.08
    found["rows"][2]["engines"]["fastlstm"]["median_us"] *= 0.5
    results.save(found, after)
    capsys.readouterr()
    assert main(["bench", "compare", before, after]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["1.00", "SLOWER", "faster"]
    assert main(["bench", "compare", before, after, "--tolerance", "0.1"]) == 0
    assert main(["bench", "compare", after, before]) == 1  # row 2 is twice as slow now


def test_compare_refuses_other_files(
    files: tuple[Path, str], found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = f"{files[0]}/a.json", files[0] / "bad.json"
    unlike = copy.deepcopy(found)
    del unlike["rows"][0]["engines"]["fastlstm"]
    for content in ([], {}, {**found, "schema": 99}, {**found, "rows": [{}]}, unlike):
        bad.write_text(json.dumps(content))
        assert main(["bench", "compare", good, str(bad)]) == 2
        assert "expected results of fastlstm bench" in capsys.readouterr().err
    found["rows"] = []
    bad.write_text(json.dumps(found))
    assert main(["bench", "compare", good, str(bad)]) == 2
    assert "no row in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "abacus"], "--against: expected some of torch, onnxruntime, openvino, jax"),
        (["--set", "step,abacus"], "--set: expected some of step, sequence, batch, train, audio"),
        (["--set", ","], "--set: expected a name"),
        (["--size", "1,2,3"], "--size: expected [WORK:]L,I,H,B,T"),
        (["--size", "1,2,3,4,0"], "--size: expected [WORK:]L,I,H,B,T"),
        (["--size", "walk:1,2,3,4,5"], "--size: expected [WORK:]L,I,H,B,T"),
        (["--size", "step:1,2,3,4,5"], "--size: expected T = 1"),
        (["--threads", "1,0"], "--threads: expected numbers from 1 to 1024"),
        (["--seconds", "0"], "--seconds: expected more than 0"),
        (["--seconds", "inf"], "--seconds: expected more than 0"),
        (["--plot", "a.txt"], "--plot: expected a name that ends in png"),
        (["--json", "no/such/folder/a.json"], "no/such/folder/a.json: there is no directory"),
        (["compare", "no.json", "no.json"], "no.json: No such file"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_missing_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else real(name)
    )
    assert main(["bench", "--against", "onnxruntime"]) == 2
    assert "pip install onnxruntime onnx" in capsys.readouterr().err


def test_sets() -> None:
    names = ["step", "sequence", "batch", "train", "audio"]
    everything = cases.of_sets(["all"])
    assert everything == [case for name in names for case in cases.SETS[name]]
    assert cases.of_sets(["stac", "step"])[:2] == cases.SETS["stac"]
    assert len(cases.of_sets(["all", *cases.SETS])) == len({*everything, *cases.SETS["hidden"]})
    assert set(cases.SET_TEXTS) == {*cases.SETS, "all"}
    for case in cases.of_sets(list(cases.SETS)):
        assert cases.of_size(f"{case.work}:{case.sizes}") == case


def test_operations_and_floor() -> None:
    step, infer = cases.of_size("2,3,5,1,1"), cases.of_size("2,3,5,1,10")
    assert step.operations == 2 * 4 * 5 * ((3 + 5) + (5 + 5))
    assert infer.operations == 10 * step.operations
    assert cases.of_size("train:2,3,5,6,10").operations == 3 * 6 * infer.operations
    # 4 bytes a weight; a step reads both matrices of both layers, a sequence U at each step.
    assert limits.floor(step, 1.0, 2.0) == 4 * 4 * 5 * (3 + 5 + 5 + 5) / 2
    reads = 2 * 10 * 4 * 4 * 5 * 5 / 2
    assert limits.floor(infer, 7.0, 2.0) == pytest.approx(10 * 8 * 5 * (3 + 5) / 7 + reads)


def test_cache_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assumed = limits.cache_sizes(tmp_path)
    assert assumed["L1"] < assumed["L2"] < assumed["L3"]
    files = [("1", "Data", "48K"), ("1", "Instruction", "64K"), ("2", "Unified", "2048K")]
    for number, texts in enumerate(files):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in zip(("level", "type", "size"), texts, strict=True):
            (folder / name).write_text(text + "\n")
    sizes = limits.cache_sizes(tmp_path)
    assert sizes == {"L1": 48 << 10, "L2": 2 << 20, "L3": assumed["L3"]}
    monkeypatch.setattr(limits, "cache_sizes", lambda: sizes)
    assert [limits.level_of(n << 10, 1) for n in (48, 49, 2048, 2049)] == ["L1", "L2", "L2", "L3"]
    assert [limits.level_of(n << 10, 2) for n in (96, 97)] == ["L1", "L2"]
    assert limits.level_of(sizes["L3"] + 1, 4) == "memory"  # threads share L3


def test_best_peer() -> None:
    times: dict[str, Any] = {"fastlstm": 2.0, "torch": 9.0, "openvino": 6.0, "jax": 7.0}
    row = {"engines": {name: {"median_us": us} for name, us in times.items()}}
    row["engines"]["onnxruntime"] = {"error": "broken"}
    assert results.best_peer(row) == ("openvino", 6.0)
    assert results.speedup(row) == 3.0
    assert results.speedup({"engines": {"fastlstm": {"median_us": 2.0}}}) is None


def test_other_results_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that computes something else, or fails, gets no time; the rest goes on."""

    class Fake:
        def __init__(self, name: str, factor: float) -> None:
            self.name, self._factor = name, factor

        def prepare(self, case: cases.Case) -> list[list[Any]]:
            return [[np.full((2, 2), self._factor, np.float32)]]

        def turn(self, calls: int, seconds: float, warm: float) -> Any:
            if self.name == "openvino":
                raise EngineError("openvino: broken")
            return np.full(calls, 2e-6)

        def limit(self, kind: str, threads: int) -> float:
            return 1e9

    factors = {
        "fastlstm": 0.5,
        "torch": 0.5,
        "onnxruntime": 0.501,
        "openvino": 0.5,
        "jax": math.nan,
    }
    workers: Any = {name: Fake(name, factor) for name, factor in factors.items()}
    row = measuring.measure(cases.of_size("1,2,3,2,2"), 1, workers, TINY)
    times = row["engines"]
    assert times["torch"]["median_us"] == times["fastlstm"]["median_us"] == pytest.approx(2)
    assert "0.001 off" in times["onnxruntime"]["error"]
    assert "broken" in times["openvino"]["error"]
    assert "nan off" in times["jax"]["error"]
    assert results.best_peer(row) == ("torch", pytest.approx(2))


def test_worker_reports_errors() -> None:
    worker = Worker("fastlstm", 1)
    try:
        with pytest.raises(EngineError, match="AttributeError"):
            worker.prepare(None)  # type: ignore[arg-type]
        assert len(worker.prepare(cases.of_size("1,2,3,1,1"))) == 3
        worker._process.kill()
        with pytest.raises(EngineError, match="ended"):
            worker.limit("fma", 1)
    finally:
        worker.close()


def test_ctrl_c_keeps_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = measuring.measure

    def measure(case: cases.Case, *others: Any) -> dict[str, Any]:
        if case.steps > 1:
            raise KeyboardInterrupt
        return real(case, *others)

    monkeypatch.setattr(cli.measuring, "measure", measure)
    monkeypatch.setattr(measuring, "QUICK", TINY)
    arguments = ["bench", "--quick", "--threads", "1", "--json", str(tmp_path / "a.json")]
    assert main([*arguments, "--size", "1,2,3,1,1", "--size", "1,2,3,1,2"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(results.load(tmp_path / "a.json")["rows"]) == 1


def test_plot(tmp_path: Path, found: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    plot.check("a.svg")
    plot.save(found, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<svg" in text


@pytest.mark.peer
@pytest.mark.usefixtures("same_threads")
@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
@pytest.mark.parametrize("size", SIZES)
def test_peers_compute_the_same(name: str, size: str) -> None:
    for package in peers.ENGINES[name].packages:
        pytest.importorskip(package)
    case = cases.of_size(size)
    if case.work not in peers.ENGINES[name].works:
        return
    ours, peer = (peers.start(n, 1).prepare(case) for n in ("fastlstm", name))
    for _ in range(3 if case.carries_state else 1):
        with peer.mode():
            arrays, expected = peer.arrays(peer.call()), ours.arrays(ours.call())
        for a, b in zip(arrays, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
