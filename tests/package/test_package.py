"""The package as it is installed: examples, stubs, what importing it brings along."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import CHECKOUT

import fastlstm

FOLDER = Path(fastlstm.__file__).parent
MODULES = ["fastlstm"] + [
    module.name
    for module in pkgutil.walk_packages([str(FOLDER)], "fastlstm.")
    if not module.name.endswith("__main__")
]


BRIDGES = ("torch", "onnx", "sklearn", "dask")  # modules that need the package of that name
WITH_ESTIMATORS = ("fastlstm.distributed._predict", "fastlstm.dask._predict")  # in their examples


def packages_of(name: str) -> list[str]:
    parts = name.split(".")
    bridges = [part for part in parts[1:2] if part in BRIDGES]
    return [*bridges, *(["sklearn"] if name in WITH_ESTIMATORS else [])]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.peer] * bool(packages_of(name))) for name in MODULES],
)
def test_examples_of_docstrings(name: str) -> None:
    for package in packages_of(name):
        pytest.importorskip(package)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def readme_blocks() -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    assert blocks
    return blocks


def test_examples_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    alone = [b for b in readme_blocks() if not re.search(rf"\b({'|'.join(BRIDGES)})\b", b)]
    exec(compile("\n".join(alone), "README.md", "exec"), {})


@pytest.mark.peer
def test_all_examples_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for bridge in BRIDGES:
        pytest.importorskip(bridge)
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(readme_blocks()), "README.md", "exec"), {})


COMPILED = sorted(path.stem for path in (CHECKOUT / "fastlstm/_core").glob("*.pyx"))


def test_stubs_match_what_is_compiled(tmp_path: Path) -> None:
    """mypy's stubtest; it reads the stubs of the checkout and imports what is installed."""
    allowed = tmp_path / "allowlist"  # what Cython adds to modules and classes
    allowed.write_text(".*__(reduce_cython|setstate_cython|test|pyx_capi)__\n")
    modules = [f"fastlstm._core.{name}" for name in COMPILED]
    command = [sys.executable, "-m", "mypy.stubtest", *modules, "--allowlist", str(allowed)]
    command += ["--mypy-config-file", "pyproject.toml"]  # of packages that may not be installed
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_stubs_are_installed() -> None:
    assert {f"{name}.pyi" for name in COMPILED} <= set(os.listdir(FOLDER / "_core"))
    assert "py.typed" in os.listdir(FOLDER)


def test_import_needs_numpy_alone() -> None:
    code = "import numpy, sys; before = set(sys.modules); import fastlstm; "
    code += "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    installed = set(importlib.metadata.packages_distributions()) - {"fastlstm", "numpy"}
    assert set(run.stdout.split()) & installed == set()


ALIGNED = ("fl_share", "fl_team")


@pytest.mark.parametrize("path", sorted((CHECKOUT / "fastlstm").rglob("*.p[yx][xd]")), ids=str)
def test_objects_hold_no_aligned_structs(path: Path) -> None:
    """Memory of a Python object is aligned to 16 bytes, and these want whole cache lines.

    A compiler that is told to use wide vectors (-march=native) stores to them as if it were so.
    """
    text = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
    for body in re.findall(r"^cdef class .*?(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE):
        members = re.findall(r"^    cdef (?:readonly )?(\w+) (?!\*)", body, re.MULTILINE)
        assert not set(members) & set(ALIGNED), body.splitlines()[0]
