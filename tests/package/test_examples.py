"""The examples run, and show what they say."""

from __future__ import annotations

import pytest
from support.checkout import CHECKOUT
from support.processes import python, script


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


@pytest.mark.peer
def test_predict_anywhere() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("distributed")
    lines = script("examples/predict_anywhere.py", "--copies", "2", "--epochs", "1").splitlines()
    assert [line.split()[0] for line in lines] == ["alone", "threads", "processes", "Dask"]
    assert all(line.endswith(", the same labels") for line in lines[1:])


@pytest.mark.peer
@pytest.mark.parametrize(
    ("example", "package"),
    [("ray_predict", "ray"), ("spark_predict", "pyspark"), ("submitit_train", "submitit")],
)
def test_examples_say_what_is_not_installed(example: str, package: str) -> None:
    """In one line."""
    pytest.importorskip("sklearn")
    code = f"""
import runpy, sys
sys.modules[{package!r}] = None
sys.argv = [""]
runpy.run_path({str(CHECKOUT / "examples" / example)!r} + ".py", run_name="__main__")
"""
    [line] = python(code).splitlines()
    assert line.startswith("skipped: ")
    assert f"(pip install {package}" in line.replace("'", "")
