"""The sizes of caches: what the machine says, what the environment sets, what is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import needs_linux, python

import fastlstm
from fastlstm._core import caches, library
from fastlstm._core.caches import Caches

K, M = 1 << 10, 1 << 20
MACHINE = Caches(48 * K, 2 * M, 480 * M, 1, 2)
NAMES = ("FASTLSTM_L1D", "FASTLSTM_L2", "FASTLSTM_L3")


@pytest.fixture
def planned() -> Iterator[Caches]:
    before = library.planned_caches()
    yield before
    library.set_caches(before)


# What the machine says.


def test_this_machine() -> None:
    found = library.machine_caches()
    assert found.l1d >= 4 * K
    assert found.l2 >= 64 * K
    assert found.l3 >= 0
    processors = os.cpu_count() or 1
    assert 1 <= found.l2_sharers <= processors
    assert 1 <= found.l3_sharers <= processors
    assert found == library.machine_caches()


def folder_of(path: Path, *entries: tuple[int, str, str, str]) -> str:
    """A folder of Linux with caches: level, type, size, processors that share it."""
    for i, values in enumerate(entries):
        index = path / f"index{i}"
        index.mkdir()
        for name, value in zip(("level", "type", "size", "shared_cpu_list"), values, strict=True):
            (index / name).write_text(f"{value}\n")
    return str(path)


@needs_linux
def test_the_system_says_the_same() -> None:
    """One of its processors does: their caches may differ, and any of them may have been asked."""
    cpus = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache")
    found = [library.linux_caches(str(cpu)) for cpu in cpus]
    sizes = {each[:3] for each in found if each}
    if not sizes:
        pytest.skip("this system does not describe its caches")
    assert library.machine_caches()[:3] in sizes


@needs_linux
def test_what_linux_describes(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        (1, "Data", "64K", "0,64"),
        (1, "Instruction", "32K", "0,64"),
        (2, "Unified", "1M", "0,1,64,65"),
        (3, "Unified", "33554432", "0-15,64-79"),
        (4, "Unified", "131072K", "0-127"),
    )
    assert library.linux_caches(folder) == (64 * K, M, 32 * M, 2, 16, ())


@needs_linux
@pytest.mark.parametrize("shared", ["", "none", "3-1", "0-99999999999999999999"])
def test_odd_lists_of_processors(tmp_path: Path, shared: str) -> None:
    folder = folder_of(tmp_path, (1, "Data", "64K", "0"), (2, "Unified", "1024K", shared))
    assert library.linux_caches(folder) == (64 * K, M, 0, 1, 1, ())


@needs_linux
def test_what_linux_does_not_describe(tmp_path: Path) -> None:
    assert library.linux_caches(str(tmp_path / "x" / ("y" * 600))) is None
    assert library.linux_caches(str(tmp_path)) is None
    folder = folder_of(tmp_path, (1, "Data", "64K", "0"), (2, "Unified", "", "0"))
    assert library.linux_caches(folder) is None


# What the environment sets.


@pytest.mark.parametrize(
    ("text", "size"),
    [("48K", 48 * K), ("2M", 2 * M), ("1G", 1 << 30), ("33554432", 32 * M), ("1", 1)],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_variable(monkeypatch: pytest.MonkeyPatch, name: str, text: str, size: int) -> None:
    for other in NAMES:
        monkeypatch.setenv(other, text if other == name else "")
    field = name.removeprefix("FASTLSTM_").lower()
    expected = MACHINE._replace(**{field: size}, variables=(name,))
    assert caches.with_environment(MACHINE) == expected


def test_no_l3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLSTM_L3", "0")
    assert caches.with_environment(MACHINE).l3 == 0


@pytest.mark.parametrize(
    "text",
    ["2X", "2 M", "2m", "-1", "1.5M", "M", "1025G", "9" * 5000, " ", "٤K"],
    ids=lambda text: ascii(text)[:12],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_malformed_variable(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    none = ", 0 for none" if name == "FASTLSTM_L3" else ""
    expected = f"{name}: expected a size such as 48K, 2M or 33554432{none}, got {text!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        caches.with_environment(MACHINE)


@pytest.mark.parametrize("name", ["FASTLSTM_L1D", "FASTLSTM_L2"])
def test_there_is_an_l1_and_an_l2(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0")
    with pytest.raises(ValueError, match=f"^{name}: expected a size such as .*, got '0'$"):
        caches.with_environment(MACHINE)


def test_variables_in_a_new_process() -> None:
    """They are read once, by the import."""
    code = """
import os
import fastlstm
from fastlstm._core import library
os.environ["FASTLSTM_L2"] = "1M"
print(*library.planned_caches())
"""
    found = python(code, FASTLSTM_L1D="32K", FASTLSTM_L2="512K", FASTLSTM_L3="3M")
    machine = library.machine_caches()
    variables = "('FASTLSTM_L1D', 'FASTLSTM_L2', 'FASTLSTM_L3')"
    sharers = f"{machine.l2_sharers} {machine.l3_sharers}"
    assert found == f"{32 * K} {512 * K} {3 * M} {sharers} {variables}"


def test_a_mistake_is_raised_by_what_needs_them() -> None:
    code = """
import numpy as np
import fastlstm
lstm = fastlstm.LSTM(2, 3)
x = np.zeros((4, 1, 2), np.float32)
calls = (
    lambda: lstm(x), lambda: lstm(x), lambda: lstm.stream(), lambda: fastlstm.show_config(),
    lambda: fastlstm.StreamPool(lstm, 2).step(x[0], [fastlstm.StreamPool(lstm, 2).open()]),
)
for call in calls:
    try:
        call()
    except ValueError as error:
        print(error)
"""
    expected = "FASTLSTM_L2: expected a size such as 48K, 2M or 33554432, got 'two'"
    assert python(code, FASTLSTM_L2="two").splitlines() == [expected] * 5


def test_other_sizes_for_tests(planned: Caches) -> None:
    machine, other = library.machine_caches(), Caches(1, 2, 3, 4, 5)
    library.set_caches(other)
    assert library.planned_caches() == other
    assert library.machine_caches() == machine


# What is shown.


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        (MACHINE, "L1d 48 KiB, L2 2 MiB, L3 480 MiB shared by 2"),
        (
            MACHINE._replace(l2=1310720, variables=("FASTLSTM_L2",)),
            "L1d 48 KiB, L2 1.25 MiB, L3 480 MiB shared by 2 (FASTLSTM_L2 set)",
        ),
        (
            Caches(100, 16 * M, 0, 4, 1, ("FASTLSTM_L1D", "FASTLSTM_L3")),
            "L1d 100 bytes, L2 16 MiB shared by 4, no L3 (FASTLSTM_L1D, FASTLSTM_L3 set)",
        ),
    ],
)
def test_as_text(sizes: Caches, text: str) -> None:
    assert caches.as_text(sizes) == text


def test_show_config(planned: Caches, capsys: pytest.CaptureFixture[str]) -> None:
    library.set_caches(MACHINE)
    fastlstm.show_config()
    expected = "\ncaches     L1d 48 KiB, L2 2 MiB, L3 480 MiB shared by 2\n"
    assert expected in capsys.readouterr().out
