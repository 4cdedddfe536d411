"""Pools of streams with random states, and how states are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.random import Generator

import fastlstm
from fastlstm import StreamPool
from support.compare import Array, same_bits

I, H = 5, 4

CELLS: dict[str, Callable[[str], Any]] = {
    "LSTM": lambda dtype: fastlstm.LSTM(7, 20, 2, dtype=dtype, seed=1),
    "LSTM, one layer, wide": lambda dtype: fastlstm.LSTM(33, 130, dtype=dtype, seed=1),
    "GRU": lambda dtype: fastlstm.GRU(7, 20, 3, dtype=dtype, seed=1),
    "RNN": lambda dtype: fastlstm.RNN(7, 20, 2, dtype=dtype, seed=1),
    "SLSTM": lambda dtype: fastlstm.SLSTM(7, 20, 2, dtype=dtype, seed=1),
}


def parts(state: Any) -> tuple[Array, ...]:
    """(h, c), or (h,) of a cell that has no c, or all four of an sLSTM."""
    return state if isinstance(state, tuple) else (state,)


def same_state(a: Any, b: Any) -> bool:
    return all(map(same_bits, parts(a), parts(b)))


def full_pool(layer: Any, capacity: int, rng: Generator) -> StreamPool:
    """All slots open, with random states."""
    pool = StreamPool(layer, capacity)
    for _ in range(capacity):
        pool.open(random_state(layer, rng))
    return pool


def random_state(layer: Any, rng: Generator) -> Any:
    shape = (len(layer._states.firsts), layer.num_layers, layer.hidden_size)
    drawn = tuple(rng.standard_normal(shape).astype(layer.dtype))
    return drawn if len(drawn) > 1 else drawn[0]


def states(pool: StreamPool) -> list[Any]:
    return [pool.state(slot) for slot in pool.open_slots]
