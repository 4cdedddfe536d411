"""The examples run, and show what they say."""

from __future__ import annotations

import pytest
from support.processes import script


def test_long_memory() -> None:
    table = script("examples/long_memory.py", "--lags", "60", "--steps", "500")
    parts = {line.split()[0]: int(line.split()[1].rstrip("%")) for line in table.splitlines()[1:]}
    assert parts["LSTM"] > 90
    assert parts["RNN"] < 60


def test_episodes() -> None:
    last = script("examples/episodes.py", "--updates", "400").splitlines()[-1]
    assert float(last.split()[-1]) > 0.8


@pytest.mark.peer
def test_quantize() -> None:
    pytest.importorskip("sklearn")
    table = script("examples/quantize.py", "--epochs", "12", "--days", "60").splitlines()
    rows = {line.split()[0]: line.split() for line in table[1:]}
    accuracy = {name: float(row[1]) for name, row in rows.items()}
    assert accuracy["float32"] > 80
    assert max(abs(value - accuracy["float32"]) for value in accuracy.values()) < 2
    assert float(rows["int8"][4]) < float(rows["float32"][4]) / 3.8
