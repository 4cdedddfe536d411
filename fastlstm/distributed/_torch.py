"""Processes of torch.distributed."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from typing import Any

from fastlstm import _validation
from fastlstm.distributed._group import Array, Group
from fastlstm.distributed._wait import wait

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class TorchGroup(Group):
    """The processes of a process group of gloo."""

    def __init__(self, process_group: Any, timeout: float) -> None:
        import torch
        import torch.distributed

        self._tensor, self._engine = torch.from_numpy, torch.distributed
        self._process_group, self._timeout = process_group, timeout
        self.rank = self._engine.get_rank(process_group)
        self.size = self._engine.get_world_size(process_group)

    def _finish(self, work: Any) -> None:
        wait(work.is_completed, self._timeout, self)
        try:
            work.wait()
        except RuntimeError as error:
            raise ConnectionError(f"{self} lost another process: {error}") from error

    def _alltoall(
        self, send: Array, sent: Sequence[int], receive: Array, received: Sequence[int]
    ) -> None:
        work = self._engine.all_to_all_single(
            self._tensor(receive),
            self._tensor(send),
            list(received),
            list(sent),
            group=self._process_group,
            async_op=True,
        )
        self._finish(work)

    def _allgather(self, send: Array, receive: Array) -> None:
        parts = [self._tensor(part) for part in receive.reshape(self.size, -1)]
        own, group = self._tensor(send), self._process_group
        self._finish(self._engine.all_gather(parts, own, group=group, async_op=True))

    def _broadcast(self, buffer: Array) -> None:
        own, group = self._tensor(buffer), self._process_group
        self._finish(self._engine.broadcast(own, group=group, group_src=0, async_op=True))


def torch(process_group: Any = None, *, timeout: float = 600.0) -> TorchGroup:
    """Return the group of the processes of ``torch.distributed``, by gloo.  Needs torch.

    All of them have to call it.  ``torchrun`` sets ``OMP_NUM_THREADS`` to 1 in processes that it
    starts, unless it is set.

    Parameters
    ----------
    process_group : torch.distributed.ProcessGroup, optional
        Of the backend gloo.  Default: the default group; if there is none yet, one is initialized
        from the environment that ``torchrun`` makes.
    timeout : float, default 600
        Seconds to wait for other processes, each time, before it is a `TimeoutError`.

    Returns
    -------
    Group

    Raises
    ------
    ModuleNotFoundError
        torch is not installed.
    RuntimeError
        There is no process group, and no such environment.
    TypeError, ValueError
        An argument is none of these, or the backend is another one.
    TimeoutError
        Another process did not come.

    Examples
    --------
    >>> from fastlstm import distributed
    >>> group = distributed.torch()  # doctest: +SKIP
    """
    timeout = _validation.non_negative("timeout", timeout)
    try:
        import torch.distributed as engine
    except ModuleNotFoundError as error:
        message = "distributed.torch needs torch: pip install 'fastlstm[torch]'"
        raise ModuleNotFoundError(message, name="torch") from error
    if process_group is None and not engine.is_initialized():
        _initialize(engine, timeout)
    backends = str(engine.get_backend_config(process_group))
    if "gloo" not in backends:
        raise ValueError(
            f"process_group: expected the backend gloo, got {backends}; "
            "torch.distributed.new_group(backend='gloo') makes one"
        )
    return TorchGroup(process_group, timeout)


def _initialize(engine: Any, timeout: float) -> None:
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise RuntimeError(
            "distributed.torch needs a process group, or the environment that torchrun makes: "
            f"{', '.join(missing)} not set"
        )
    try:
        engine.init_process_group("gloo", timeout=datetime.timedelta(seconds=timeout))
    except engine.DistStoreError as error:
        raise TimeoutError(f"the processes did not meet in {timeout:g} seconds: {error}") from error
    except engine.DistError as error:
        raise ConnectionError(f"the processes did not meet: {error}") from error
