"""Several layers side by side, and how much of their state changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.pictures import cells, limits, panels, x_labels, y_labels

import fastlstm

pytest.importorskip("matplotlib")

import itertools

from fastlstm import plot

TEXT = "abcdefg"


@pytest.fixture
def traces(rng: Generator) -> dict[str, Any]:
    x = rng.standard_normal((7, 2, 3), dtype=np.float32) * 4
    swapped = np.ascontiguousarray(x.swapaxes(0, 1))
    return {
        "plain": fastlstm.RNN(3, 4, seed=1).trace(x)[0],
        "gated": fastlstm.GRU(3, 5, batch_first=True, seed=1).trace(swapped)[0],
        "LSTM": fastlstm.LSTM(3, 6, seed=1).trace(x)[0],
    }


def row_of(trace: Any, array: Any, row: int) -> Any:
    return array[row] if trace.batch_first else array[:, row]


def test_columns(traces: dict[str, Any]) -> None:
    """A column for each trace, with all it has, in the order of the labels."""
    figure = plot.compare(traces, TEXT, row=1)
    assert [text.get_text() for text in figure.texts if text.get_text() in traces] == [*traces]
    lefts = []
    for number, (label, trace) in enumerate(traces.items()):
        for name, array in trace._asdict().items():
            having = [key for key, other in traces.items() if name in other._fields]
            axes = panels(figure, name)[having.index(label)]
            assert np.array_equal(cells(axes), row_of(trace, array, 1).T)
            lefts.append((number, round(axes.get_position().x0, 6)))
    assert len(set(lefts)) == 3
    assert sorted(lefts) == sorted(lefts, key=lambda pair: pair[1])
    lowest = [panels(figure, "hidden")[0], panels(figure, "reset")[0], panels(figure, "cell")[0]]
    assert ["".join(x_labels(axes)) for axes in lowest] == [TEXT] * 3


def test_rows(traces: dict[str, Any]) -> None:
    """Steps are below each other in a column, and names that belong together side by side."""
    figure = plot.compare(traces)
    for names in (["hidden"], ["candidate"], ["forget", "update"], ["input", "reset"]):
        found = [axes.get_position() for name in names for axes in panels(figure, name)]
        assert len(found) > 1
        assert len({(round(box.y0, 6), round(box.y1, 6)) for box in found}) == 1
    column = [panels(figure, name)[-1].get_position() for name in traces["LSTM"]._fields]
    assert len({(round(box.x0, 6), round(box.x1, 6)) for box in column}) == 1


def test_equal_colours_are_equal_values() -> None:
    relu = fastlstm.RNN(2, 3, nonlinearity="relu", seed=0)
    x = np.full((5, 2), 9, np.float32)
    [large], [small] = relu.trace(x), fastlstm.RNN(2, 3, seed=0).trace(x)
    assert large.hidden.max() > 1
    figure = plot.compare({"large": large, "small": small})
    ends = [limits(axes) for axes in panels(figure, "hidden")]
    assert ends == [(-large.hidden.max(), large.hidden.max())] * 2


def test_chosen_units(traces: dict[str, Any]) -> None:
    figure = plot.compare(traces, units=slice(3, None))
    labels = [y_labels(axes) for axes in panels(figure, "hidden")]
    assert labels == [["3"], ["3", "4"], ["3", "4", "5"]]


def test_share_of_the_state_that_changes(traces: dict[str, Any]) -> None:
    [axes] = plot.changes(traces, TEXT, row=1).axes
    assert x_labels(axes) == list(TEXT)
    for line, (label, trace) in zip(axes.lines, traces.items(), strict=True):
        state = trace.cell if label == "LSTM" else trace.hidden
        s = row_of(trace, state, 1).astype(np.float64)
        expected = [
            np.mean([abs(b - a) / (abs(a) + abs(b)) for a, b in zip(s[t - 1], s[t], strict=True)])
            for t in range(1, 7)
        ]
        assert line.get_label() == label
        assert np.isnan(line.get_ydata()[0])
        np.testing.assert_allclose(line.get_ydata()[1:], expected)
        assert list(line.get_xdata()) == [*range(7)]


def test_ends_of_the_share() -> None:
    """0 of what stays, even at 0; 1 of what is set, or changes its sign."""
    states = np.array([[0, 2, 0, 1], [0, 2, 3, -4]], np.float32)
    [axes] = plot.changes(
        {"": fastlstm.RNN(1, 4).trace(states[:, :1])[0]._replace(hidden=states)}
    ).axes
    assert axes.lines[0].get_ydata()[1] == 0.5


def test_changes_of_long_texts(rng: Generator) -> None:
    """Broken into bands, with lines that go on."""
    x = rng.standard_normal((200, 2), dtype=np.float32)
    [trace] = fastlstm.RNN(2, 3, seed=1).trace(x)
    text = "0123456789" * 20
    figure = plot.changes({"RNN": trace}, text)
    assert "".join(label for axes in figure.axes for label in x_labels(axes)) == text
    [whole] = plot.changes({"RNN": trace}).axes
    expected = dict(zip(*whole.lines[0].get_data(), strict=True))
    seen = set()
    for axes in figure.axes:
        xs, ys = axes.lines[0].get_data()
        np.testing.assert_array_equal(ys, [expected[place] for place in xs])
        seen |= {(a, b) for a, b in itertools.pairwise(xs)}
    assert seen == {(t, t + 1) for t in range(199)}
    assert len(plot.changes({"RNN": fastlstm.RNN(2, 3).trace(x[:0])[0]}, "").axes) == 1


SHORT = fastlstm.RNN(2, 3).trace(np.ones((4, 2), np.float32))[0]
LONG = fastlstm.LSTM(2, 3).trace(np.ones((5, 2), np.float32))[0]


@pytest.mark.parametrize("draw", [plot.compare, plot.changes])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([SHORT],), TypeError, "traces: expected a mapping of labels to traces, got list"),
        (({},), ValueError, "traces: expected at least one, got none"),
        (({"a": 1},), TypeError, r"traces\['a'\]: expected a trace of LSTM, GRU or RNN, got int"),
        (({"a": SHORT, "b": LONG},), ValueError, "all of as many steps, got 4 of 'a', 5 of 'b'"),
        (({"a": SHORT}, "abc"), ValueError, "text: expected 4 characters, one a step, got 3"),
    ],
)
def test_errors(draw: Any, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        draw(*arguments)
