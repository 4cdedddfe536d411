"""Times of representative sizes, with pytest-benchmark: to be compared between two commits.

pytest benchmarks/ --benchmark-save=before
pytest benchmarks/ --benchmark-compare --benchmark-compare-fail=median:5%
"""

from __future__ import annotations

from typing import Any

import pytest

import fastlstm
from fastlstm.bench import cases, peers

pytest.importorskip("pytest_benchmark")

SIZES = [
    "step:1,32,32,1,1",
    "step:2,128,128,1,1",
    "step:3,256,256,1,1",
    "block:1,1,32,1,64",
    "infer:1,32,32,1,100",
    "infer:1,256,256,1,100",
    "infer:1,128,128,8,50",
    "infer:1,256,256,32,20",
    "infer:1,100,100,7,50",  # fits no tile
    "train:1,16,32,16,50",
    "train:1,64,128,32,20",
    "train:1,256,256,32,10",
]


@pytest.mark.parametrize("threads", sorted({1, fastlstm.get_num_threads()}))
@pytest.mark.parametrize("size", SIZES)
def test_time(benchmark: Any, size: str, threads: int) -> None:
    case = cases.of_size(size)
    work = peers.start(peers.OURS, threads).prepare(case)
    benchmark.extra_info["operations"] = case.operations
    benchmark(work.call)
