"""The processes that train one model: errors that all have, and work that one does for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from fastlstm.distributed import Group

Result = TypeVar("Result")


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
