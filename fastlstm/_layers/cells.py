"""The table of cells: what each is called, and its class."""

from __future__ import annotations

from typing import Any

from fastlstm._core import library
from fastlstm._layers.gru import GRU
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.rnn import RNN

CELLS: dict[str, type[LSTM] | type[GRU] | type[RNN]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}

# The variants of a cell in src/cells.h begin with its name; the first of them is the plain one.
GATES = {row.name.partition("_")[0]: len(row.gates) for row in reversed(library.cells())}


def cell_name(layer: Any) -> str:
    """The name in CELLS of a layer's cell."""
    for cell, kind in CELLS.items():
        if isinstance(layer, kind):
            return cell
    got = type(layer).__name__
    raise TypeError(f"layer: expected a fastlstm.LSTM, GRU or RNN, got {got}")


def check_cell(cell: Any) -> None:
    """Refuse what is no name in CELLS."""
    if cell not in list(CELLS):  # which need not be hashable
        *others, last = map(repr, CELLS)
        raise ValueError(f"cell: expected {', '.join(others)} or {last}, got {cell!r}")
