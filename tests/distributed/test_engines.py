"""MPI and torch.distributed: programs of real processes give the bits of one, and none hangs."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from support.launchers import MPIS, launch
from support.processes import python

pytestmark = pytest.mark.peer

PROGRAMS = pytest.mark.parametrize(
    ("engine", "size"),
    [*((mpi, size) for mpi in MPIS for size in (1, 2, 3, 4)), ("torch", 2), ("torch", 3)],
)
PAIRS = pytest.mark.parametrize("engine", [*MPIS, "torch"])
ON_MPI = pytest.mark.parametrize("engine", MPIS)

BEGIN = """
import os, signal, sys, threading, time
import numpy as np
import fastlstm
from fastlstm import distributed
from support.groups import gradients_of, tree_sum

engine = getattr(distributed, os.environ["ENGINE"])

def say(*words):
    with open(f"{__file__}.{os.getpid()}", "a") as file:  # for printed ones mix their lines
        print(*words, file=file)
"""


def program(
    folder: Path, engine: str, size: int, code: str, **environment: str
) -> tuple[int, list[str]]:
    """The exit status, and the lines that all processes say, sorted; otherwise what they print."""
    script = folder / "program.py"
    script.write_text(BEGIN + textwrap.dedent(code))
    name = "torch" if engine == "torch" else "mpi"
    status, printed = launch(engine, size, script, ENGINE=name, **environment)
    lines = [line for file in folder.glob("*.py.*") for line in file.read_text().splitlines()]
    return status, sorted(lines) if lines else [printed]


def test_help_is_offered_without_the_package() -> None:
    """One error, which says what to install."""
    for engine, package in (("mpi", "mpi4py"), ("torch", "torch")):
        code = f"import sys; sys.modules[{package!r}] = None; from fastlstm import distributed\n"
        code += f"try: distributed.{engine}()\nexcept ModuleNotFoundError as error: print(error)"
        found = python(code)
        assert found.startswith(f"distributed.{engine} needs {package}")
        assert f": pip install 'fastlstm[{engine}]'" in found


@PROGRAMS
def test_the_bits_of_one_process(engine: str, size: int, tmp_path: Path) -> None:
    code = """
    group = engine()
    rng = np.random.default_rng(0)
    for count in (1, 2, 4, 8):
        for n in (0, 1, 1000, 70_000):
            of_shards = (rng.normal(size=(count, n)) * 10.0 ** rng.integers(-4, 4, n)).astype("f4")
            total = group.sum(gradients_of(group, of_shards))
            assert np.array_equal(total.flat, tree_sum(of_shards)), (count, n)
    everything = ["x" * 1000 * rank for rank in range(group.size)]
    assert group.gather(everything[group.rank]) == everything
    assert group.share(everything[group.rank] + "y") == "y"
    group.check({"count": 8})
    group.check_same([rng.normal(size=3)], "numbers")
    last = group.size - 1
    assert group.vote(None, signal.SIGTERM if group.rank == last else 0) == signal.SIGTERM
    shards = group.shards(8, 8)
    assert group.total(np.arange(8.0)[shards.first : shards.end]) == 28
    say(group)
    """
    name = "TorchGroup" if engine == "torch" else "MPIGroup"
    expected = [f"{name}(rank={rank}, size={size})" for rank in range(size)]
    assert program(tmp_path, engine, size, code) == (0, expected)


@PAIRS
def test_differences_are_refused(engine: str, tmp_path: Path) -> None:
    """An instruction set without fused multiply-add, settings, an error: in all processes."""
    code = """
    group = engine()
    if group.rank == 1:
        os.environ["FASTLSTM_ISA"] = "baseline"
    def show(call, *arguments):
        try:
            call(*arguments)
        except Exception as error:
            say(group.rank, error)
    show(group.check, {"lr": group.rank})
    show(group.vote, OSError("the disk is full") if group.rank == 0 else None, 0)
    """
    differ = "expected equal processes, got instruction set: fused multiply-add on rank 0, "
    differ += "baseline on rank 1; lr: 0 on rank 0, 1 on rank 1"
    full = "the disk is full"
    expected = [f"0 {differ}", f"0 {full}", f"1 {differ}", f"1 rank 0: OSError: {full}"]
    assert program(tmp_path, engine, 2, code) == (0, expected)


@PAIRS
def test_a_process_that_does_not_come(engine: str, tmp_path: Path) -> None:
    """The others do not wait for ever, and can end all of them."""
    code = """
    group = engine(timeout=20)
    group.gather(0)
    if group.rank == 1:
        time.sleep(1000)
    group._timeout = 0.5
    try:
        group.gather(1)
    except TimeoutError as error:
        say(error)
        group.abort(3)
    """
    status, lines = program(tmp_path, engine, 2, code)
    name = "TorchGroup" if engine == "torch" else "MPIGroup"
    expected = f"{name}(rank=0, size=2) waited 0.5 seconds for the others: one of them ended, or "
    assert any(line.startswith(expected) for line in lines), lines
    assert status


@PAIRS
def test_a_process_that_is_killed(engine: str, tmp_path: Path) -> None:
    code = """
    group = engine(timeout=1000)
    group.gather(0)
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        group.gather(1)
    except ConnectionError as error:
        say(str(error).split(":")[0])
        group.abort()
    """
    status, lines = program(tmp_path, engine, 2, code)
    assert status
    if engine == "torch":
        assert "TorchGroup(rank=0, size=2) lost another process" in lines


@PAIRS
def test_an_interrupt(engine: str, tmp_path: Path) -> None:
    """Ctrl-C ends the wait."""
    code = """
    group = engine()
    group.gather(0)
    if group.rank == 1:
        time.sleep(1000)
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    try:
        group.gather(1)
    except KeyboardInterrupt:
        say("interrupted")
        group.abort(3)
    """
    status, lines = program(tmp_path, engine, 2, code)
    assert "interrupted" in lines
    assert status


@ON_MPI
def test_a_communicator_of_ones_own(engine: str, tmp_path: Path) -> None:
    """A part of the processes; messages of the communicator itself are not mixed with ours."""
    code = """
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    pair = world.Split(world.rank // 2)
    group = distributed.mpi(pair, timeout=20)
    begin = lambda: pair.Iallgather(np.array([world.rank], "i"), received)
    received = np.zeros(2, "i")
    request = begin() if pair.rank == 0 else None
    gathered = group.gather(world.rank)
    (request or begin()).Wait()
    assert received.tolist() == gathered
    say(world.rank, gathered)
    """
    expected = ["0 [0, 1]", "1 [0, 1]", "2 [2, 3]", "3 [2, 3]"]
    assert program(tmp_path, engine, 4, code) == (0, expected)


def test_no_communicator(tmp_path: Path) -> None:
    code = """
    for wrong in ({"comm": 3}, {"timeout": -1.0}):
        try:
            distributed.mpi(**wrong)
        except (TypeError, ValueError) as error:
            say(error)
    """
    expected = ["comm: expected an mpi4py.MPI.Intracomm, got int"]
    expected += ["timeout: expected a number >= 0, got -1.0"]
    assert program(tmp_path, "mpich", 1, code) == (0, expected)


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_an_mpiexec_of_another_mpi(name: str) -> None:
    """Its processes would do the same work, each for itself."""
    pytest.importorskip("mpi4py")
    code = "from fastlstm import distributed\ntry: distributed.mpi()\n"
    code += "except RuntimeError as error: print(error)"
    found = python(code, **{name: "4"})
    assert found.startswith(f"expected 4 processes as the launcher says ({name}), got 1: it")


def test_no_environment_of_torchrun() -> None:
    pytest.importorskip("torch.distributed")
    code = "from fastlstm import distributed\ntry: distributed.torch()\n"
    code += "except RuntimeError as error: print(error)"
    found = python(code, RANK="0", WORLD_SIZE=None, MASTER_ADDR=None, MASTER_PORT=None)
    assert found.endswith("torchrun makes: WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set")


def test_process_groups_of_ones_own(tmp_path: Path) -> None:
    code = """
    import torch.distributed
    torch.distributed.init_process_group("gloo")
    assert distributed.torch().size == 2
    alone = [torch.distributed.new_group([rank], backend="gloo") for rank in range(2)]
    group = distributed.torch(alone[torch.distributed.get_rank()])
    say(group, group.gather(1))
    torch.distributed.barrier()  # a process that leaves early may be missed by the other
    torch.distributed.destroy_process_group()
    """
    expected = ["TorchGroup(rank=0, size=1) [1]"] * 2
    assert program(tmp_path, "torch", 2, code) == (0, expected)


@pytest.mark.parametrize(
    ("engine", "environment"),
    [("mpich", {"OMP_NUM_THREADS": "1"}), ("openmpi", {"OMP_NUM_THREADS": "1"}), ("torch", {})],
)
def test_threads_are_limited(engine: str, environment: dict[str, str], tmp_path: Path) -> None:
    """By ``OMP_NUM_THREADS``, which torchrun sets itself."""
    code = "say(fastlstm.get_num_threads())"
    assert program(tmp_path, engine, 2, code, **environment) == (0, ["1", "1"])
