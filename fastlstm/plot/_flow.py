"""One step of a cell, drawn as textbooks do."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation
from fastlstm._layers.base import Layer
from fastlstm._layers.contributions import Contributions
from fastlstm._layers.inputs import Embedding
from fastlstm._layers.trace import LSTMTrace
from fastlstm.plot._cell_diagram import GATES, draw_cell
from fastlstm.plot._contributions import contributions
from fastlstm.plot._sheet import visible
from fastlstm.plot._traces import check_text, one_row, rows_of

Array = NDArray[Any]


class _Place(NamedTuple):
    """Of the values that are shown."""

    t: int
    row: int
    unit: int | None


def flow(
    trace: LSTMTrace,
    t: int,
    *,
    row: int = 0,
    unit: int | None = None,
    text: str | None = None,
    layer: Layer[Any, Any, Any] | None = None,
    x: ArrayLike | None = None,
    embedding: Embedding = None,
    index: int = 0,
) -> Any:
    """Draw one step of a cell as textbooks do, its lines as wide as what passes.

    What the cell reads, x_t, comes in from below, the hidden state before from the left; both
    enter the three gates and the candidate.  On top, the cell state passes from left to right:
    times the forget gate, plus what the input gate lets in of the candidate.  Times the output
    gate, its tanh is the new hidden state.  Blue is positive, orange negative; gates, and means of
    absolute values, are grey.

    Parameters
    ----------
    trace : LSTMTrace
        One layer and direction, as `LSTM.trace` returns them.
    t : int
        The step.
    row : int, default 0
        Of the batch.
    unit : int, optional
        A hidden unit.  Default: the mean over all, of absolute values where they have signs.
    text : str, optional
        What the steps read, a character each: the title has that of this step.
    layer : LSTM, optional
        That the trace is of.  With `x`, the lines into a gate are as wide as the shares of
        ``|W x_t|`` and ``|U h_(t-1)|``, with their values beside: see `contributions`.
    x : array, optional
        What the layer read.
    embedding : (V, I) array or "one-hot", optional
        As for calling the layer; `x` has tokens then.
    index : int, default 0
        Of the layer and direction, as in the list that `LSTM.trace` returns.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The cell state before the first step is not in a trace.  It is computed from the others as in
    the plain cell, which is not exact with `zoneout` or `cell_clip`.  Whether a trace is of the
    reverse direction is known from `layer` and `index`.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    TypeError, ValueError
        If `trace` is not that of an LSTM, or there is no such step, row or unit, or if it is not
        the trace of `layer` and `x`, or as `contributions` does.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> lstm, x = fastlstm.LSTM(2, 3, seed=0), np.ones((5, 2), np.float32)
    >>> [trace] = lstm.trace(x)
    >>> figure = plot.flow(trace, 4, unit=0, text="steps", layer=lstm, x=x)
    >>> figure.axes[0].get_title(loc="left")
    'step 4, reads "s", unit 0'
    """
    if not isinstance(trace, LSTMTrace):
        raise TypeError(f"trace: expected an LSTMTrace, got {type(trace).__name__}")
    if (layer is None) != (x is None):
        raise ValueError(
            f"layer, x: expected both or none, got {'x' if layer is None else 'layer'}"
        )
    rows, place = rows_of(trace, row), _Place(t, row, unit)
    _check_place(rows, place)
    check_text(text, len(rows["cell"]))
    parts, reverse = None, False
    if layer is not None and x is not None:
        made_of = contributions(layer, x, embedding=embedding, index=index)
        parts = _parts_at(made_of, trace, rows, place)
        reverse = index % layer._directions == 1
    read = "" if text is None else f', reads "{visible(text[t])}"'
    which = "mean of all units" if unit is None else f"unit {unit}"
    values = _values_at(rows, place, reverse)
    return draw_cell(values, parts, f"step {t}{read}, {which}", signed=unit is not None)


def _check_place(rows: dict[str, Array], place: _Place) -> None:
    steps, units = len(rows["cell"]), min(array.shape[1] for array in rows.values())
    _validation.integer(place.t, "t", 0, steps - 1)
    if place.unit is not None:
        _validation.integer(place.unit, "unit", 0, units - 1)


def _values_at(rows: dict[str, Array], place: _Place, reverse: bool) -> dict[str, float]:
    """Gates, candidate, states, the cell state before, and what is kept of it and added to it."""
    at = {name: array[place.t] for name, array in rows.items()}
    at["added"] = at["input"] * at["candidate"]
    before = place.t + 1 if reverse else place.t - 1
    if 0 <= before < len(rows["cell"]):
        at["before"] = rows["cell"][before]
        at["kept"] = at["forget"] * at["before"]
    else:  # c = f c_before + i g
        at["kept"] = at["cell"] - at["added"]
        at["before"] = at["kept"] / np.maximum(at["forget"], np.finfo(at["cell"].dtype).tiny)
    return {name: _shown(array, place.unit) for name, array in at.items()}


def _parts_at(
    made_of: Contributions, trace: LSTMTrace, rows: dict[str, Array], place: _Place
) -> dict[str, tuple[float, float]]:
    """W x_t and U h_(t-1) of each gate."""
    summed = made_of.input + made_of.hidden + made_of.bias
    if summed.shape[:-2] != trace.cell.shape[:-1] or summed.shape[-1] != trace.cell.shape[-1]:
        raise ValueError(
            "layer, x: expected those that the trace is of, got a trace "
            f"{trace.cell.shape} and one of {(*summed.shape[:-2], summed.shape[-1])}"
        )
    given, hidden, summed = (
        one_row(part, place.row, trace.batch_first, dimensions=3)[place.t]
        for part in (made_of.input, made_of.hidden, summed)
    )
    with np.errstate(over="ignore"):
        gates = 1 / (1 + np.exp(-summed))
    expected = [rows[name][place.t] for name in ("input", "forget", "output")]
    if not np.allclose(gates[[0, 1, 3]], expected, atol=1e-3, equal_nan=True):
        raise ValueError("layer, x: expected those that the trace is of, got others")
    return {
        name: (_shown(given[gate], place.unit), _shown(hidden[gate], place.unit))
        for gate, name in enumerate(GATES)
    }


def _shown(array: Array, unit: int | None) -> float:
    return float(np.abs(array).mean() if unit is None else array[unit])
