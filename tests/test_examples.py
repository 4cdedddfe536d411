"""The examples run, and show what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_long_memory() -> None:
    table = run("long_memory.py", "--lags", "60", "--steps", "500")
    parts = {line.split()[0]: int(line.split()[1].rstrip("%")) for line in table.splitlines()[1:]}
    assert parts["LSTM"] > 90
    assert parts["RNN"] < 60


def test_episodes() -> None:
    last = run("episodes.py", "--updates", "400").splitlines()[-1]
    assert float(last.split()[-1]) > 0.8
