"""What `forward` will draw at random, as src/driver/dropout.h does, written again."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

import fastlstm
from support.compare import Array

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: Array) -> Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(key: int, stream: int, shape: tuple[int, ...]) -> Array:
    """Numbers from 0 to 1 in the order of elements of an array of this shape."""
    with np.errstate(over="ignore"):
        of_stream = _mix(np.array(key, np.uint64) + _GOLDEN * np.array(stream + 1, np.uint64))
        numbers = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape)
        return (_mix(of_stream + _GOLDEN * numbers) >> np.uint64(11)) * 2.0**-53


def masks(lstm: fastlstm.LSTM, steps: int, batch: int) -> dict[str, Any]:
    """The masks of the next call of `forward`, as the reference takes them."""
    L, D = lstm.num_layers, 1 + lstm.bidirectional
    H, P = lstm.hidden_size, lstm.proj_size or lstm.hidden_size
    key = int(copy.deepcopy(lstm._dropout_keys).integers(1 << 63))
    found: dict[str, Any] = {}
    if lstm.dropout and L > 1:
        rate = lstm.dropout
        drawn = [uniform(key, layer, (steps, batch, D * P)) for layer in range(L - 1)]
        found["masks"] = [(u >= rate) / (1 - rate) for u in drawn]
    streams = [L + 3 * k for k in range(L * D)]
    if lstm.recurrent_dropout:
        rate = lstm.recurrent_dropout
        drawn = [uniform(key, stream + 2, (batch, P)) for stream in streams]
        found["recurrent_masks"] = [(u >= rate) / (1 - rate) for u in drawn]
    if any(lstm.zoneout):
        shapes = [(steps, batch, P), (steps, batch, H)]
        found["zoneout_masks"] = [
            tuple(
                (uniform(key, stream + i, shapes[i]) < lstm.zoneout[i]).astype(float)
                for i in range(2)
            )
            for stream in streams
        ]
    return found
