"""What a layer did inside: its gates and states, step by step."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class _Layout:
    """What a trace has beside its arrays."""

    batch_first: bool = False
    """Whether the arrays are (B, T, H) instead of (T, B, H); without a batch they are (T, H)."""

    def _laid_out(self, batch_first: bool) -> Self:
        """Say how the arrays lie, and return the trace."""
        self.batch_first = batch_first
        return self

    def _replace(self, /, **arrays: Any) -> Self:
        replaced: Self = super()._replace(**arrays)  # type: ignore[misc]
        return replaced._laid_out(self.batch_first)

    __replace__ = _replace  # what copy.replace calls

    def __repr__(self) -> str:
        arrays: dict[str, Array] = self._asdict()  # type: ignore[attr-defined]
        first, hidden = next(iter(arrays.values())), arrays["hidden"]
        if not all(
            isinstance(array, np.ndarray) and array.ndim in (2, 3) for array in arrays.values()
        ):
            return super().__repr__()  # one step of a trace, for example
        *time_batch, units = first.shape
        if self.batch_first:
            time_batch.reverse()
        sizes = [f"{name}={n}" for name, n in zip(("steps", "rows"), time_batch, strict=False)]
        sizes.append(f"units={units}")
        if hidden.shape[-1] != units:
            sizes.append(f"proj_size={hidden.shape[-1]}")
        layout = ["batch_first=True"] if self.batch_first else []
        return f"{type(self).__name__}({', '.join([*sizes, hidden.dtype.name, *layout])})"


class _LSTMArrays(NamedTuple):
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


class LSTMTrace(_Layout, _LSTMArrays):
    """One layer and direction of an LSTM; all arrays are laid out like `y`, with H features."""


class _GRUArrays(NamedTuple):
    reset: Array
    """Reset gate r, 0 to 1: how much of the past enters the candidate."""
    update: Array
    """Update gate z, 0 to 1: how much of the hidden state is kept."""
    candidate: Array
    """Candidate n, -1 to 1."""
    hidden: Array
    """Hidden state h after each step."""


class GRUTrace(_Layout, _GRUArrays):
    """One layer and direction of a GRU; all arrays are laid out like `y`, with H features."""


class _RNNArrays(NamedTuple):
    hidden: Array
    """Hidden state h after each step."""


class RNNTrace(_Layout, _RNNArrays):
    """One layer and direction of a plain RNN; the array is laid out like `y`, with H features."""


class _SLSTMArrays(NamedTuple):
    input: Array
    """Input gate i, of what is divided by e^m: 1, or less where more is kept."""
    forget: Array
    """Forget gate f, of what is divided by e^m: 1, or less where more enters."""
    candidate: Array
    """Candidate z, -1 to 1: what may enter the cell."""
    output: Array
    """Output gate o, 0 to 1: how much of the cell state is shown."""
    cell: Array
    """Cell state c after each step, divided by e^m."""
    normalizer: Array
    """Normalizer n after each step, divided by e^m: the weights of all that is in c."""
    stabilizer: Array
    """Stabilizer m after each step."""
    hidden: Array
    """Hidden state h after each step."""


class SLSTMTrace(_Layout, _SLSTMArrays):
    """One layer and direction of an sLSTM; all arrays are laid out like `y`, with H features."""


class Trace(Protocol):
    """A named tuple of arrays: gates in the order of their slots on the tape, then states."""

    batch_first: bool

    @property
    def hidden(self) -> Array: ...

    def _laid_out(self, batch_first: bool) -> Self: ...

    def _asdict(self) -> dict[str, Any]: ...


# As in fastlstm.h: the gate slots, and then the states in the order of src/cells.h.
STATES = {"hidden": 4, "cell": 5, "normalizer": 6, "stabilizer": 7}


def tape_fields(kind: type[Any]) -> list[int]:
    """Where the core has the fields of a trace: gates by their slot, then states."""
    return [STATES.get(name, slot) for slot, name in enumerate(kind._fields)]
