"""Processes of MPI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NoReturn

from fastlstm import _validation
from fastlstm.distributed._group import Array, Group
from fastlstm.distributed._wait import wait

# What launchers tell the processes that they start: MPICH and Intel MPI, Open MPI, and srun, where
# no other one stands between.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")

# Bytes move only while MPI is asked, MPICH's by 64 KiB each time: so processes meet at a barrier,
# where they may sleep, and for this many seconds of a transfer they do not.
_TRANSFER = 1.0

_unfinished: list[Any] = []  # requests that were given up: MPI may still write to their buffers


class MPIGroup(Group):
    """The processes of a communicator, by nonblocking collectives on a duplicate of it."""

    def __init__(self, comm: Any, timeout: float) -> None:
        from mpi4py import MPI

        self._timeout, self._byte = timeout, MPI.BYTE
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self._comm, request = comm.Idup()
        self._finish(request)

    def _finish(self, request: Any, busy: float = 1e-3) -> None:
        try:
            wait(request.Test, self._timeout, self, busy)
        except BaseException:
            _unfinished.append(request)
            raise

    def _alltoall(
        self, send: Array, sent: Sequence[int], receive: Array, received: Sequence[int]
    ) -> None:
        self._finish(self._comm.Ibarrier())
        byte = self._byte
        request = self._comm.Ialltoallv([send, sent, byte], [receive, received, byte])
        self._finish(request, _TRANSFER)

    def _allgather(self, send: Array, receive: Array) -> None:
        self._finish(self._comm.Ibarrier())
        request = self._comm.Iallgather([send, self._byte], [receive, self._byte])
        self._finish(request, _TRANSFER)

    def _broadcast(self, buffer: Array) -> None:
        self._finish(self._comm.Ibcast([buffer, self._byte]))

    def abort(self, code: int = 1) -> NoReturn:
        """End all processes of MPI at once."""
        self._comm.Abort(code)
        super().abort(code)


def mpi(comm: Any = None, *, timeout: float = 600.0) -> MPIGroup:
    """Return the group of all processes that ``mpiexec`` started.  Needs mpi4py and an MPI.

    All of them have to call it.  A process uses as many threads as `fastlstm.get_num_threads` says:
    where several share a machine, bind them (``--bind-to core``), or set ``OMP_NUM_THREADS``.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        Default: ``MPI.COMM_WORLD``.
    timeout : float, default 600
        Seconds to wait for other processes, each time, before it is a `TimeoutError`.

    Returns
    -------
    Group

    Raises
    ------
    ModuleNotFoundError, RuntimeError
        mpi4py is not installed, or finds no MPI; or the processes do not find each other, because
        ``mpiexec`` is of another MPI.
    TypeError, ValueError
        An argument is none of these.
    TimeoutError
        Another process did not come.

    Examples
    --------
    >>> from fastlstm import distributed
    >>> group = distributed.mpi()  # doctest: +SKIP
    """
    timeout = _validation.non_negative("timeout", timeout)
    try:
        from mpi4py import MPI
    except ModuleNotFoundError as error:
        message = "distributed.mpi needs mpi4py and an MPI: pip install 'fastlstm[mpi]' mpich"
        raise ModuleNotFoundError(message, name="mpi4py") from error
    except (ImportError, RuntimeError) as error:  # depends on its version
        message = "distributed.mpi needs an MPI: install one, for example by pip install mpich"
        raise RuntimeError(f"{message} (mpi4py: {error})") from error
    if comm is None:
        comm = MPI.COMM_WORLD
        _check_launcher(comm.Get_size(), MPI.Get_library_version())
    elif not isinstance(comm, MPI.Intracomm):
        raise TypeError(f"comm: expected an mpi4py.MPI.Intracomm, got {type(comm).__name__}")
    return MPIGroup(comm, timeout)


def _check_launcher(size: int, library: str) -> None:
    """Refuse processes of which each believes to be alone: they would do the same work."""
    told = [(name, os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdecimal()]
    if size == 1 and told and int(told[0][1]) > 1:
        name, started = told[0]
        version = library.splitlines()[0].rstrip("\0")
        raise RuntimeError(
            f"expected {started} processes as the launcher says ({name}), got 1: it is not the "
            f"mpiexec of the MPI that mpi4py uses, or srun needs another --mpi= for it: {version}"
        )
