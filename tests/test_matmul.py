"""Matrix products in tiles: the same values, and tiles as small as they have to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import _matmul
from fastlstm._matmul import quiet_matmul


@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 1, 1), (7, 3, 5), (8, 16, 16), (9, 300, 131), (103, 512, 65), (5, 2500, 40), (0, 7, 16)],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_values(m: int, k: int, n: int, transposed: bool, rng: np.random.Generator) -> None:
    # Integers: every order of summation is exact.
    a = rng.integers(-8, 9, (m, k)).astype(np.float32)
    b = rng.integers(-8, 9, (k, n)).astype(np.float32)
    out = np.full((m, n), np.nan, np.float32)
    if transposed:
        a, b, out = np.asfortranarray(a), np.asfortranarray(b), np.asfortranarray(out)
    assert quiet_matmul(a, b, out=out) is out
    assert np.array_equal(out, a @ b)


def test_tiles_are_too_small_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(a: Any, b: Any, out: Any) -> None:
        sizes.append(a.shape[-2] * a.shape[-1] * b.shape[-1])
        assert np.shares_memory(out, result)

    monkeypatch.setattr(_matmul, "matmul", watched)
    for m, k, n in [(512, 256, 103), (103, 512, 256), (512, 2000, 256), (20, 2048, 700)]:
        result = np.empty((m, n), np.float32)
        quiet_matmul(np.empty((m, k), np.float32), np.empty((n, k), np.float32).T, out=result)
    assert 200_000 < max(sizes) <= 1 << 18
