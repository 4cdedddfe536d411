"""Heat maps of gates: which value is where, their colours, labels and sizes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.pictures import cells, limits, panels, x_labels, y_labels

import fastlstm

pytest.importorskip("matplotlib")

import itertools

from fastlstm import plot

KINDS = [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN]


@pytest.fixture
def trace_of(rng: Generator) -> Callable[[int, int], Any]:
    def trace(units: int, steps: int) -> Any:
        x = rng.standard_normal((steps, 8), dtype=np.float32) * 2
        return fastlstm.LSTM(8, units, seed=1).trace(x)[0]

    return trace


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_every_value_is_in_its_place(rng: Generator, kind: Any) -> None:
    [trace] = kind(2, 5, seed=1).trace(rng.standard_normal((4, 3, 2), dtype=np.float32))
    figure = plot.gates(trace, text="a b\n", row=2)
    for name, array in trace._asdict().items():
        [panel] = panels(figure, name)
        assert np.array_equal(cells(panel), array[:, 2].T)
        assert limits(panel) == (-1 if name in ("candidate", "hidden", "cell") else 0, 1)
        assert y_labels(panel) == ["0", "1", "2", "3", "4"]
    assert x_labels(panels(figure, "hidden")[0]) == ["a", "\u2423", "b", "\u21b5"]


def test_time_comes_first(rng: Generator) -> None:
    """Also of a layer that has the batch first."""
    x = rng.standard_normal((3, 4, 2), dtype=np.float32)
    [trace] = fastlstm.LSTM(2, 5, batch_first=True, seed=1).trace(x)
    [panel] = panels(plot.gates(trace, "abcd", row=2), "input")
    assert np.array_equal(cells(panel), trace.input[2].T)


def test_gates_above_one_keep_their_colours() -> None:
    lstm = fastlstm.LSTM(2, 5, activations=("softplus", "tanh", "tanh"), seed=1)
    [trace] = lstm.trace(np.full((4, 2), 9, np.float32))
    assert trace.input.max() > 1
    assert limits(panels(plot.gates(trace), "input")[0]) == (0, trace.input.max())


def test_units_have_limits_of_their_own(trace_of: Callable[[int, int], Any]) -> None:
    trace = trace_of(3, 6)
    figure = plot.gates(trace, scale="unit")
    shown = cells(panels(figure, "cell")[0])
    assert np.abs(shown).max(axis=1) == pytest.approx(1)
    assert shown == pytest.approx((trace.cell / np.abs(trace.cell).max(axis=0)).T)
    shown, gate = cells(panels(figure, "input")[0]), trace.input.T
    assert (shown.min(axis=1), shown.max(axis=1)) == (pytest.approx(0), pytest.approx(1))
    assert (shown.argmax(axis=1) == gate.argmax(axis=1)).all()
    assert "max" in y_labels(figure.axes[1])
    constant = trace._replace(input=trace.input * 0 + 0.5, cell=trace.cell * 0)
    figure = plot.gates(constant, scale="unit")
    assert not cells(panels(figure, "cell")[0]).any()
    assert not cells(panels(figure, "input")[0]).any()


@pytest.mark.parametrize("units", [[4, 1], slice(1, 6, 2), np.arange(8) > 5])
def test_chosen_units(trace_of: Callable[[int, int], Any], units: Any) -> None:
    trace = trace_of(8, 3)
    [panel] = panels(plot.gates(trace, units=units), "forget")
    assert np.array_equal(cells(panel), trace.forget.T[units])
    assert y_labels(panel) == [str(number) for number in np.arange(8)[units]]


def test_a_projection_has_fewer_units() -> None:
    [trace] = fastlstm.LSTM(2, 5, proj_size=3, seed=1).trace(np.ones((4, 2), np.float32))
    figure = plot.gates(trace, units=[4, 2, 0])
    assert y_labels(panels(figure, "cell")[0]) == ["4", "2", "0"]
    assert np.array_equal(cells(panels(figure, "hidden")[0]), trace.hidden.T[[2, 0]])
    assert not panels(plot.gates(trace, units=[4]), "hidden")


def test_long_texts_are_broken_into_bands(trace_of: Callable[[int, int], Any]) -> None:
    trace, text = trace_of(4, 250), "0123456789" * 25
    figure = plot.gates(trace, text)
    bands = panels(figure, "cell")
    assert len(bands) == 3
    assert np.array_equal(np.hstack([cells(band) for band in bands]), trace.cell.T)
    assert "".join(label for axes in panels(figure, "hidden") for label in x_labels(axes)) == text
    assert figure.get_size_inches()[0] < 11
    width_of_step = [band.get_position().width / cells(band).shape[1] for band in bands]
    assert width_of_step == pytest.approx(width_of_step[:1] * 3)


@pytest.mark.parametrize(
    ("units", "steps", "text"),
    [(8, 5, True), (8, 20, True), (12, 40, True), (64, 120, True), (256, 500, False)],
)
def test_labels_do_not_collide(
    trace_of: Callable[[int, int], Any], units: int, steps: int, text: bool
) -> None:
    """Neither of units nor of steps; and a figure fits a page or a screen that scrolls."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = plot.gates(trace_of(units, steps), "M" * steps if text else None)
    width, height = figure.get_size_inches()
    assert 5 < width < 11
    assert 4 < height < 20
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in panels(figure, "hidden"):
        boxes = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
        boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
        assert len(boxes) > 1
        assert all(a.y0 > b.y1 - 3 for a, b in itertools.pairwise(boxes))


def test_size_of_files(trace_of: Callable[[int, int], Any], tmp_path: Path) -> None:
    """Rectangles while there are few, which no renderer blurs; an image of more."""
    path = tmp_path / "gates.svg"
    plot.gates(trace_of(12, 40), "x" * 40).savefig(path)
    assert path.stat().st_size < 300_000
    few, many = plot.gates(trace_of(12, 40)), plot.gates(trace_of(13, 40))
    assert [len(panels(f, "cell")[0].images) for f in (few, many)] == [0, 1]
    trace = trace_of(256, 300)
    figure = plot.gates(trace)
    figure.savefig(path)
    assert path.stat().st_size < 3_000_000
    [panel] = panels(figure, "cell")
    assert np.array_equal(cells(panel), trace.cell.T)
    pixels = np.divide(panel.images[0].get_array().shape, (256, 300))
    assert (pixels >= 2).all()


def test_what_is_not_there() -> None:
    """Neither no steps nor values that are no numbers."""
    [trace] = fastlstm.LSTM(2, 3, seed=1).trace(np.ones((0, 2), np.float32))
    assert len(panels(plot.gates(trace, ""), "cell")) == 1
    [trace] = fastlstm.LSTM(2, 3, seed=1).trace(np.full((2, 2), np.nan, np.float32))
    assert limits(panels(plot.gates(trace), "cell")[0]) == (-1, 1)
    trace.cell[1, 2] = np.inf
    assert limits(panels(plot.gates(trace), "cell")[0]) == (-1, 1)


TRACE = fastlstm.LSTM(2, 5, seed=1).trace(np.ones((4, 3, 2), np.float32))[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plot.gates(TRACE, "abc"), ValueError, "text: expected 4 characters, one a step"),
        (lambda: plot.gates(TRACE, 4), TypeError, "text: expected a str, got int"),
        (lambda: plot.gates(TRACE, row=3), ValueError, "row: expected 0 to 2, got 3"),
        (lambda: plot.gates([1]), TypeError, "trace: expected a trace of LSTM, GRU or RNN"),
        (lambda: plot.gates(TRACE, scale="row"), ValueError, "scale: expected 'panel' or 'unit'"),
        (lambda: plot.gates(TRACE, units=[5]), ValueError, "units: expected indices below 5"),
        (lambda: plot.gates(TRACE, units=[]), ValueError, "units: expected at least one of 0 to 4"),
        (lambda: plot.gates(TRACE, units="3"), TypeError, "units: expected indices, a slice"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "fastlstm._figure", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastlstm\[plot\]'"):
        plot.gates(TRACE)
