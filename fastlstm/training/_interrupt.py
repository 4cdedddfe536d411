"""Ctrl-C and other signals, between two steps of training."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

# What batch systems and containers send before they end a process; Windows has not all of them.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]


@contextlib.contextmanager
def deferred_interrupt(
    *, second_raises: bool = True, ending: bool = False
) -> Iterator[Callable[[], int]]:
    """Turn the first Ctrl-C into a number that the returned function tells; a second one may raise.

    With `ending`, the signals that end a process are told, too: the largest number of those that
    came, 0 before.  A handler of the program's own is left alone, and so is every thread but the
    main one, which alone gets signals.
    """
    caught: set[int] = set()
    process = os.getpid()
    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    if ending:
        defaults |= dict.fromkeys(ENDING, signal.SIG_DFL)

    def handler(signum: int, frame: Any) -> None:
        if os.getpid() != process:  # a forked child has the handler, but no loop that looks
            signal.signal(signum, defaults[signum])
            signal.raise_signal(signum)
        elif second_raises and signum == signal.SIGINT and signum in caught:
            raise KeyboardInterrupt
        else:
            caught.add(signum)

    elsewhere = threading.current_thread() is not threading.main_thread()
    ours = [
        n for n, default in defaults.items() if signal.getsignal(n) is default and not elsewhere
    ]
    for signum in ours:
        signal.signal(signum, handler)
    try:
        yield lambda: max(caught, default=0)
    finally:
        for signum in ours:
            signal.signal(signum, defaults[signum])
