"""Steps and blocks, of streams and pools, allocate no memory; a step of a stream takes no lock."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.checkout import CHECKOUT

import fastlstm

COUNT = """
import ctypes, sys
import numpy as np
import fastlstm

calls = ctypes.PyDLL(sys.argv[1]).interposed_{counted}
calls.restype = ctypes.c_long
fastlstm.set_num_threads(1)
stream = fastlstm.LSTM({input}, {hidden}, {layers}, dtype={dtype!r}, seed=0).stream({batch})
x = np.ones(({batch}, {input}), {dtype!r})
out = np.empty(({batch}, {hidden}), {dtype!r})
step = stream.step
x_T = np.ones(({steps}, {batch}, {input}), {dtype!r})
out_T = np.empty(({steps}, {batch}, {hidden}), {dtype!r})
x_5, out_5 = x_T[:5], out_T[:5]
pool = fastlstm.StreamPool(stream.layer, {batch})
slots = np.array([pool.open() for _ in range({batch})])
pool_step, x_1, slots_1, out_1 = pool.step, x[:1], slots[:1], out[:1]

def run(steps):
    before = calls()
    for _ in steps:
        {statement}
    return calls() - before

none, many = (None,) * 10, (None,) * {repeats}
run(many)
print(run(many) - run(none))
"""


@pytest.fixture(scope="module")
def interposer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if platform.libc_ver()[0] != "glibc" or compiler is None:
        pytest.skip("needs Linux, glibc and a C compiler")
    library = tmp_path_factory.mktemp("interpose") / "interpose.so"
    source = CHECKOUT / "tests/native/interpose.c"
    command = [compiler, "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    return library


def calls_of(
    interposer: Path, statement: str, counted: str = "calls", repeats: int = 1000, **sizes: object
) -> int:
    """How many calls so many repetitions of the statement make."""
    options = {"steps": 20, "counted": counted, "repeats": repeats, **sizes}
    script = COUNT.format(statement=statement, **options)
    run = subprocess.run(
        [sys.executable, "-c", script, str(interposer)],
        env={**os.environ, "LD_PRELOAD": str(interposer), "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout)


@pytest.mark.parametrize(
    ("input_size", "hidden", "layers", "batch"), [(32, 32, 1, 1), (128, 128, 2, 1), (7, 33, 3, 5)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_with_out_allocates_and_locks_nothing(
    interposer: Path, input_size: int, hidden: int, layers: int, batch: int, dtype: str
) -> None:
    sizes = {"input": input_size, "hidden": hidden, "layers": layers, "batch": batch}
    # Not 0: counting makes integers, and one of them may be new.
    assert calls_of(interposer, "step(x, out)", dtype=dtype, **sizes) < 5


@pytest.mark.parametrize(
    ("input_size", "hidden", "layers", "batch"), [(7, 33, 3, 5), (64, 64, 2, 20)]
)
def test_a_step_of_a_pool_with_out_allocates_nothing(
    interposer: Path, input_size: int, hidden: int, layers: int, batch: int
) -> None:
    """Whether it keeps the GIL or gives it away, and with changing numbers of streams."""
    sizes = {"input": input_size, "hidden": hidden, "layers": layers, "batch": batch}
    statement = "pool_step(x, slots, out); pool_step(x_1, slots_1, out_1)"
    count = calls_of(interposer, statement, "allocations", dtype="float32", **sizes)
    assert count < 5


@pytest.mark.parametrize(
    ("input_size", "hidden", "layers", "batch", "steps", "repeats"),
    [(1, 40, 1, 1, 64, 1000), (7, 33, 3, 5, 20, 300), (64, 64, 2, 20, 20, 100)],
)
def test_blocks_with_out_allocate_nothing(
    interposer: Path,
    input_size: int,
    hidden: int,
    layers: int,
    batch: int,
    steps: int,
    repeats: int,
) -> None:
    """Of a stream and of a pool, of changing lengths, whether they keep the GIL or not."""
    sizes = {"input": input_size, "hidden": hidden, "layers": layers, "batch": batch}
    for statement in (
        "stream.run(x_T, out_T); stream.run(x_5, out_5); step(x, out)",
        "pool.run(x_T, slots, out_T); pool.run(x_5, slots, out_5); pool_step(x, slots, out)",
    ):
        count = calls_of(
            interposer,
            statement,
            "allocations",
            repeats,
            steps=steps,
            dtype="float32",
            **sizes,
        )
        assert count < 5


def test_a_long_block_with_out_allocates_nothing(interposer: Path) -> None:
    """One that looks for signals."""
    sizes = {"input": 128, "hidden": 128, "layers": 1, "batch": 1, "steps": 1000}
    statement = "stream.run(x_T, out_T)"
    count = calls_of(interposer, statement, "allocations", 20, dtype="float32", **sizes)
    assert count < 5


def test_the_counter_counts(interposer: Path) -> None:
    sizes = {"input": 32, "hidden": 32, "layers": 1, "batch": 1, "dtype": "float32"}
    assert calls_of(interposer, "step(x)", **sizes) >= 1000
    assert calls_of(interposer, "stream.run(x_T)", "allocations", 30, **sizes) >= 30


def test_a_step_leaves_no_objects_behind() -> None:
    stream = fastlstm.LSTM(32, 32, seed=0).stream()
    x, out = np.ones(32, np.float32), np.empty(32, np.float32)
    stream.step(x, out)
    before = sys.getallocatedblocks()
    for _ in range(1000):
        stream.step(x, out)
    assert sys.getallocatedblocks() - before < 10
