"""Trees of arrays as Flax has them, and how they are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastlstm
from support.compare import Array, same_bits

T, B, I, H = 7, 5, 6, 9  # all different, so that a mix-up shows
LAYERS = {"lstm": fastlstm.LSTM, "gru": fastlstm.GRU, "rnn": fastlstm.RNN}
every_api = pytest.mark.parametrize("api", ["linen", "nnx"])


def flat(tree: Any, place: str = "") -> dict[str, Array]:
    """The arrays of a tree, by their places."""
    if not hasattr(tree, "items"):
        return {place: np.asarray(tree)}
    branches = [flat(branch, f"{place}/{name}") for name, branch in tree.items()]
    return {name: array for branch in branches for name, array in branch.items()}


def check_trees(got: Any, expected: Any) -> None:
    """Bit for bit."""
    ours, theirs = flat(got), flat(expected)
    assert ours.keys() == theirs.keys()
    assert all(same_bits(ours[name], theirs[name]) for name in theirs)
