"""How much of its state a layer changes at each step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.trace import Trace
from fastlstm.plot._sheet import visible
from fastlstm.plot._traces import rows_of_all

Array = NDArray[Any]

_STEPS = {False: 1000, True: 90}  # of a line, without and with letters below it
_COLORS = ("#1a85ff", "#e66100", "#333333", "#d41159", "#5d9e31")


def changes(traces: Mapping[str, Trace], text: str | None = None, *, row: int = 0) -> Any:
    r"""Draw the share of the state that changes at each step, a line for each trace.

    For the state s, the cell state of an LSTM and the hidden state of other cells, it is the mean
    over the units of

    .. math:: \frac{|s_t - s_{t-1}|}{|s_t| + |s_{t-1}|}

    which is 0 for a unit that keeps its value, and 1 for one that is set from or to 0, or changes
    its sign.  (A unit that stays 0 counts as 0.)  The state before the first step is not in a
    trace, so the lines begin at step 1.

    Parameters
    ----------
    traces : mapping of str to LSTMTrace, GRUTrace or RNNTrace
        With the labels they get.  All of as many steps.
    text : str, optional
        What the steps read, a character each: written below them.
    row : int, default 0
        Of the batch.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    TypeError, ValueError
        If there are no traces, or they differ in their steps, or `text` has not a character for
        each of these, or there is no such row.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> x = np.ones((5, 2), np.float32)
    >>> layers = {"RNN": fastlstm.RNN(2, 3, seed=0), "LSTM": fastlstm.LSTM(2, 3, seed=0)}
    >>> traces = {name: layer.trace(x)[0] for name, layer in layers.items()}
    >>> figure = plot.changes(traces, "steps")
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['RNN', 'LSTM']
    """
    rows = rows_of_all(traces, text, row)
    from fastlstm._figure import Picture

    shares = {label: _shares(r.get("cell", r["hidden"])) for label, r in rows.items()}
    steps = max(len(next(iter(rows.values()))["hidden"]), 1)
    count = math.ceil(steps / _STEPS[text is not None])
    length = math.ceil(steps / count)
    width = min(max(0.11 * length, 6.0), 10.5)
    figure: Any = Picture(figsize=(width, 0.6 + 2.0 * count), layout="constrained")
    for k, axes in enumerate(figure.subplots(count, 1, squeeze=False)[:, 0]):
        band = slice(k * length, min((k + 1) * length, steps))
        for (label, share), color in zip(shares.items(), itertools.cycle(_COLORS), strict=False):
            part = slice(max(band.start - 1, 0), band.stop)  # from the end of the band before
            axes.plot(range(part.start, len(share[part]) + part.start), share[part], color=color,
                      linewidth=1.2, label=label)  # fmt: skip
        axes.set(xlim=(band.start - 0.5, band.start + length - 0.5), ylim=(0, 1.02))
        _dress(axes, band, text)
    figure.axes[0].set_title("share of the state that changes", loc="left", fontsize=9)
    first = figure.axes[0]
    style = {"frameon": False, "fontsize": 8, "loc": "lower right", "borderaxespad": 0}
    first.legend(first.lines, [*shares], ncols=len(shares), bbox_to_anchor=(1, 1), **style)
    return figure


def _shares(states: Array) -> Array:
    """(T,) from (T, H): NaN at step 0."""
    states = states.astype(np.float64)
    moved = np.abs(np.diff(states, axis=0))
    whole = np.abs(states[1:]) + np.abs(states[:-1])
    shares = np.full(len(states), np.nan)
    shares[1:] = np.divide(moved, whole, out=np.zeros_like(moved), where=whole != 0).mean(axis=1)
    return shares


def _dress(axes: Any, band: slice, text: str | None) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_linewidth(0.5)
    axes.grid(axis="y", linewidth=0.3)
    axes.tick_params(labelsize=7, width=0.5, length=2)
    if text is None:
        axes.set_xlabel("step", fontsize=7)
        return
    letters = [visible(character) for character in text[band]]
    axes.set_xticks(range(band.start, band.stop), letters, family="monospace", fontsize=7.5)
    axes.tick_params(axis="x", length=0)
