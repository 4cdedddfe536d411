"""The benchmark of several processes: what it says they send is what a sum sends."""

from __future__ import annotations

import runpy

import pytest
from support.checkout import CHECKOUT


def test_processes(capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(CHECKOUT / "benchmarks/scale_out.py"))
    script["MODELS"]["small"] = (8, 1)
    script["rows_of_processes"]("small", 64, 64, 0.0)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows] == ["1, no shards", "1", "2", "4", "8", "16", "32", "64"]
    embedding, head, layer = 100 * 64, 100 * 9, 4 * 8 * (64 + 8 + 2)
    for row in rows[1:]:
        size, rows_of_one = int(row[1]), int(row[2])
        assert size * rows_of_one == 64
        sent = 2 * (embedding + head + layer) * (size - 1) / size * 4 / 1e6
        assert float(row[4]) == pytest.approx(sent, abs=0.06)


def test_cost_of_shards(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = runpy.run_path(str(CHECKOUT / "benchmarks/scale_out.py"))
    cost = script["cost_of_shards"]
    monkeypatch.setitem(cost.__globals__, "MODELS", {"small": (8, 1)})
    monkeypatch.setitem(cost.__globals__, "LAYERS", (8,))
    cost(0.0)
    assert [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[3:]] == [
        "layer of 8",
        "small",
    ]
