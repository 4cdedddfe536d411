"""How many processors are worth a thread each."""

from __future__ import annotations

import os

# Strings: importing pathlib would take as long as a third of importing fastlstm (7 of 24 ms).
CPUS = "/sys/devices/system/cpu"
CGROUP = "/sys/fs/cgroup"


def count() -> int:
    """Return how many cores this process may use: what its threads can do at a time.

    Of the processors it may run on, those that share a core count once, because one thread keeps
    the multipliers of a core busy; and the quota of its container limits them.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
    else:
        allowed = set(range(os.cpu_count() or 1))
    cores = {_siblings(processor) for processor in allowed}
    return max(1, min(len(cores), _quota()))


def _siblings(processor: int) -> str:
    """The processors of a core, or the one given where the system does not say."""
    try:
        return _read(f"{CPUS}/cpu{processor}/topology/thread_siblings_list")
    except OSError:
        return str(processor)


def _quota() -> int:
    """Whole processors of time that the control group may use (cgroup v2 or v1)."""
    try:
        if os.path.exists(f"{CGROUP}/cpu.max"):
            quota, period = _read(f"{CGROUP}/cpu.max").split()
        else:
            quota = _read(f"{CGROUP}/cpu/cpu.cfs_quota_us")
            period = _read(f"{CGROUP}/cpu/cpu.cfs_period_us")
        return -(-int(quota) // int(period)) if int(quota) > 0 else 1 << 30
    except (OSError, ValueError):  # no control groups, or "max"
        return 1 << 30


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
