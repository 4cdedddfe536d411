"""Would the tests notice?  The layer with one mistake built in must not pass its comparison.

These mistakes are made where Python hands over to the core; `mutants.py` makes others in C.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from mutants import CHECKOUT
from mutants import MUTANTS as IN_C
from numpy.random import Generator
from support.compare import Array, check_against_reference

import fastlstm
from fastlstm._core import packed_weights, sequence

forward, backward, Packed = sequence.forward, sequence.backward, packed_weights.PackedWeights

SIZES = (5, 6, 2)
Mutant = tuple[Any, str, Callable[..., Any]]


def edited(edit: Callable[[str, Array], Array | None]) -> Mutant:
    """Parameters that change on their way into the kernels' layout, name by name."""

    def packed(isa: str, shape: Any, flat: Array, version: int, threads: int, _: None) -> Any:
        lstm = fastlstm.LSTM(*SIZES, bidirectional=True, dtype=flat.dtype)
        lstm.parameters.flat = flat
        parts = [(name, array.copy()) for name, array in lstm.parameters.items()]
        changed = np.concatenate([np.ravel(edit(name, array)) for name, array in parts])
        packed = Packed(isa, shape, changed, version, threads)
        packed.add_backward(changed, threads)
        return packed

    return packed_weights, "PackedWeights", packed


def with_gates_swapped(a: int, b: int) -> Mutant:
    order = list(range(4))
    order[a], order[b] = b, a

    def swap(_: str, array: Array) -> Array:
        return np.concatenate([np.split(array, 4)[gate] for gate in order])

    return edited(swap)


def without(part: str) -> Mutant:
    return edited(lambda name, array: array * (part not in name))


def running(change: Callable[..., tuple[Any, ...]]) -> Mutant:
    """A forward call with x, h or c changed."""

    def run(packed: Any, pool: Any, x: Array, *args: Any) -> None:
        before, (y, (h, c)), after = args[:2], args[2:4], args[4:]
        x, y, *states = change(x, y, h, c)
        forward(packed, pool, x, *before, y, states, *after)

    return sequence, "forward", run


def returning(change: Callable[..., tuple[Any, ...]]) -> Mutant:
    """A backward call with x, dy, dh or dc changed."""

    def run(packed: Any, pool: Any, x: Array, *args: Any) -> None:
        before, (dy, (dh, dc)), after = args[:5], args[5:7], args[7:]
        x, dy, *dstates = change(x, dy, dh, dc)
        backward(packed, pool, x, *before, dy, dstates, *after)

    return sequence, "backward", run


def shift(array: Array, steps: int = 1) -> Array:
    return np.roll(array, steps, axis=0)


MUTANTS: dict[str, Mutant] = {
    **{
        f"gates-{'ifgo'[a]}-{'ifgo'[b]}": with_gates_swapped(a, b)
        for a, b in combinations(range(4), 2)
    },
    "no-bias_ih": without("bias_ih"),
    "no-bias_hh": without("bias_hh"),
    "no-bias-in-layer-2": without("bias_hh_l1"),
    "no-recurrence": without("weight_hh"),
    "layer-2-unheard": without("weight_ih_l1_reverse"),
    "h-and-c-swapped": running(lambda x, y, h, c: (x, y, c, h)),
    "h-forgotten": running(lambda x, y, h, c: (x, y, np.zeros_like(h), c)),
    "c-forgotten": running(lambda x, y, h, c: (x, y, h, np.zeros_like(c))),
    "states-of-the-other-direction": running(lambda x, y, h, c: (x, y, h[::-1].copy(), c)),
    "x-one-step-late": running(lambda x, y, h, c: (shift(x), y, h, c)),
    "x-one-step-early": running(lambda x, y, h, c: (shift(x, -1), y, h, c)),
    "x-backwards": running(lambda x, y, h, c: (x[::-1], y, h, c)),
    "y-backwards": running(lambda x, y, h, c: (x, y[::-1], h, c)),
    "rows-mixed-up": running(lambda x, y, h, c: (x[:, ::-1], y, h, c)),
    "dh-and-dc-swapped": returning(lambda x, dy, dh, dc: (x, dy, dc, dh)),
    "dh-forgotten": returning(lambda x, dy, dh, dc: (x, dy, np.zeros_like(dh), dc)),
    "dc-forgotten": returning(lambda x, dy, dh, dc: (x, dy, dh, np.zeros_like(dc))),
    "dy-one-step-late": returning(lambda x, dy, dh, dc: (x, shift(dy), dh, dc)),
    "dy-forgotten": returning(lambda x, dy, dh, dc: (x, 0 * dy, dh, dc)),
    "dW-of-the-step-before": returning(lambda x, dy, dh, dc: (shift(x), dy, dh, dc)),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_the_comparison_notices(
    rng: Generator, mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_against_reference(rng, fastlstm.LSTM(*SIZES, bidirectional=True, seed=1), 4, 3)
    monkeypatch.setattr(*mutant)
    with pytest.raises(AssertionError, match=r"error .* allowed"):
        check_against_reference(rng, fastlstm.LSTM(*SIZES, bidirectional=True, seed=1), 4, 3)


def test_what_mutants_in_c_change_is_there() -> None:
    files = [path.read_text() for path in (CHECKOUT / "src").rglob("*.[ch]")]
    for mutants in IN_C.values():
        for mistake, (old, _) in mutants.items():
            assert sum(text.count(old) for text in files) == 1, mistake
