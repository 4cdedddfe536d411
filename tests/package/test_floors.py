"""The house has floors: a file uses its own folder and what stands on the floors below it.

A table lists the floors of a tree, lowest first; what shares a floor stands side by side, and none
of it uses another.  An entry is a folder or a file without its suffix; of those that fit a file the
longest counts, and a file that none fits is reported.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

Floors = Sequence[Sequence[str]]
Uses = Callable[[str], list[str]]  # what a line uses, as paths without suffix

C: Floors = [
    ["base", "cells"],
    ["fastlstm", "simd"],
    ["kernels/table"],
    ["kernels/tile"],
    ["kernels/activations", "kernels/product", "kernels/softmax", "kernels/elementwise"],
    ["kernels/cells", "kernels/probe"],
    ["kernels/kernels"],
    ["kernels/isa", "cpu"],
    ["layout"],
    ["driver"],  # what the folders of the driver share
    ["driver/forward", "driver/backward", "driver/heads"],
    ["driver/driver"],
    ["driver/driver_f32", "driver/driver_f64"],
]
# These see of a folder below them only what is named here.
C_DOORS = {("layout", "kernels"): ["kernels/table"], ("driver", "kernels"): ["kernels/table"]}


def included(line: str) -> list[str]:
    return [name.partition(".")[0] for name in re.findall(r'^\s*#\s*include "([^"]+)"', line)]


def entry_of(path: str, floors: Floors) -> str | None:
    """The longest entry that is this file or a folder it is in."""
    entries = [entry for floor in floors for entry in floor]
    fitting = [entry for entry in entries if path == entry or path.startswith(f"{entry}/")]
    return max(fitting, key=len, default=None)


def breaches(
    root: Path,
    suffixes: set[str],
    floors: Floors,
    doors: dict[tuple[str, str], list[str]],
    uses: Uses,
) -> Iterator[str]:
    """The lines that use what is not on a lower floor, with their places."""
    number = {entry: n for n, floor in enumerate(floors) for entry in floor}
    for path in sorted(file for file in root.rglob("*") if file.suffix in suffixes):
        name = path.relative_to(root).with_suffix("").as_posix()
        own = entry_of(name, floors)
        if own is None:
            yield f"{name}: on no floor"
            continue
        for line in path.read_text().splitlines():
            for used in uses(line):
                other = entry_of(used, floors)
                shut = any(
                    name.startswith(f"{user}/") and used.startswith(f"{house}/")
                    for (user, house), open_ones in doors.items()
                    if used not in open_ones
                )
                if shut or other is None or (other != own and number[other] >= number[own]):
                    yield f"{path.relative_to(root)}: {line.strip()}"


def breaches_of_c(checkout: Path) -> list[str]:
    return list(breaches(checkout / "src", {".c", ".h"}, C, C_DOORS, included))


def test_c() -> None:
    assert breaches_of_c(CHECKOUT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("kernels/tile.h", '#include "driver/tiles.h"'),  # a higher floor
        ("driver/heads/softmax.h", '#include "driver/backward/gradients.h"'),  # a sibling
        ("driver/forward/step.h", '#include "kernels/tile.h"'),  # not the door of kernels/
        ("layout/pack.h", '#include "kernels/product.h"'),
        ("driver/tiles.h", '#include "driver/forward/pass.h"'),  # what only one of them has
        ("kernels/cells/gru.h", '#include "kernels/probe.h"'),
        ("base/team.h", '#  include "fastlstm.h"'),
        ("simd/avx2.h", '#include "real.h"'),  # no path from src/
        ("new/new.h", ""),
    ],
)
def test_a_breach_is_reported(tmp_path: Path, file: str, line: str) -> None:
    shutil.copytree(CHECKOUT / "src", tmp_path / "src")
    planted = tmp_path / "src" / file
    planted.parent.mkdir(exist_ok=True)
    before = planted.read_text() if planted.exists() else ""
    planted.write_text(f"{line}\n{before}")
    [breach] = breaches_of_c(tmp_path)
    assert breach == (f"{file}: {line.strip()}" if line else "new/new: on no floor")
