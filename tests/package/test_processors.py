"""How many processors are worth a thread: cores, affinity, the quota of a container."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fastlstm._core import processors

Machine = Callable[..., int]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The count on a machine of eight processors; siblings[i] share a core with the i-th."""

    def count(siblings: list[str] | None = None) -> int:
        monkeypatch.setattr(processors, "CPUS", str(tmp_path / "cpus"))
        monkeypatch.setattr(processors, "CGROUP", str(tmp_path / "cgroup"))
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
        for i, text in enumerate(siblings or []):
            folder = tmp_path / f"cpus/cpu{i}/topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(text)
        return min(processors.cores(), processors.quota())

    return count


def test_processors_that_share_a_core_count_once(machine: Machine) -> None:
    assert machine([f"{i % 4},{i % 4 + 4}\n" for i in range(8)]) == 4


def test_unknown_siblings(machine: Machine) -> None:
    assert machine() == 8


@pytest.mark.parametrize(
    ("quota", "expected"), [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)]
)
def test_quota(machine: Machine, tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cpu.max").write_text(quota + "\n")
    assert machine() == expected


@pytest.mark.parametrize("text", ["max 100000", "", "nonsense"])
def test_no_quota(machine: Machine, tmp_path: Path, text: str) -> None:
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cpu.max").write_text(text)
    assert machine() == 8


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 8)])
def test_quota_of_the_first_version(
    machine: Machine, tmp_path: Path, quota: str, expected: int
) -> None:
    folder = tmp_path / "cgroup/cpu"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert machine() == expected


def test_other_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(processors, "CGROUP", str(tmp_path))
    assert processors.cores() == 1
    assert processors.quota() == processors.UNLIMITED
