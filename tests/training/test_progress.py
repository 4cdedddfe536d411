"""What a run shows of itself: lines, a bar on terminals of any width, one bar in a notebook."""

from __future__ import annotations

import math
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from fastlstm.models import LanguageModel, Record
from fastlstm.models._progress import ProgressDisplay
from fastlstm.training import _progress


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of Jupyter, without widgets."""
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(config={"IPKernelApp": {}}))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setattr(_progress, "_has_widgets", lambda: False)


def records(n: int = 41) -> list[Record]:
    """A run of so many seconds; it measures half-way."""
    return [
        Record(s, 1000 * s, s, s / n, math.log(2), 1.25 if s > n // 2 else math.nan)
        for s in range(1, n + 1)
    ]


def test_a_sample_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(lambda: "many words " * 40) as display:
        for record in records():
            display(record)
    lines = capsys.readouterr().err.splitlines()
    samples = [line for line in lines if "many" in line]
    assert [line.split(" s")[0] for line in samples] == ["10", "20", "30", "40"]
    assert samples[2].startswith("30 s, held-out 1.250: many words many")
    assert all(len(line) <= 100 and line.endswith(("many", "words")) for line in samples)
    assert len(lines) == 4 + 2
    assert "1,000 chars/s, 1.000 bits/char, held-out 1.250" in lines[-1]


@pytest.mark.parametrize("columns", [44, 80])
def test_a_narrow_terminal_shows_bar_and_held_out(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(_progress, "_columns", lambda: columns)
    with ProgressDisplay(lambda: "many words " * 40) as display:
        for record in records():
            display(record)
            display._bar.dynamic_ncols, display._bar.ncols = None, columns  # there is no terminal
        shown = str(display._bar)
    assert len(shown) <= columns
    assert re.search(r"100%\|.{4,}\| 0 s", shown)
    assert (
        "1.00 bits, held-out 1.25" if columns == 44 else "1.000 bits/char, held-out 1.250"
    ) in shown
    samples = re.findall(r"^.*\d+ s.*: (many.*)$", capsys.readouterr().err, re.M)
    assert len(samples) == 4
    assert all(sample.endswith(("many", "words")) for sample in samples)


@pytest.mark.usefixtures("notebook")
def test_a_notebook_has_one_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """Its standard error is no terminal: lines there would each be an output."""
    LanguageModel("ab", hidden_size=2).fit("ab" * 100, steps=20, progress=True)
    err = capsys.readouterr().err
    assert err.startswith("\r")
    assert err.count("\n") == 1
    assert "bits/char" in err


@pytest.mark.peer
@pytest.mark.usefixtures("notebook")
def test_an_estimator_has_one_bar_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    from fastlstm.sklearn import LSTMRegressor

    LSTMRegressor(hidden_size=2, max_iter=30, verbose=True).fit([[0.0, 1.0]] * 4, [0.0] * 4)
    err = capsys.readouterr().err
    assert (err.count("\n"), "/30 " in err) == (1, True)


def test_widgets_are_used_where_they_are(notebook: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import tqdm.notebook

    made: list[Any] = []
    monkeypatch.setattr(_progress, "_has_widgets", lambda: True)
    monkeypatch.setattr(tqdm.notebook, "tqdm", lambda **options: made.append(options))
    _progress.open_bar(3, unit="epoch")
    assert made == [{"total": 3, "bar_format": None, "unit": "epoch", "delay": 0.0}]


def test_fit_shows_progress_if_it_is_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    for progress, lines in ((True, 10), (False, 0), (None, 0)):
        LanguageModel("ab", hidden_size=2).fit("ab" * 100, steps=20, progress=progress)
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_run_that_measures_nothing_shows_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as display:
        for step in range(1, 101):
            display(Record(step, 1000 * step, step, step / 100, math.log(2), math.nan))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == [f"{part}%" for part in range(10, 101, 10)]
