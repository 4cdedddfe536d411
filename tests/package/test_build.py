"""Building the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.peer
def test_without_a_compiler_one_line_says_what_to_install(tmp_path: Path) -> None:
    for needed in ("setuptools", "Cython"):
        pytest.importorskip(needed)
    result = subprocess.run(
        [sys.executable, "setup.py", "build_ext", f"--build-temp={tmp_path}", f"-b{tmp_path}"],
        cwd=CHECKOUT,
        env=os.environ | {"CC": "/no/compiler"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(
        "fastlstm is written in C: install a C compiler and the headers of Python"
    )
    assert "Traceback" not in result.stderr
