"""What the page needs to know of a cell: its gates, its state, and what enters its gates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer
from fastlstm._layers.contributions import CellWeights, cell_weights, split
from fastlstm._layers.trace import Trace
from fastlstm.reference.activations import Entry, activation

Array = NDArray[Any]


class Part(NamedTuple):
    """One layer in one direction."""

    kind: str  # LSTM, GRU or RNN
    functions: tuple[Entry, Entry, Entry]  # of gates, of the candidate, of the state when shown
    reset_after: bool  # of a GRU: whether its reset gate acts after the product with U
    layer: int
    reverse: bool
    values: dict[str, Array]  # of the trace, (T, H) each
    weights: CellWeights | None  # if `input` and `hidden` are all that enters its gates
    below: list[int]  # parts whose hidden states it reads; none: it reads the input

    @property
    def gates(self) -> list[str]:
        """Names of those from 0 to 1."""
        return [name for name in self.values if name not in ("candidate", "cell", "hidden")]

    @property
    def state(self) -> str:
        """The name of what is carried on and not multiplied by a matrix, if the cell has it."""
        return "cell" if "cell" in self.values else "hidden"

    @property
    def keeps(self) -> Array | None:
        """The gate that keeps the state, (T, H)."""
        return self.values.get("forget", self.values.get("update"))

    def before(self, name: str) -> Array:
        """The values one time step earlier, in the order in which it reads; zeros at first."""
        values = self.values[name]
        zeros = np.zeros_like(values[:1])
        if self.reverse:
            return np.concatenate([values[1:], zeros])
        return np.concatenate([zeros, values[:-1]])


def parts_of(layer: Layer[Any, Any, Any], traces: list[Trace], x: Array) -> list[Part]:
    """The parts of a layer whose traces (T, H) of the input x (T, I) are given."""
    directions = 2 if layer.bidirectional else 1
    parts: list[Part] = []
    candidate = getattr(layer, "nonlinearity", "tanh")  # of an RNN, its new state
    functions = getattr(layer, "activations", None) or ("sigmoid", candidate, "tanh")
    after = getattr(layer, "reset_after", True)
    kind = next(c.__name__ for c in type(layer).__mro__ if c.__name__ in ("LSTM", "GRU", "RNN"))
    for number, trace in enumerate(traces):
        level, reverse = divmod(number, directions)
        below = list(range((level - 1) * directions, level * directions)) if level else []
        values = trace._asdict()
        part = Part(kind, functions, after, level, bool(reverse), values, None, below)
        inputs = np.concatenate([parts[p].values["hidden"] for p in below], 1) if below else x
        weights = cell_weights(layer.parameters, level, bool(reverse))
        if _explained(part, weights, inputs):
            part = part._replace(weights=weights)
        parts.append(part)
    return parts


def _explained(part: Part, weights: CellWeights, x: Array) -> bool:
    """Whether the gates are those of the plain cell: of x, h before and biases alone.

    Asked of the numbers and not of the options, so that an option the page does not know of
    cannot make it show shares that are wrong.  Weights of 8 bits miss by less than 0.02.
    """
    names = [name for name in part.values if name not in ("cell", "hidden")] or ["hidden"]
    units = part.values[names[0]].shape[1]
    if len(weights.bias_ih) != len(names) * units:
        return False
    reset, before = part.values.get("reset"), part.before("hidden")
    of_x, of_h, bias = split(weights, units, x, before, reset, part.reset_after)
    sums = of_x + of_h + bias
    for gate, name in enumerate(names):
        function = activation(part.functions[name in ("candidate", "hidden")])
        if np.abs(function(sums[:, gate]) - part.values[name]).max(initial=0) > 0.02:
            return False
    return True


def shows(part: Part) -> bool:
    """Whether h = o f(c), and no option or projection has a part."""
    if part.kind != "LSTM" or part.values["hidden"].shape != part.values["cell"].shape:
        return False
    hidden = part.values["output"] * activation(part.functions[2])(part.values["cell"])
    return bool(np.abs(hidden - part.values["hidden"]).max(initial=0) < 1e-3)


def adds_up(part: Part) -> bool:
    """Whether what was kept and what was written make the new state, and no option has a part."""
    values = part.values
    if part.kind == "LSTM":
        made = values["forget"] * part.before("cell") + values["input"] * values["candidate"]
    elif part.kind == "GRU":
        update = values["update"]
        made = update * part.before("hidden") + (1 - update) * values["candidate"]
    else:
        return True
    limit = 1e-3 * max(1.0, float(np.abs(made).max(initial=0)))
    return bool(np.abs(made - values[part.state]).max(initial=0) < limit)
