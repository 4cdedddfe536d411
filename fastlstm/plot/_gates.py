"""Every gate and state of a layer, step by step."""

from __future__ import annotations

from typing import Any, Literal

from fastlstm._layers.trace import Trace
from fastlstm.plot._sheet import GATES_FIRST, draw_sheet
from fastlstm.plot._traces import Units, check_text, column_of, rows_of


def gates(
    trace: Trace,
    text: str | None = None,
    *,
    row: int = 0,
    scale: Literal["panel", "unit"] = "panel",
    units: Units = None,
) -> Any:
    """Draw heat maps over time: a panel for each gate and state, a line for each hidden unit.

    Gates go from dark, shut, to yellow, open; what has a sign from orange, negative, by white to
    blue, positive.  A text too long for one line is broken into several bands of panels.

    Parameters
    ----------
    trace : LSTMTrace, GRUTrace or RNNTrace
        One layer and direction, as `LSTM.trace` returns them.
    text : str, optional
        What the steps read, a character each: written below them.
    row : int, default 0
        Of the batch.
    scale : {"panel", "unit"}
        What the limits of the colours are: "panel", 0 to 1, or -1 to 1, or to the largest absolute
        value if that is above 1; "unit", for each unit its own: its minimum to its maximum, or
        with a sign its largest absolute value to both sides.  Units with small values show then.
    units : slice or sequence of int, optional
        Which units, in this order.  Default: all.

    Returns
    -------
    matplotlib.figure.Figure
        ``figure.savefig(path)`` writes it; a notebook shows it.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    TypeError, ValueError
        If `text` has not a character for each step, or there is no such row, unit or scale.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> [trace] = fastlstm.LSTM(2, 3, seed=0).trace(np.ones((5, 2), np.float32))
    >>> figure = plot.gates(trace, text="steps", scale="unit", units=[0, 2])
    >>> [axes.get_title(loc="left") for axes in figure.axes[::2]]
    ['input', 'forget', 'candidate', 'output', 'cell', 'hidden']
    """
    rows = rows_of(trace, row)
    check_text(text, len(rows["hidden"]))
    if scale not in ("panel", "unit"):
        raise ValueError(f"scale: expected 'panel' or 'unit', got {scale!r}")
    return draw_sheet([column_of(rows, units)], text, GATES_FIRST, by_unit=scale == "unit")
