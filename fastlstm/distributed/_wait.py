"""Waiting for other processes, but not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_SLEEP = 1e-3


def wait(done: Callable[[], bool], timeout: float, who: object) -> None:
    """Return when `done()` is true, which is asked more seldom the longer it takes.

    Python handles signals in between, so that Ctrl-C works, and the processor is free for others.
    """
    start = time.monotonic()
    while not done():
        waited = time.monotonic() - start
        if waited > timeout:
            raise TimeoutError(
                f"{who} waited {timeout:g} seconds for the others: one of them ended, or needs a "
                "longer timeout="
            )
        time.sleep(min(waited / 8, LONGEST_SLEEP))
