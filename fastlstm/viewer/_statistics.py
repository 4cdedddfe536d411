"""What each unit did over a whole text or series; computed from the trace, not from the page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.viewer._cells import Part

Array = NDArray[Any]

LOW, HIGH = 0.1, 0.9  # a gate below or above these is shut or open


def of_units(part: Part, characters: str | None) -> dict[str, Any]:
    """Lists with an entry for each unit, and for each gate how often it is shut and open."""
    state = part.values[part.state].astype(np.float64)
    keeps = part.keeps
    return {
        "least": state.min(axis=0).tolist(),
        "mean": state.mean(axis=0).tolist(),
        "most": state.max(axis=0).tolist(),
        "half_life": None if keeps is None else [_half_life(f) for f in _mean(keeps)],
        "saturation": {
            name: [
                _mean(part.values[name] < LOW).tolist(),
                _mean(part.values[name] > HIGH).tolist(),
            ]
            for name in part.gates
        },
        "changed_by": None if characters is None else _changed_by(part, characters),
    }


def _mean(values: Array) -> Array:
    mean: Array = values.mean(axis=0, dtype=np.float64)
    return mean


def _half_life(kept: float) -> float | None:
    """Steps until half of a state is left that keeps this part of it at each; None: for ever."""
    if kept >= 1:
        return None
    return -1 / math.log2(kept) if kept > 0 else 0.0


def _changed_by(part: Part, characters: str, count: int = 5) -> list[str]:
    """For each unit, the characters at which its state changes most in the mean, most first."""
    change = np.abs(part.values[part.state] - part.before(part.state)).astype(np.float64)
    points = np.array([ord(character) for character in characters])
    alphabet, codes, times = np.unique(points, return_inverse=True, return_counts=True)
    sums = np.zeros((len(alphabet), change.shape[1]))
    np.add.at(sums, codes, change)
    order = np.argsort(-sums / times[:, None], axis=0, kind="stable")[:count]
    return ["".join(map(chr, alphabet[unit])) for unit in order.T]


def widest(part: Part) -> int:
    """The unit to begin with: its state swings widely, holds between the swings, and comes back."""
    state = np.tanh(part.values[part.state].astype(np.float64))
    if len(state) < 3:
        return 0
    time = np.linspace(-1, 1, len(state))[:, None]
    state -= state.mean(axis=0) + time * (state * time).sum(axis=0) / (time**2).sum()  # no drift
    change = np.abs(np.diff(state, axis=0)).mean(axis=0)
    return int((state.std(axis=0) ** 2 / (change + 0.02)).argmax())


def most_changed(part: Part, unit: int) -> int:
    """The step to begin with: the state of this unit changes most there."""
    change = np.abs(part.values[part.state] - part.before(part.state))[:, unit]
    return int(change.argmax())
