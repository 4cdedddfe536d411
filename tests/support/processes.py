"""Fresh processes, and what tests of processes and threads need."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from fastlstm._core import library
from support.checkout import CHECKOUT

needs_openmp = pytest.mark.skipif(not library.has_openmp(), reason="built without OpenMP")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def python(code: str, **environment: str | None) -> str:
    """What a fresh process prints within 60 seconds; variables that are None are not set."""
    return _printed(["-c", code], environment, timeout=60).strip()


def script(path: str, *arguments: str, **environment: str) -> str:
    """What a script of the checkout prints."""
    return _printed([str(CHECKOUT / path), *arguments], environment)


def _printed(
    arguments: list[str], environment: Mapping[str, str | None], timeout: int | None = None
) -> str:
    variables = {**os.environ, **environment}
    run = subprocess.run(
        [sys.executable, *arguments],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
