"""Waiting for other processes, but not for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

LONGEST_SLEEP = 1e-3

_give_way = getattr(os, "sched_yield", lambda: time.sleep(0))  # which not every system has


def wait(done: Callable[[], bool], timeout: float, who: object, busy: float = 1e-3) -> None:
    """Return when `done()` is true.

    It is asked all the time for `busy` seconds, then more seldom the longer it takes.  Others get
    the processor, and Python handles signals, so that Ctrl-C works.
    """
    start = time.monotonic()
    while not done():
        waited = time.monotonic() - start
        if waited > timeout:
            raise TimeoutError(
                f"{who} waited {timeout:g} seconds for the others: one of them ended, or needs a "
                "longer timeout="
            )
        if waited < busy:
            _give_way()
        else:
            time.sleep(min((waited - busy) / 8, LONGEST_SLEEP))
