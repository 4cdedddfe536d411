"""Which hidden states of a layer the linear one reads: the last of a sequence, or all of them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer
from fastlstm._shards import Shards
from fastlstm.sklearn._sequences import inside

Array = NDArray[Any]
AnyLayer = Layer[Any, Any, Any]


class Borders(NamedTuple):
    """Where the rows of each shard begin among those that are read, as the core's head takes it."""

    starts: Array
    """(shards + 1,) array of intp."""
    most_rows: int


class Readout(Protocol):
    """The hidden states that are read, and the way back of their gradients."""

    of_steps: bool

    def read(self, layer: AnyLayer, y: Array, state: Any, lengths: Array | None) -> Array:
        """(N, D*H) array of float64: of a layer's outputs (B, T, D*H) and final states."""

    def back(
        self, layer: AnyLayer, gradient: Array, y: Array, lengths: Array | None
    ) -> tuple[Array, Any]:
        """The gradients of outputs and final states, from that of `read`."""

    def borders(self, shards: Shards, y: Array, lengths: Array | None) -> Borders:
        """Of the shards of a batch."""


class LastStep:
    """The last layer's final hidden states, both directions'."""

    of_steps = False

    def read(self, layer: AnyLayer, y: Array, state: Any, lengths: Array | None) -> Array:
        """(B, D*H)."""
        h_n = state[0] if isinstance(state, tuple) else state
        top = h_n[-layer._directions :].swapaxes(0, 1)
        return np.array(top, np.float64, order="C").reshape(len(top), y.shape[2])

    def back(
        self, layer: AnyLayer, gradient: Array, y: Array, lengths: Array | None
    ) -> tuple[Array, Any]:
        """Zeros for the outputs."""
        directions, rows = layer._directions, len(gradient)
        dh = np.zeros((layer.num_layers * directions, rows, layer.hidden_size), layer.dtype)
        dh[-directions:] = gradient.reshape(rows, directions, layer.hidden_size).swapaxes(0, 1)
        others = [np.zeros_like(dh) for _ in layer._states.firsts[1:]]
        return np.zeros_like(y), (dh, *others) if others else dh

    def borders(self, shards: Shards, y: Array, lengths: Array | None) -> Borders:
        """Those of the batch."""
        return Borders(shards.starts, shards.most_rows)


class EveryStep:
    """The last layer's hidden states of all steps, one sequence after another, without padding."""

    of_steps = True

    def read(self, layer: AnyLayer, y: Array, state: Any, lengths: Array | None) -> Array:
        """(all steps, D*H)."""
        steps = y.reshape(-1, y.shape[2]) if lengths is None else y[inside(lengths, y.shape[1])]
        return np.array(steps, np.float64, order="C")

    def back(
        self, layer: AnyLayer, gradient: Array, y: Array, lengths: Array | None
    ) -> tuple[Array, Any]:
        """Nothing for the final states."""
        if lengths is None:
            return gradient.astype(y.dtype).reshape(y.shape), None
        dy = np.zeros_like(y)
        dy[inside(lengths, y.shape[1])] = gradient
        return dy, None

    def borders(self, shards: Shards, y: Array, lengths: Array | None) -> Borders:
        """The steps of a shard follow each other, too."""
        steps = np.full(len(y), y.shape[1]) if lengths is None else lengths
        ends = np.concatenate([[0], np.cumsum(steps)]).astype(np.intp)
        starts = ends[shards.starts]
        return Borders(starts, int(np.diff(starts).max(initial=0)))
