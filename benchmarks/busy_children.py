"""The processes that `busy.py` starts: some that keep processors busy, some that are measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fastlstm.bench.worker import EngineError

COUNT = """
import os, sys
parent = int(sys.argv[1])
print(flush=True)
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that compute; they end with the block, or with this process."""
    command = [sys.executable, "-I", "-S", "-c", COUNT, str(os.getpid())]
    with ExitStack() as stack:
        for _ in range(count):
            # A group of its own: Ctrl-C is for this process.
            process = subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout
            process.stdout.readline()  # it runs
        yield


class Worker:
    """`busy_worker.py` in a process of its own, with the threads that `settings` give it."""

    def __init__(
        self, name: str, python: str, engine: str, parts: Any, settings: dict[str, str]
    ) -> None:
        self.name = name
        script = Path(__file__).with_name("busy_worker.py")
        self._process = subprocess.Popen(
            [python, "-P", str(script), engine, json.dumps(parts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={k: v for k, v in os.environ.items() if not sets_threads(k)} | settings,
            process_group=0,  # Ctrl-C is for this process
        )
        self.about = self._answer()

    def turn(self, seconds: float, warm: float, period: float) -> dict[str, Any]:
        """Measure now."""
        assert self._process.stdin
        try:
            message = json.dumps({"seconds": seconds, "warm": warm, "period": period})
            print(message, file=self._process.stdin, flush=True)
        except OSError as error:
            raise EngineError(f"{self.name}: the process has ended") from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise EngineError(f"{self.name}: the process ended with status {status}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process and those that it started; in the middle of a turn, too."""
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=1)
        if self._process.returncode != 0:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


def sets_threads(name: str) -> bool:
    """Whether an environment variable sets numbers of threads."""
    return name.endswith(("_NUM_THREADS", "_THREAD_LIMIT"))
