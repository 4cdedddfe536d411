"""The processes that train one model: what the loop needs of them, and errors that all have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastlstm._parameters import Gradients
from fastlstm._shards import ShardGradients, Shards

Result = TypeVar("Result")


class Group(Protocol):
    """As `fastlstm.distributed.Group`: its methods are calls that all processes make."""

    rank: int
    size: int

    def shards(self, batch: int, count: int) -> Shards:
        """Those of this process."""

    def sum(self, gradients: Sequence[ShardGradients]) -> list[Gradients]:
        """Over all shards."""

    def total(self, values: NDArray[np.float64]) -> float:
        """Of a number of each shard."""

    def gather(self, value: Any) -> list[Any]:
        """Those of all processes."""

    def share(self, value: Any) -> Any:
        """That of process 0."""

    def vote(self, error: BaseException | None, stop: int) -> int:
        """Raise an error that any process has, or return the largest `stop`."""

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise an error unless all processes have the same."""

    def check_same(self, arrays: Iterable[NDArray[Any]], what: str) -> None:
        """Raise an error unless arrays have the same bits in all processes."""


def agree(
    group: Group, work: Callable[[], Result], stop: Callable[[], int] = lambda: 0
) -> tuple[Result, int]:
    """What `work` returns in this process, and the largest number that `stop` tells in any.

    An error in one process is one in all of them, so that none waits for another.  `work` makes no
    calls that all have to make.
    """
    if group.size == 1:
        return work(), stop()
    result, error = None, None
    try:
        result = work()
    except BaseException as raised:
        error = raised
    signum = group.vote(error, stop())
    return result, signum  # type: ignore[return-value]  # without an error it is a result


def on_rank_0(group: Group, work: Callable[[], Result]) -> Result:
    """What `work` returns in process 0, where alone it runs, in all of them."""
    if group.size == 1:
        return work()
    result, _ = agree(group, lambda: work() if group.rank == 0 else None)
    shared: Result = group.share(result)
    return shared
