"""What the tests of the command line share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

TEXT = "the cat sat on the mat, the dog lay on the log.\n" * 40
TINY = ["--hidden", "8", "--embedding", "4", "--batch-size", "4", "--chunk", "8"]
Run = Callable[..., tuple[int, str, str]]


def in_a_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastlstm", *map(str, arguments)]
    return subprocess.run(command, text=True, timeout=60, check=False, **options)
