"""The examples run, and show what they say."""

from __future__ import annotations

from support.processes import script


def test_long_memory() -> None:
    table = script("examples/long_memory.py", "--lags", "60", "--steps", "500")
    parts = {line.split()[0]: int(line.split()[1].rstrip("%")) for line in table.splitlines()[1:]}
    assert parts["LSTM"] > 90
    assert parts["RNN"] < 60


def test_episodes() -> None:
    last = script("examples/episodes.py", "--updates", "400").splitlines()[-1]
    assert float(last.split()[-1]) > 0.8
