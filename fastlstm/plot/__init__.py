"""Pictures of what a layer does inside.  Needs matplotlib: ``pip install fastlstm[plot]``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.trace import LSTMTrace, Trace
from fastlstm.plot._gradients import gradient_flow, gradient_norms

__all__ = ["flow", "gates", "gradient_flow", "gradient_norms"]

Array = NDArray[Any]

_SIGNED = ("candidate", "cell", "hidden")  # around 0; gates are between 0 and 1


def gates(trace: Trace, text: str | None = None, *, row: int = 0) -> Any:
    """Draw heat maps over time: a panel for each gate and state, a line for each hidden unit.

    Parameters
    ----------
    trace : LSTMTrace, GRUTrace or RNNTrace
        One layer and direction, as `LSTM.trace` returns them, with time first.
    text : str, optional
        What the steps read, a character each: written below them.
    row : int, default 0
        Of the batch.

    Returns
    -------
    matplotlib.figure.Figure
        ``figure.savefig(path)`` writes it.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    ValueError
        If `text` has not a character for each step, or there is no such row.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> [trace] = fastlstm.LSTM(2, 3, seed=0).trace(np.ones((5, 2), np.float32))
    >>> figure = plot.gates(trace, text="steps")
    >>> len(figure.axes)
    12
    """
    from fastlstm._figure import Picture

    arrays = {
        name: _one_row(array, row, trace.batch_first) for name, array in trace._asdict().items()
    }
    steps = len(arrays["hidden"])
    if text is not None and len(text) != steps:
        raise ValueError(f"text: expected {steps} characters, one a step, got {len(text)}")
    figure: Any = Picture(
        figsize=(max(6.0, 0.16 * steps), 1.1 + 1.3 * len(arrays)), layout="constrained"
    )
    panels = figure.subplots(len(arrays), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, array) in zip(panels, arrays.items(), strict=True):
        signed = name in _SIGNED
        limit = max(1.0, float(np.abs(array).max(initial=0)))
        image = axes.imshow(
            array.T,
            aspect="auto",
            interpolation="none",  # vector files hold the values, not pixels of the page
            cmap="RdBu_r" if signed else "viridis",
            vmin=-limit if signed else 0,
            vmax=limit,
        )
        axes.set_title(name, loc="left", fontsize="small")
        axes.set_ylabel("unit")
        # A picture of the colours: as paths, they would be most of an SVG file.
        figure.colorbar(image, ax=axes, pad=0.01).solids.set_rasterized(True)
    if text is not None:
        panels[-1].set_xticks(range(steps), [_visible(character) for character in text])
        for axes in panels:
            axes.tick_params(axis="x", bottom=False)
    panels[-1].set_xlabel("step" if text is None else "what it reads")
    return figure


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


def _one_row(array: Array, row: int, batch_first: bool) -> Array:
    if array.ndim == 2:
        return array
    if batch_first:
        array = array.swapaxes(0, 1)
    if not 0 <= row < array.shape[1]:
        raise ValueError(f"row: expected 0 to {array.shape[1] - 1}, got {row}")
    return array[:, row]


def _values_at(trace: LSTMTrace, t: int, row: int, unit: int | None) -> dict[str, float]:
    """What `flow` shows: gates, candidate, states, and the cell state before."""
    rows = {
        name: _one_row(array, row, trace.batch_first) for name, array in trace._asdict().items()
    }
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


def _visible(character: str) -> str:
    return {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}.get(character, character)
