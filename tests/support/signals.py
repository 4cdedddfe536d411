"""Signals as a program gets them that nobody has prepared."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

needs_posix_signals = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX")


def default_signals() -> None:
    """Undo what a shell does to its background jobs: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


@contextlib.contextmanager
def defaults() -> Iterator[None]:
    """Python's own handlers within the block."""
    numbers = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]
    before = {number: signal.getsignal(number) for number in numbers}
    default_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
