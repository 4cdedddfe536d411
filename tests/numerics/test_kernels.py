"""Every kernel of this machine against the reference, at the sizes where tiles end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support import isas
from support.compare import check_against_reference, lanes, random_call, results, same_bits

import fastlstm

every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

# a * V + b hidden units, where a vector holds V; gradients are computed four vectors at a time.
UNITS = [(0, 1), (1, -1), (1, 0), (1, 1), (4, -1), (4, 0), (4, 1), (0, 37)]

# Steps and rows: tiles have up to 6 rows, and 256 terms of a weight gradient are summed at a time.
TIMES = [(1, 1), (2, 2), (7, 3), (1, 5), (2, 6), (7, 7), (2, 8), (7, 13), (70, 5), (2, 300)]


@every_dtype
@pytest.mark.parametrize("steps_batch", TIMES, ids=lambda size: f"T{size[0]}-B{size[1]}")
@pytest.mark.parametrize("units", UNITS, ids=lambda unit: "H={}V{:+}".format(*unit))
def test_sizes_around_the_tile_edges(
    rng: Generator, isa: str, dtype: str, units: tuple[int, int], steps_batch: tuple[int, int]
) -> None:
    V = lanes(isa, dtype)
    sizes = [a * V + b for a, b in UNITS]
    k = UNITS.index(units)
    lstm = fastlstm.LSTM(sizes[k - 3], sizes[k], dtype=dtype, seed=k)  # I is of another kind than H
    assert lstm.isa == isa
    check_against_reference(rng, lstm, *steps_batch)


@every_dtype
@pytest.mark.parametrize("hidden", [127, 128, 145])
def test_weight_gradients_of_many_columns(
    rng: Generator, isa: str, dtype: str, hidden: int
) -> None:
    """From 512 on, the 4 H columns are packed, 192 at a time and whole vectors of terms."""
    check_against_reference(rng, fastlstm.LSTM(3, hidden, dtype=dtype, seed=1), 3, 7)


@every_dtype
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_stacks(
    rng: Generator, isa: str, dtype: str, layers: int, bidirectional: bool, bias: bool
) -> None:
    options: dict[str, Any] = {"bidirectional": bidirectional, "bias": bias, "dtype": dtype}
    lstm = fastlstm.LSTM(5, lanes(isa, dtype) + 1, layers, **options, seed=1)
    check_against_reference(rng, lstm, 4, 7)


@every_dtype
@pytest.mark.parametrize(
    ("sizes", "steps", "batch"),
    [((3, 129), 70, 1), ((129, 3), 70, 2), ((31, 40, 3), 25, 48)],
    ids=["one-row", "wide-input", "deep"],
)
def test_more_steps_than_are_computed_ahead(
    rng: Generator, isa: str, dtype: str, sizes: tuple[int, ...], steps: int, batch: int
) -> None:
    """Input projections of few rows, and the layers of a stack, are computed steps at a time."""
    lstm = fastlstm.LSTM(*sizes, dtype=dtype, seed=1)
    check_against_reference(rng, lstm, steps, batch)


@every_dtype
def test_rows_without_any_pattern(rng: Generator, isa: str, dtype: str) -> None:
    """Sizes that nobody chose."""
    for _ in range(20):
        I, H, T, B = (int(n) for n in rng.integers(1, [70, 70, 9, 20]))
        L = int(rng.integers(1, 4))
        lstm = fastlstm.LSTM(I, H, L, bidirectional=bool(T % 2), dtype=dtype, seed=1)
        check_against_reference(rng, lstm, T, B)


def test_a_layer_runs_on_the_instruction_set_it_names(
    rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from outside: a tape has whole vectors, and without fused multiply-add bits differ."""
    sizes, bits = {}, {}
    for isa in fastlstm.isas():
        monkeypatch.setenv("FASTLSTM_ISA", isa)
        _, _, tape = fastlstm.LSTM(1, 1).forward(np.zeros((1, 1), np.float32))
        sizes[isa] = tape.nbytes
        lstm = fastlstm.LSTM(31, 33, seed=1)
        assert lstm.isa == isa
        bits[isa] = results(lstm, random_call(np.random.default_rng(1), lstm, 5, 7))
    in_order = [sizes[isa] for isa in fastlstm.isas() if isa in isas.OF_FLOATS]
    assert in_order == sorted(set(in_order), reverse=True) or "neon" in sizes
    for isa in set(bits) - {"baseline"}:
        differ = [n for n, a in bits["baseline"].items() if not same_bits(bits[isa][n], a)]
        assert set(differ) == set(bits[isa])
