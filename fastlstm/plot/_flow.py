"""One step of a cell."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm._layers.trace import LSTMTrace
from fastlstm.plot._traces import rows_of


def flow(trace: LSTMTrace, t: int, *, row: int = 0, unit: int | None = None) -> Any:
    """Draw one step of a cell as textbooks do: the wider a line, the more open its gate.

    From the left comes the old cell state, through the forget gate; from below the candidate,
    through the input gate; their sum is the new cell state, which leaves to the right and, through
    the output gate, to the top as the hidden state.

    Parameters
    ----------
    trace : LSTMTrace
        One layer and direction, as `LSTM.trace` returns them, with time first.
    t : int
        The step.
    row : int, default 0
        Of the batch.
    unit : int, optional
        A hidden unit.  Default: the mean over all, of absolute values where they have signs.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The cell state before step 0 is not in a trace.  It is computed from the others as in the plain
    cell, which is not exact with `zoneout` or `cell_clip`.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    TypeError, ValueError
        If `trace` is not that of an LSTM, or there is no such step, row or unit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> [trace] = fastlstm.LSTM(2, 3, seed=0).trace(np.ones((5, 2), np.float32))
    >>> figure = plot.flow(trace, 4, unit=0)
    """
    if not isinstance(trace, LSTMTrace):
        raise TypeError(f"trace: expected an LSTMTrace, got {type(trace).__name__}")
    from fastlstm._figure import Picture

    value = _values_at(trace, t, row, unit)
    figure: Any = Picture(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 10), ylim=(0, 6.4))
    axes.axis("off")
    # From, to, where the gate is, its name, how open it is, what the line carries.
    lines = [
        ((0.3, 4), (5, 4), (2.6, 4), "forget", value["forget"], "cell state before"),
        ((5, 0.6), (5, 4), (5, 2.2), "input", value["input"], "candidate"),
        ((5, 4), (9.7, 4), None, "", 1.0, "cell state"),
        ((7.4, 4), (7.4, 6.2), (7.4, 5.1), "output", value["output"], "hidden state"),
    ]
    for start, end, gate, name, opened, carries in lines:
        style = {"arrowstyle": "-|>", "mutation_scale": 16, "color": "#1a85ff"}
        arrow = {**style, "linewidth": 0.6 + 9 * opened, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=arrow)
        if gate is not None:
            box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "#e66100"}
            label = f"{name} gate\n{opened:.2f}"
            axes.text(*gate, label, ha="center", va="center", bbox=box, fontsize="small")
        across = start[1] == end[1]
        place = (start[0] + 0.1, start[1] + 0.5) if across else (start[0] + 0.35, start[1] + 0.15)
        if carries == "cell state":
            place = (8.3, 4.5)
        if carries == "hidden state":
            place = (7.75, 5.9)
        axes.text(*place, f"{carries}\n{value[carries]:+.2f}", fontsize="small", va="center")
    axes.plot(5, 4, "o", markersize=18, color="white", markeredgecolor="black", zorder=5)
    axes.text(5, 4, "+", ha="center", va="center", zorder=6)
    which = "mean of all units" if unit is None else f"unit {unit}"
    axes.set_title(f"step {t}, {which}")
    return figure


def _values_at(trace: LSTMTrace, t: int, row: int, unit: int | None) -> dict[str, float]:
    """What `flow` shows: gates, candidate, states, and the cell state before."""
    rows = rows_of(trace, row)
    steps, units = len(rows["cell"]), min(array.shape[1] for array in rows.values())
    if not 0 <= t < steps:
        raise ValueError(f"t: expected 0 to {steps - 1}, got {t}")
    if unit is not None and not 0 <= unit < units:
        raise ValueError(f"unit: expected 0 to {units - 1}, got {unit}")
    names = {"cell": "cell state", "hidden": "hidden state"}
    at = {names.get(name, name): array[t] for name, array in rows.items()}
    # c = f c_before + i g
    kept = at["cell state"] - at["input"] * at["candidate"]
    forget = np.maximum(at["forget"], np.finfo(kept.dtype).tiny)
    at["cell state before"] = rows["cell"][t - 1] if t else kept / forget
    if unit is not None:
        return {name: float(array[unit]) for name, array in at.items()}
    return {name: float(np.abs(array).mean()) for name, array in at.items()}
