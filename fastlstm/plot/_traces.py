"""What pictures take of a trace: one row, some units, and the text that it read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._layers.trace import GRUTrace, LSTMTrace, RNNTrace, Trace
from fastlstm.plot._sheet import Column

Array = NDArray[Any]
Units = slice | Sequence[int] | None


def rows_of(trace: Trace, row: int, name: str = "trace") -> dict[str, Array]:
    """The arrays (T, H) of one row of the batch."""
    if not isinstance(trace, LSTMTrace | GRUTrace | RNNTrace):
        raise TypeError(f"{name}: expected a trace of LSTM, GRU or RNN, got {type(trace).__name__}")
    return {key: one_row(array, row, trace.batch_first) for key, array in trace._asdict().items()}


def rows_of_all(
    traces: Mapping[str, Trace], text: str | None, row: int
) -> dict[str, dict[str, Array]]:
    """The arrays of each trace; all have as many steps, and the text a character for each."""
    if not isinstance(traces, Mapping):
        raise TypeError(
            f"traces: expected a mapping of labels to traces, got {type(traces).__name__}"
        )
    if not traces:
        raise ValueError("traces: expected at least one, got none")
    rows = {str(name): rows_of(t, row, f"traces[{name!r}]") for name, t in traces.items()}
    steps = {name: len(arrays["hidden"]) for name, arrays in rows.items()}
    if len(set(steps.values())) > 1:
        found = ", ".join(f"{count} of {name!r}" for name, count in steps.items())
        raise ValueError(f"traces: expected all of as many steps, got {found}")
    check_text(text, next(iter(steps.values())))
    return rows


def one_row(array: Array, row: int, batch_first: bool, *, dimensions: int = 2) -> Array:
    """Time first, and as many dimensions as there are without a batch."""
    if array.ndim == dimensions:
        return array
    if batch_first:
        array = array.swapaxes(0, 1)
    if not 0 <= row < array.shape[1]:
        raise ValueError(f"row: expected 0 to {array.shape[1] - 1}, got {row}")
    return array[:, row]


def column_of(rows: Mapping[str, Array], units: Units, title: str = "") -> Column:
    """All panels of a trace, of these units or of all; a projection has fewer of them."""
    most = max(array.shape[1] for array in rows.values())
    numbers = np.arange(most)
    if units is not None:
        numbers = numbers[_validation.row_indices(units, "units", most)]
        if not len(numbers):
            raise ValueError(f"units: expected at least one of 0 to {most - 1}, got {units!r}")
    chosen = {name: numbers[numbers < array.shape[1]] for name, array in rows.items()}
    panels = {name: array.T[chosen[name]] for name, array in rows.items() if len(chosen[name])}
    return Column(title, panels, {name: chosen[name].tolist() for name in panels})


def check_text(text: str | None, steps: int) -> None:
    """Refuse a text that has not a character for each step."""
    if text is not None and not isinstance(text, str):
        raise TypeError(f"text: expected a str, got {type(text).__name__}")
    if text is not None and len(text) != steps:
        raise ValueError(f"text: expected {steps} characters, one a step, got {len(text)}")
