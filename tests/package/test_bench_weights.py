"""The benchmark of weights of fewer bits: tiny runs.  Nothing here depends on a time."""

from __future__ import annotations

import copy
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkout import CHECKOUT

from fastlstm.bench import cases, compare, limits, measuring, peers, plot, report, results
from fastlstm.bench.worker import EngineError
from fastlstm.cli import main

SIZES = ["2,3,5,1,1", "block:1,1,4,1,6", "2,3,5,1,7", "2,3,5,4,7"]
TINY = measuring.Plan(calls=4, seconds=0.01, rounds=2, warm=0.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The results of a run with int8 weights, and what it printed."""
    path = tmp_path_factory.mktemp("bench") / "a.json"
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "QUICK", TINY)
        patch.setattr("builtins.print", lambda *a, **_: printed.extend(map(str, a)))
        arguments = ["bench", "--quick", "--threads", "1", "--weights", "int8"]
        arguments += [word for size in SIZES for word in ("--size", size)]
        assert main([*arguments, "--json", str(path)]) == 0
    return results.load(path), "\n".join(printed)


def test_floor_of_fewer_bits() -> None:
    step, infer = (
        replace(cases.of_size(size), weights_dtype="int8") for size in ("2,3,5,1,1", "2,3,5,1,10")
    )
    # A byte a weight, and 8 for each of the 4 * 5 rows of the four matrices.
    assert limits.weight_bytes(step) == 4 * 5 * (3 + 5 + 5 + 5 + 4 * 8)
    assert limits.floor(step, 1.0, 2.0) == limits.weight_bytes(step) / 2
    reads = 2 * 10 * 4 * 5 * (5 + 8) / 2
    projection = 10 * 8 * 5 * (3 + 5) / (4 * 7)
    assert limits.floor(infer, 7.0, 2.0) == pytest.approx(projection + reads)
    for weights in ("bfloat16", "float16"):
        assert limits.weight_bytes(replace(step, weights_dtype=weights)) == 2 * 4 * 5 * 18
        half = replace(infer, weights_dtype=weights)
        reads = 2 * 10 * 2 * 4 * 5 * 5 / 2
        assert limits.floor(half, 7.0, 2.0) == pytest.approx(4 * projection + reads)


def test_each_engine_has_its_weights() -> None:
    seen = {}

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def prepare(self, case: cases.Case) -> list[list[Any]]:
            seen[self.name] = case.weights_dtype
            return [[np.ones(1)]]

        def turn(self, calls: int, seconds: float, warm: float) -> Any:
            return np.full(calls, 2e-6)

        def limit(self, kind: str, threads: int) -> float:
            return 1e9

    workers: Any = {name: Fake(name) for name in ("fastlstm", "fastlstm float32", "torch")}
    case = replace(cases.of_size("1,2,3,2,2"), weights_dtype="int8")
    measuring.measure(case, 1, workers, TINY)
    assert seen == {"fastlstm": "int8", "fastlstm float32": "float32", "torch": "int8"}
    for weights in cases.WEIGHTS:
        layer = replace(case, weights_dtype=weights).layer()
        assert layer.weights_dtype == weights


def test_json_of_fewer_bits(small: tuple[dict[str, Any], str]) -> None:
    found, _ = small
    assert found["weights"] == "int8"
    assert " --weights int8" in found["command"]
    for row in found["rows"]:
        assert list(row["engines"]) == ["fastlstm", "fastlstm float32"]
        assert "fma_share" not in row
        assert results.gain(row) == (
            row["engines"]["fastlstm float32"]["median_us"]
            / row["engines"]["fastlstm"]["median_us"]
        )
    assert len([row for row in found["rows"] if row.get("floor_us")]) == 3


def test_tables_of_fewer_bits(small: tuple[dict[str, Any], str]) -> None:
    found, printed = copy.deepcopy(small[0]), small[1]
    titles = next(line for line in printed.splitlines() if line.startswith("work"))
    assert re.split(r"\s{2,}", titles)[2:] == [
        "fastlstm int8",
        "+- fastlstm float32",
        "x f32 floor",
    ]
    assert "its own float32 in the geometric mean of 4 rows" in printed
    assert max(map(len, printed.splitlines())) <= 100
    found["peers"], found["left_out"] = ["torch", "onnxruntime"], ["openvino", "jax"]
    for row in found["rows"]:
        row["engines"]["fastlstm"]["median_us"] = 172058.0
        row["engines"]["fastlstm float32"]["median_us"] = 2 * 172058.0
        row["engines"]["torch"] = {"median_us": 3 * 172058.0}
    table = report.Table(found["peers"], "int8")
    assert max(map(len, [*table.head(2), table.row(found["rows"][0])])) <= 100
    assert max(map(len, table.latencies(found["rows"]))) <= 100
    text = report.markdown(found)
    assert "left out, as they have no weights of int8: OpenVINO, JAX" in text
    assert "| fastlstm int8 | +- | fastlstm float32 | torch int8 | ORT int8 |" in text
    assert text.count("| 344,116 | 516,174 | - | 2.00x | 3.00x |") == 4
    assert text.count("| **172,058** |") == 4


def test_peers_without_such_weights_are_left_out() -> None:
    found = results.describe("", ["jax", "openvino"], "int8")
    assert (found["peers"], found["left_out"]) == ([], ["jax", "openvino"])
    assert "jax" not in found["versions"]
    able = {w: [n for n in peers.PEERS if w in peers.ENGINES[n].weights] for w in cases.WEIGHTS}
    assert able == {
        "float32": ["torch", "onnxruntime", "openvino", "jax"],
        "int8": ["torch", "onnxruntime"],
        "float16": ["torch"],
        "bfloat16": [],
    }


def test_files_without_weights_are_of_float32(
    tmp_path: Path, small: tuple[dict[str, Any], str]
) -> None:
    old = {
        key: value
        for key, value in copy.deepcopy(small[0]).items()
        if key not in ("weights", "left_out")
    }
    for row in old["rows"]:
        row["fma_share"] = 0.5
    results.save(old, tmp_path / "old.json")
    found = results.load(tmp_path / "old.json")
    assert found == {**old, "weights": "float32", "left_out": []}
    titles = "| fastlstm | +- | best peer / fastlstm | GFLOP/s | of FMA peak | of floor |"
    assert titles in report.markdown(found)
    lines, _ = compare.compare(found, small[0], 0.05)
    assert lines[0] == "not the same weights: float32 and int8"


def test_section_of_fewer_bits(tmp_path: Path, small: tuple[dict[str, Any], str]) -> None:
    section = runpy.run_path(str(CHECKOUT / "benchmarks/update_readme.py"))["section"]
    found, path = small[0], str(tmp_path / "a.json")
    heading = f"## {found['machine']['cpu']}, {found['date'][:10]}"
    results.save(found, path)
    assert section(path).startswith(f"{heading}, int8 weights\n")
    results.save({**found, "weights": "float32", "rows": []}, path)
    assert section(path).startswith(f"{heading}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["int7"], "--weights: expected one of float32, int8, bfloat16, float16, got 'int7'"),
        (["int8"], "--weights int8: expected inference, got train:1,32,64,32,100; choose"),
        (["float16", "--size", "train:1,2,3,4,5"], "got train:1,2,3,4,5; choose"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--weights", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_tolerance_of_fewer_bits_is_relative() -> None:
    """A step's results are small: where 8 bits are 5% off, zeros are not taken for right."""
    y = np.array([0.03, -0.01], np.float32)
    measuring._compare("torch", [[y * np.float32(1.05)]], [[y]], "int8")
    for weights in cases.WEIGHTS[1:]:
        with pytest.raises(EngineError, match="1 off"):
            measuring._compare("torch", [[0 * y]], [[y]], weights)
    with pytest.raises(EngineError, match=r"0\.05 off"):
        measuring._compare("torch", [[y * np.float32(1.05)]], [[y]], "float16")


def test_plot_names_the_weights(tmp_path: Path, small: tuple[dict[str, Any], str]) -> None:
    pytest.importorskip("matplotlib")
    found = copy.deepcopy(small[0])
    found["peers"] = ["onnxruntime"]
    for row in found["rows"]:
        row["engines"]["onnxruntime"] = {"median_us": 1.0}
    plot.save(found, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    for label in ("fastlstm int8", "fastlstm float32", "ORT int8"):
        assert f"<!-- {label} -->" in text


@pytest.mark.peer
@pytest.mark.usefixtures("same_threads")
@pytest.mark.parametrize(
    ("name", "weights"), [("torch", "int8"), ("torch", "float16"), ("onnxruntime", "int8")]
)
@pytest.mark.parametrize("size", ["2,16,24,1,1", "block:1,8,24,1,6", "2,16,24,4,7"])
def test_peers_of_fewer_bits_compute_the_same(name: str, weights: str, size: str) -> None:
    """Within the tolerance, and not to the bits of float32: so they are indeed quantized."""
    for package in peers.ENGINES[name].packages:
        pytest.importorskip(package)
    whole = cases.of_size(size)
    case = replace(whole, weights_dtype=weights)
    ours, peer, float32 = (
        peers.start(n, 1).prepare(c)
        for n, c in (("fastlstm", case), (name, case), ("fastlstm float32", whole))
    )
    for _ in range(3 if case.carries_state else 1):
        with peer.mode():
            [got] = peer.arrays(peer.call())
        [expected], [exact] = (w.arrays(w.call()) for w in (ours, float32))
        measuring._compare(name, [[got]], [[expected]], weights)
        assert np.abs(got - exact).max() > 1e-5 * np.abs(exact).max()
