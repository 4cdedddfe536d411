"""One step of a cell: what the diagram says and how wide its lines are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

import fastlstm

pytest.importorskip("matplotlib")

from fastlstm import plot

BLUE, ORANGE, GREY = "#1a85ff", "#e66100", "#555555"


def lines(figure: Any) -> dict[str, Any]:
    return {line.get_gid(): line for line in figure.axes[0].lines if line.get_gid()}


def texts(figure: Any) -> list[str]:
    return [text.get_text().replace("\u2212", "-") for text in figure.axes[0].texts]


def title(figure: Any) -> str:
    return str(figure.axes[0].get_title(loc="left"))


def color(value: float) -> str:
    if not round(value, 2):
        return GREY
    return BLUE if value > 0 else ORANGE


def signed(value: float) -> str:
    return f"{value:+.2f}" if round(value, 2) else "0.00"


@pytest.fixture
def case(rng: Generator) -> tuple[Any, Any, Any]:
    lstm = fastlstm.LSTM(2, 5, seed=1)
    x = rng.standard_normal((4, 3, 2), dtype=np.float32) * 3
    return lstm, x, lstm.trace(x)[0]


def test_lines_are_as_wide_as_what_passes(case: Any, tmp_path: Path) -> None:
    _, _, trace = case
    for unit in range(5):
        figure = plot.flow(trace, 3, row=1, unit=unit)
        at = {name: float(array[3, 1, unit]) for name, array in trace._asdict().items()}
        at["before"] = float(trace.cell[2, 1, unit])
        at["kept"], at["added"] = at["forget"] * at["before"], at["input"] * at["candidate"]
        found, said = lines(figure), texts(figure)
        for name, value in at.items():
            assert found[name].get_linewidth() == pytest.approx(0.8 + 5 * abs(value), rel=1e-5)
            gate = name in ("input", "forget", "output")
            assert found[name].get_color() == (GREY if gate else color(value))
        for name in ("input", "forget", "output"):
            assert f"{name}\n{at[name]:.2f}" in said
        assert f"candidate\n{signed(at['candidate'])}" in said
        assert f"c\u209c\u208b\u2081 {signed(at['before'])}" in said
        assert f"c\u209c {signed(at['cell'])}" in said
        assert f"h\u209c {signed(at['hidden'])}" in said
        assert f"kept {signed(at['kept'])}" in said
        assert f"added {signed(at['added'])}" in said
    figure.savefig(tmp_path / "flow.svg")


def test_means_of_all_units(case: Any) -> None:
    """Of absolute values, which have no colour."""
    _, _, trace = case
    figure = plot.flow(trace, 3, row=1)
    assert f"c\u209c {np.abs(trace.cell[3, 1]).mean():.2f}" in texts(figure)
    assert {line.get_color() for line in lines(figure).values()} == {GREY, "#999999"}
    assert title(figure) == "step 3, mean of all units"


def test_the_first_step(case: Any) -> None:
    """The state before is computed: it was zero."""
    _, _, trace = case
    figure = plot.flow(trace, 0, unit=2)
    assert "c\u209c\u208b\u2081 0.00" in texts(figure)
    assert lines(figure)["before"].get_color() == GREY


def test_what_it_reads(case: Any) -> None:
    _, _, trace = case
    assert title(plot.flow(trace, 1, unit=2, text="ab c")) == 'step 1, reads "b", unit 2'
    assert title(plot.flow(trace, 2, text="ab c")) == 'step 2, reads "\u2423", mean of all units'


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("unit", [None, 4])
def test_shares_of_input_and_state(rng: Generator, batch_first: bool, unit: int | None) -> None:
    lstm = fastlstm.LSTM(2, 5, batch_first=batch_first, dtype="float64", seed=1)
    x = rng.standard_normal((4, 3, 2)) * 3
    [trace] = lstm.trace(x.swapaxes(0, 1) if batch_first else x)
    figure = plot.flow(
        trace, 3, row=1, unit=unit, layer=lstm, x=x.swapaxes(0, 1) if batch_first else x
    )
    hidden = trace.hidden[1, 2] if batch_first else trace.hidden[2, 1]
    of_x = (lstm.parameters["weight_ih_l0"] @ x[3, 1]).reshape(4, 5)
    of_h = (lstm.parameters["weight_hh_l0"] @ hidden).reshape(4, 5)
    for gate, name in enumerate(("input", "forget", "candidate", "output")):
        pair = [of_x[gate], of_h[gate]]
        values = [np.abs(p).mean() if unit is None else p[unit] for p in pair]
        for start, value in zip("xh", values, strict=True):
            share = abs(value) / np.abs(values).sum()
            line = lines(figure)[f"{start} to {name}"]
            assert line.get_linewidth() == pytest.approx(0.8 + 5 * share)
            assert f"{share:.0%}" in texts(figure)
            assert (f"{value:.2f}" if unit is None else signed(value)) in texts(figure)
            if unit is not None:
                assert line.get_color() == color(value)


def test_tokens_layers_and_directions(rng: Generator) -> None:
    lstm = fastlstm.LSTM(4, 5, 2, bidirectional=True, dtype="float64", seed=1)
    tokens = rng.integers(0, 4, 6)
    traces = lstm.trace(tokens, embedding="one-hot")
    for index, trace in enumerate(traces):
        options = {"layer": lstm, "x": tokens, "embedding": "one-hot", "index": index}
        figure = plot.flow(trace, 3, unit=1, **options)
        before = trace.cell[4 if index % 2 else 2, 1]
        assert f"c\u209c\u208b\u2081 {signed(before)}" in texts(figure)
        with pytest.raises(ValueError, match="layer, x: expected those that the trace is of"):
            plot.flow(traces[index - 1], 3, **options)


TRACE = fastlstm.LSTM(2, 5, seed=1).trace(np.ones((4, 3, 2), np.float32))[0]
NARROW = fastlstm.LSTM(2, 5, proj_size=3, seed=1).trace(np.ones((4, 2), np.float32))[0]
GRU = fastlstm.GRU(2, 5).trace(np.ones((4, 2), np.float32))[0]
LSTM, NORM = fastlstm.LSTM(2, 5), fastlstm.LSTM(2, 5, layer_norm=True)
X = np.ones((4, 3, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plot.flow(TRACE, 4), ValueError, "t: expected at most 3, got 4"),
        (lambda: plot.flow(TRACE, 0, unit=5), ValueError, "unit: expected at most 4, got 5"),
        (lambda: plot.flow(NARROW, 0, unit=3), ValueError, "unit: expected at most 2, got 3"),
        (lambda: plot.flow([1], 0), TypeError, "trace: expected an LSTMTrace, got list"),
        (lambda: plot.flow(GRU, 0), TypeError, "trace: expected an LSTMTrace, got GRUTrace"),
        (lambda: plot.flow(TRACE, 0, row=3), ValueError, "row: expected 0 to 2, got 3"),
        (lambda: plot.flow(TRACE, 0, text="abc"), ValueError, "text: expected 4 characters"),
        (lambda: plot.flow(TRACE, 0, x=X), ValueError, "layer, x: expected both or none, got x"),
        (lambda: plot.flow(TRACE, 0, layer=LSTM), ValueError, "both or none, got layer"),
        (lambda: plot.flow(TRACE, 0, layer=1, x=X), TypeError, "layer: expected an LSTM, GRU or"),
        (lambda: plot.flow(TRACE, 0, layer=NORM, x=X), ValueError, "plain cell, got LSTM"),
        (lambda: plot.flow(TRACE, 0, layer=LSTM, x=X), ValueError, "is of, got others"),
        (lambda: plot.flow(TRACE, 0, layer=LSTM, x=X[:3]), ValueError, r"\(3, 3, 5\)"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
