"""Fresh processes, and what tests of processes and threads need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastlstm._core import library

needs_openmp = pytest.mark.skipif(not library.has_openmp(), reason="built without OpenMP")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def python(code: str, **environment: str) -> str:
    """What a fresh process prints; an answer must come within 60 seconds."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.strip()
