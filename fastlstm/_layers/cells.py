"""The table of cells: what each is called, and its class."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastlstm._core import library
from fastlstm._layers.base import Layer
from fastlstm._layers.gru import GRU
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.rnn import RNN
from fastlstm._layers.slstm import SLSTM

CELLS: dict[str, type[Layer[Any, Any, Any]]] = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn": RNN,
    "slstm": SLSTM,
}

# The variants of a cell in src/cells.h begin with its name; the first of them is the plain one.
_PLAIN = {row.name.partition("_")[0]: row for row in reversed(library.cells())}
GATES = {cell: len(row.gates) for cell, row in _PLAIN.items()}
BIASES = {cell: ("bias_ih", "bias_hh")[: row.biases] for cell, row in _PLAIN.items()}
HEADS = {cell: int(kind._OPTIONS.get("num_heads", 1)) for cell, kind in CELLS.items()}
"""How many a cell has if nothing is said."""

# Cells that other libraries and formats know.
COMMON = ("lstm", "gru", "rnn")


def cell_name(layer: Any) -> str:
    """The name of a layer's cell, one of COMMON."""
    for cell in COMMON:
        if isinstance(layer, CELLS[cell]):
            return cell
    got = type(layer).__name__
    raise TypeError(f"layer: expected a fastlstm.LSTM, GRU or RNN, got {got}")


def check_cell(cell: Any, known: Collection[str] = COMMON) -> None:
    """Refuse what is none of these names."""
    if cell not in list(known):  # which need not be hashable
        *others, last = map(repr, known)
        raise ValueError(f"cell: expected {', '.join(others)} or {last}, got {cell!r}")
