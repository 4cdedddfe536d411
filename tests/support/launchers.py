"""Programs of several processes: mpiexec of each MPI that is there, torchrun."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT = 100  # seconds, of a program

BESIDE_PYTHON = Path(sys.executable).parent / "mpiexec"  # of the package mpich
OPEN_MPI = shutil.which("mpiexec.openmpi")

# Root, more processes than cores, and no waiting in busy loops; mpi4py is told which MPI.
ENVIRONMENT_OF_OPEN_MPI = {
    "MPI4PY_MPIABI": "openmpi",
    "MPI4PY_LIBMPI": "libmpi.so.40",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "true",
    "OMPI_MCA_mpi_yield_when_idle": "true",
    "OMPI_MCA_plm_rsh_agent": "false",  # all on this machine
}

MPIS = ["mpich", "openmpi"]


def launcher(engine: str, size: int) -> tuple[list[str], dict[str, str]]:
    """The command that starts so many processes of Python, and its environment; or skip."""
    if engine == "dask":  # starts its workers itself
        pytest.importorskip("distributed")
        return [sys.executable], {}
    if engine == "torch":
        pytest.importorskip("torch.distributed")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*command, f"--nproc-per-node={size}"], {}
    pytest.importorskip("mpi4py")
    if engine == "openmpi":
        if OPEN_MPI is None:
            pytest.skip("mpiexec.openmpi: not installed")
        return [OPEN_MPI, "-n", str(size), sys.executable], ENVIRONMENT_OF_OPEN_MPI
    if not BESIDE_PYTHON.exists():
        pytest.skip("mpich: not installed")
    return [str(BESIDE_PYTHON), "-n", str(size), sys.executable], {}


def launch(
    engine: str, size: int, script: Path, module: str | None = None, **environment: str
) -> tuple[int, str]:
    """The exit status of a program, and what its processes print."""
    command, variables = launcher(engine, size)
    with started(
        [*command, *(["-m", module] if module else []), str(script)], {**variables, **environment}
    ) as program:
        text, _ = program.communicate(timeout=LIMIT)
    return program.returncode, text


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program that prints, and of which nothing is left when the block ends."""
    program = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield program
    finally:
        program.terminate()  # a launcher ends what it started, in whatever session that is
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        if program.stdout is not None:
            program.stdout.close()
