"""The gates and states of several layers, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlstm._layers.trace import Trace
from fastlstm.plot._sheet import STATES_FIRST, draw_sheet
from fastlstm.plot._traces import Units, column_of, rows_of_all


def compare(
    traces: Mapping[str, Trace], text: str | None = None, *, row: int = 0, units: Units = None
) -> Any:
    """Draw the heat maps of several traces in columns, such as those of an RNN and an LSTM.

    Each has the panels of its own gates and states.  Those of one row have the same colours for
    the same values: the hidden states, then the candidates and gates, of which the update gate of a
    GRU is beside the forget gate of an LSTM, because both say how much is kept.

    Parameters
    ----------
    traces : mapping of str to LSTMTrace, GRUTrace or RNNTrace
        With the labels they get.  All of as many steps.
    text, row, units
        As for `gates`, of every trace.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    TypeError, ValueError
        If there are no traces, or they differ in their steps, or as `gates` does.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> x = np.ones((5, 2), np.float32)
    >>> layers = {"RNN": fastlstm.RNN(2, 3, seed=0), "LSTM": fastlstm.LSTM(2, 3, seed=0)}
    >>> traces = {name: layer.trace(x)[0] for name, layer in layers.items()}
    >>> figure = plot.compare(traces, "steps")
    >>> [axes.get_title(loc="left") for axes in figure.axes[::2]]
    ['hidden', 'hidden', 'candidate', 'forget', 'input', 'output', 'cell']
    """
    rows = rows_of_all(traces, text, row)
    columns = [column_of(arrays, units, label) for label, arrays in rows.items()]
    return draw_sheet(columns, text, STATES_FIRST)
