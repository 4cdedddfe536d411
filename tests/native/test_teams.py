"""Teams without the driver: meetings and shared work, in C (`make teams` runs more of it)."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from mutants import CHECKOUT


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize("wait", ["plain", "portable"])
def test_meetings_and_shared_work(wait: str) -> None:
    """Workers are delayed at random: nobody waits for ever, and every piece is done once."""
    program = f"build/team_test_{wait}"
    subprocess.run(["make", program], cwd=CHECKOUT, check=True, capture_output=True)
    done = subprocess.run([program, "1000"], cwd=CHECKOUT, capture_output=True, timeout=120)
    assert done.stdout.endswith(b"all met, and every piece was done once\n"), done.stdout
