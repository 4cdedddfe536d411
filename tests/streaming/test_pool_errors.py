"""What a pool refuses; and then nothing has changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.pools import H, I, full_pool, same_state, states

import fastlstm
from fastlstm import StreamPool

ONES = np.ones((2, I), "f4")

BAD_STEPS: list[tuple[Any, Any, type[Exception], str]] = [
    (ONES, [0, 0], ValueError, "slots: expected each slot once, got 0 again"),
    (ONES, [2, 1], ValueError, "slots: expected open slots, got 1, which is closed"),
    (ONES, [2, 4], ValueError, "slots: expected slots from 0 to 3, got 4"),
    (ONES, [0, -1], ValueError, "slots: expected slots from 0 to 3, got -1"),
    (ONES, [0, 1 << 62], ValueError, "slots: expected slots from 0 to 3, got 46116860184273"),
    (np.ones((9, I), "f4"), [0, 2, 3] * 3, ValueError, "slots: expected each slot once, got 0"),
    (ONES, [0.0, 2.0], TypeError, "slots: expected an array of integers, got float64"),
    (ONES, [True, False], TypeError, "slots: expected an array of integers, got bool"),
    (ONES, [[0], [2, 3]], TypeError, "slots: expected an array of integers, got"),
    (ONES, [0, 1 << 70], TypeError, "slots: expected an array of integers, got object"),
    (ONES, None, TypeError, "slots: expected an array of integers, got object"),
    (ONES, [[0, 2]], ValueError, r"slots: expected \(k,\), got \(1, 2\)"),
    (ONES[0], 0, ValueError, r"slots: expected \(k,\), got \(\)"),
    (ONES, [0, 2, 3], ValueError, r"x: expected \(3, 5\), got \(2, 5\)"),
    (ONES, [], ValueError, r"x: expected \(0, 5\), got \(2, 5\)"),
    (ONES[0], [0], ValueError, r"x: expected \(1, 5\), got \(5,\)"),
    (ONES[:, :4], [0, 2], ValueError, r"x: expected \(2, 5\), got \(2, 4\)"),
    (ONES.astype("f8"), [0, 2], TypeError, "x: expected float32, got float64; cast it with"),
    (None, [0, 2], TypeError, "x: expected float32, got object"),
    (np.ma.masked_equal(ONES, 1), [0, 2], ValueError, "x: expected an array without masked values"),
]


@pytest.mark.parametrize(("x", "slots", "error", "message"), BAD_STEPS)
def test_refused_steps_change_nothing(
    lstm: fastlstm.LSTM, rng: Generator, x: Any, slots: Any, error: type[Exception], message: str
) -> None:
    pool = full_pool(lstm, 4, rng)
    pool.close(1)
    before, out = states(pool), np.zeros((len(x) if x is not None else 2, H), "f4")
    with pytest.raises(error, match=message) as caught:
        pool.step(x, slots, out)
    assert caught.type is error
    assert not out.any()
    assert all(map(same_state, states(pool), before))
    assert pool.step(ONES, [3, 0]).shape == (2, H)


@pytest.mark.parametrize(
    "out",
    [
        np.ones((3, 5), "f4"),
        np.ones((2, 4), "f4"),
        np.ones(12, "f4"),
        np.ones((3, 4)),
        np.ones((4, 3), "f4").T,
        np.broadcast_to(np.float32(1), (3, 4)),
        np.frombuffer(bytes(48), "f4").reshape(3, 4),
        [[1.0] * 4] * 3,
    ],
)
def test_refused_out_changes_nothing(lstm: fastlstm.LSTM, rng: Generator, out: Any) -> None:
    pool = full_pool(lstm, 3, rng)
    before = states(pool)
    expected = r"out: expected a writable C-contiguous float32 array \(3, 4\)"
    with pytest.raises(ValueError, match=expected):
        pool.step(np.ones((3, I), "f4"), range(3), out=out)
    assert all(map(same_state, states(pool), before))


CALLS: dict[str, Callable[[StreamPool, Any], Any]] = {
    "close": lambda pool, slot: pool.close(slot),
    "reset": lambda pool, slot: pool.reset(slot),
    "state": lambda pool, slot: pool.state(slot),
    "set_state": lambda pool, slot: pool.set_state(slot, None),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_refused_slots_change_nothing(lstm: fastlstm.LSTM, rng: Generator, call: Any) -> None:
    pool = full_pool(lstm, 3, rng)
    pool.close(1)
    before = states(pool)
    for slot, error, message in [
        (1, ValueError, "slot: expected an open slot, got 1, which is closed"),
        (3, ValueError, "slot: expected at most 2, got 3"),
        (-1, ValueError, "slot: expected at least 0, got -1"),
        (1 << 70, ValueError, "slot: expected at most 2"),
        (0.0, TypeError, "slot: expected an integer, got float"),
        ([0], TypeError, "slot: expected an integer, got list"),
    ]:
        with pytest.raises(error, match=message):
            call(pool, slot)
    assert all(map(same_state, states(pool), before))
    assert pool.open_slots.tolist() == [0, 2]
    call(pool, np.int32(2))


def test_refused_states_change_nothing(lstm: fastlstm.LSTM, rng: Generator) -> None:
    pool = full_pool(lstm, 2, rng)
    pool.close(0)
    before = states(pool)
    good, bad = np.zeros((2, H), "f4"), np.zeros((2, 1, H), "f4")
    for value in [(good, bad), (bad, good), (good,), good, 3, (good, good.astype("f8"))]:
        for call in (pool.open, lambda state: pool.set_state(1, state)):
            with pytest.raises((TypeError, ValueError), match=r"^(state|h_0|c_0): expected"):
                call(value)
    assert pool.open_slots.tolist() == [1]
    assert all(map(same_state, states(pool), before))


def test_refused_pools(lstm: fastlstm.LSTM) -> None:
    with pytest.raises(ValueError, match="layer: expected one direction, got a bidirectional"):
        StreamPool(fastlstm.LSTM(I, H, bidirectional=True), 4)
    with pytest.raises(TypeError, match="layer: expected a layer of fastlstm, got Stream"):
        StreamPool(lstm.stream(), 4)  # type: ignore[arg-type]
    for capacity in (0, -1, 1 << 60):
        with pytest.raises(ValueError, match="capacity: "):
            StreamPool(lstm, capacity)
    for wrong in (1.5, None, True, "4"):
        with pytest.raises(TypeError, match="capacity: expected an integer"):
            StreamPool(lstm, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        StreamPool.__new__(StreamPool)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_pools_are_not_copied(lstm: fastlstm.LSTM, duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="a StreamPool cannot be pickled or copied; open"):
        duplicate(StreamPool(lstm, 2))
