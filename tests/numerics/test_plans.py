"""Plans of calls differ with the caches of the machine; the results do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from numpy.random import Generator
from support.compare import check_bits, random_call, results
from support.processes import needs_openmp

import fastlstm
from fastlstm._core import library
from fastlstm._core.caches import Caches

SMALL, LARGE = Caches(4 << 10, 16 << 10, 0), Caches(1 << 20, 1 << 30, 0)


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the tests set, and a processor for each thread."""
    threads, caches = fastlstm.get_num_threads(), library.planned_caches()
    monkeypatch.setattr(library, "PROCESSORS", 4)
    yield
    fastlstm.set_num_threads(threads)
    library.set_caches(caches)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 5, 8, 13, 40])
def test_bits(rng: Generator, isa: str, dtype: str, batch: int) -> None:
    """Fused, ahead, in chunks of a stack; rows shared, and units: see `test_each_plan`."""
    lstm = fastlstm.LSTM(40, 150, 2, dtype=dtype, seed=1)
    v = random_call(rng, lstm, 21, batch)
    library.set_caches(LARGE)
    fastlstm.set_num_threads(1)
    expected, inferred = results(lstm, v), lstm(v["x"])[0]
    for caches in (SMALL, LARGE):
        library.set_caches(caches)
        for threads in (1, 2, 3):
            fastlstm.set_num_threads(threads)
            check_bits(results(lstm, v), expected)
            assert lstm(v["x"])[0].tobytes() == inferred.tobytes()


@needs_openmp
@pytest.mark.parametrize(
    ("caches", "batch", "threads", "line"),
    [
        (LARGE, 8, 1, "multiplied with its weights in each step"),
        (SMALL, 8, 1, "multiplied with its weights 8 steps ahead"),
        (LARGE, 40, 2, "share the rows"),
        (SMALL, 40, 2, "share the hidden units"),
        (SMALL, 8, 1, "in chunks of 8"),
        (LARGE, 3, 2, "share the hidden units"),
    ],
)
def test_each_plan(caches: Caches, batch: int, threads: int, line: str) -> None:
    """The sizes of the caches decide."""
    library.set_caches(caches)
    fastlstm.set_num_threads(threads)
    lstm = fastlstm.LSTM(40, 650, 2, seed=1)
    assert line in lstm.plan(21, batch)


@needs_openmp
@pytest.mark.parametrize("hidden", [16, 32, 64, 128])
def test_a_team_does_not_shrink_as_batches_grow(hidden: int) -> None:
    fastlstm.set_num_threads(2)
    library.set_caches(Caches(48 << 10, 2 << 20, 32 << 20))
    lstm = fastlstm.LSTM(2048, hidden, seed=1)
    teams = ["  2 of 2 " in lstm.plan(50, batch) for batch in range(1, 41)]
    assert teams == sorted(teams)


@needs_openmp
def test_backward(rng: Generator) -> None:
    fastlstm.set_num_threads(2)
    lstm = fastlstm.LSTM(40, 1024, seed=1)
    library.set_caches(SMALL)
    assert "share the hidden units" in lstm.plan(21, 40, training=True).split("backward")[1]
    library.set_caches(LARGE)
    assert "share the rows" in lstm.plan(21, 40, training=True).split("backward")[1]
