"""Ctrl-C, between two steps of training."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def deferred_interrupt(*, second_raises: bool = True) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag that the returned function tells; a second one may raise.

    A handler of the program's own is left alone, and so is every thread but the main one,
    which alone gets signals.
    """
    caught: list[int] = []

    def handler(signum: int, frame: Any) -> None:
        if caught and second_raises:
            raise KeyboardInterrupt
        caught.append(signum)

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(caught)
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
