"""How many processors are worth a thread each."""

from __future__ import annotations

import os

# Strings: importing pathlib would take as long as a third of importing fastlstm (7 of 24 ms).
CPUS = "/sys/devices/system/cpu"
CGROUP = "/sys/fs/cgroup"
UNLIMITED = 1 << 30


def cores() -> int:
    """Return how many cores this process may use.

    Of the processors it may run on, those that share a core count once, because one thread keeps
    the multipliers of a core busy.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
    else:
        allowed = set(range(os.cpu_count() or 1))
    return max(1, len({_siblings(processor) for processor in allowed}))


def _siblings(processor: int) -> str:
    """The processors of a core, or the one given where the system does not say."""
    try:
        return _read(f"{CPUS}/cpu{processor}/topology/thread_siblings_list")
    except OSError:
        return str(processor)


def quota() -> int:
    """Return how many whole processors of time the container may use (cgroup v2 or v1)."""
    try:
        if os.path.exists(f"{CGROUP}/cpu.max"):
            time, period = _read(f"{CGROUP}/cpu.max").split()
        else:
            time = _read(f"{CGROUP}/cpu/cpu.cfs_quota_us")
            period = _read(f"{CGROUP}/cpu/cpu.cfs_period_us")
        return -(-int(time) // int(period)) if int(time) > 0 else UNLIMITED
    except (OSError, ValueError):  # no control groups, or "max"
        return UNLIMITED


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


CORES, QUOTA = cores(), quota()  # of this process, when it imports fastlstm
