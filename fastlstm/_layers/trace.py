"""What a layer did inside: its gates and states, step by step."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


class LSTMTrace(NamedTuple):
    """One layer and direction of an LSTM; all arrays are laid out like `y`, with H features."""

    input: Array
    """Input gate i, 0 to 1: how much of the candidate enters the cell."""
    forget: Array
    """Forget gate f, 0 to 1: how much of the cell state is kept."""
    candidate: Array
    """Candidate g, -1 to 1: what may enter the cell."""
    output: Array
    """Output gate o, 0 to 1: how much of the cell state is shown."""
    cell: Array
    """Cell state c after each step."""
    hidden: Array
    """Hidden state h after each step."""


class GRUTrace(NamedTuple):
    """One layer and direction of a GRU; all arrays are laid out like `y`, with H features."""

    reset: Array
    """Reset gate r, 0 to 1: how much of the past enters the candidate."""
    update: Array
    """Update gate z, 0 to 1: how much of the hidden state is kept."""
    candidate: Array
    """Candidate n, -1 to 1."""
    hidden: Array
    """Hidden state h after each step."""


class RNNTrace(NamedTuple):
    """One layer and direction of a plain RNN; the array is laid out like `y`, with H features."""

    hidden: Array
    """Hidden state h after each step."""


class Trace(Protocol):
    """A named tuple of arrays: gates in the order of their slots on the tape, then states."""

    @property
    def hidden(self) -> Array: ...

    def _asdict(self) -> dict[str, Any]: ...


STATES = {"cell": 4, "hidden": 5}  # as in fastlstm.h


def tape_fields(kind: type[Any]) -> list[int]:
    """Where the core has the fields of a trace: gates by their slot, then states."""
    return [STATES.get(name, slot) for slot, name in enumerate(kind._fields)]
