"""How much memory of this process is resident, on Linux."""

from __future__ import annotations

import gc

PAGE = 4096
MEGABYTE = 1 << 20


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


def growth(action: object, first: int, then: int) -> int:
    """How much more memory is resident after `then` further calls, `first` having been made."""
    assert callable(action)
    for _ in range(first):
        action()
    before = resident()
    for _ in range(then):
        action()
    return resident() - before
