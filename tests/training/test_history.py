"""What a training run returns: its line, its curve, its table."""

from __future__ import annotations

import math
import sys

import pytest

from fastlstm.models import History, Record

RECORDS = [
    Record(10, 100, 1.5, 0.5, math.log(2) * 3, 2.75),
    Record(20, 200, 4.0, 1.0, math.log(2) * 2, 2.25),
]
UNMEASURED = [record._replace(held_out_bits=math.nan) for record in RECORDS]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (History(), "History(0 records)"),
        (
            History(RECORDS),
            "History(2 records, 20 steps, held out 2.250 bits per character, 4.0 s)",
        ),
        (
            History(UNMEASURED[:1], stopped=True),
            "History(1 record, 10 steps, training 3.000 bits per character, 1.5 s, stopped)",
        ),
    ],
)
def test_representation(history: History, expected: str) -> None:
    assert repr(history) == expected


@pytest.mark.parametrize("against", ["seconds", "step", "characters"])
def test_curve(against: str) -> None:
    pytest.importorskip("matplotlib")
    [axes] = History(RECORDS).plot(against).axes
    curves = {line.get_label(): line.get_xydata().T.tolist() for line in axes.lines}
    place = [getattr(record, against) for record in RECORDS]
    assert curves == {"held out": [place, [2.75, 2.25]], "training": [place, [3, 2]]}
    [axes] = History(UNMEASURED).plot(against).axes
    assert [line.get_label() for line in axes.lines] == ["training"]


def test_errors() -> None:
    with pytest.raises(ValueError, match="against: expected 'seconds', 'step' or 'characters'"):
        History(RECORDS).plot("epochs")


def test_a_notebook_has_the_curve_or_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    history = History(RECORDS)
    assert history._repr_html_() is None
    assert history._repr_png_()[0].startswith(b"\x89PNG")
    assert History()._repr_png_() is None
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    table = history._repr_html_()
    assert table is not None
    assert "<td>20</td><td>4.0</td><td>2.000</td><td>2.250</td>" in table
    assert history._repr_png_() is None
