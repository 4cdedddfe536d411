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

PYTHON_SUFFIXES = {".py", ".pyi", ".pyx", ".pxd"}

C: Floors = [
    ["base", "cells", "weight_types"],
    ["fastlstm", "simd"],
    ["kernels/table"],
    ["kernels/tile"],
    ["kernels/activations", "kernels/product", "kernels/softmax", "kernels/elementwise"],
    ["kernels/cells", "kernels/paths", "kernels/probe", "kernels/bytes"],
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


PYTHON: Floors = [
    ["reference", "_figure", "_io", "_parameters", "_validation"],
    ["_stored_weights", "_shards"],
    ["_core"],
    ["_layers", "optim", "_config"],
    ["distributed", "heads"],
    ["__init__", "training", "torch", "onnx", "plot", "_conversion"],
    ["models", "keras", "flax", "sklearn", "dask", "bench"],
    ["viewer"],
    ["cli"],
    ["__main__"],
]


def included(line: str) -> list[str]:
    return [name.partition(".")[0] for name in re.findall(r'^\s*#\s*include "([^"]+)"', line)]


def imported(line: str) -> list[str]:
    """Of a line of Python or Cython; names that a package gives are looked for in its folder."""
    if found := re.match(r"\s*(?:from|c?import) fastlstm\.([\w.]+)(?: c?import (.+))?", line):
        path = found[1].replace(".", "/")
        names = re.findall(r"\w+", re.sub(r" as \w+", "", found[2] or ""))
        inside = [f"{path}/{name}" for name in names if is_module(f"{path}/{name}")]
        return inside if names and len(inside) == len(names) else [*inside, path]
    if found := re.match(r"\s*from fastlstm c?import (.+)", line):
        names = re.findall(r"\w+", re.sub(r" as \w+", "", found[1]))
        return [name if is_module(name) else "__init__" for name in names or ["__init__"]]
    return ["__init__"] if re.match(r"\s*import fastlstm$", line) else []


def is_module(path: str) -> bool:
    place = CHECKOUT / "fastlstm" / path
    return place.is_dir() or any(place.with_suffix(suffix).exists() for suffix in PYTHON_SUFFIXES)


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


def breaches_of_python(checkout: Path) -> list[str]:
    return list(breaches(checkout / "fastlstm", PYTHON_SUFFIXES, PYTHON, {}, imported))


def test_python() -> None:
    assert breaches_of_python(CHECKOUT) == []


def uses_of_files(root: Path) -> dict[str, set[str]]:
    """What each module imports of the others; stubs, headers and sources of one are one."""
    uses: dict[str, set[str]] = {}
    for path in sorted(file for file in root.rglob("*") if file.suffix in PYTHON_SUFFIXES):
        name = path.relative_to(root).with_suffix("").as_posix()
        lines = path.read_text().splitlines()
        uses.setdefault(name, set()).update(used for line in lines for used in imported(line))
    for name, others in uses.items():
        folders = {
            f"{other}/__init__" if f"{other}/__init__" in uses else other for other in others
        }
        uses[name] = folders & uses.keys() - {name, "__init__"}
    return uses


def circle_of(uses: dict[str, set[str]]) -> list[str]:
    """Modules on circles of imports, or between two of them: what remains without the ends."""
    left = set(uses)
    while True:
        used = {other for name in left for other in uses[name]}
        ends = {name for name in left if name not in used or not uses[name] & left}
        if not ends:
            return sorted(left)
        left -= ends


def test_no_circle() -> None:
    assert circle_of(uses_of_files(CHECKOUT / "fastlstm")) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("_core/stream.pyx", "from fastlstm._layers.base import Layer"),  # a higher floor
        ("_core/stream.pyi", "from fastlstm._layers.base import Layer"),
        ("_core/library.pxd", "from fastlstm._layers.options cimport x"),
        ("reference/cells.py", "    from fastlstm import _validation"),  # beside it
        ("keras/_read.py", "from fastlstm.flax._read import from_flax"),
        ("_layers/base.py", "import fastlstm"),
        ("optim/_sgd.py", "import fastlstm.models"),
        ("new/new.py", ""),
    ],
)
def test_a_breach_of_python_is_reported(tmp_path: Path, file: str, line: str) -> None:
    shutil.copytree(CHECKOUT / "fastlstm", tmp_path / "fastlstm")
    planted = tmp_path / "fastlstm" / file
    planted.parent.mkdir(exist_ok=True)
    before = planted.read_text() if planted.exists() else ""
    planted.write_text(f"{line}\n{before}")
    [breach] = breaches_of_python(tmp_path)
    assert breach == (f"{file}: {line.strip()}" if line else "new/new: on no floor")


def test_a_circle_is_reported(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "fastlstm", tmp_path / "fastlstm")
    planted = tmp_path / "fastlstm/_layers/trace.py"
    planted.write_text(f"{planted.read_text()}\nfrom fastlstm._layers import lstm\n")
    circle = circle_of(uses_of_files(tmp_path / "fastlstm"))
    assert {"_layers/trace", "_layers/lstm"} <= set(circle)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("kernels/tile.h", '#include "driver/tiles.h"'),  # a higher floor
        ("driver/heads/linear.h", '#include "driver/backward/gradients.h"'),  # a sibling
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
