"""An engine in a process of its own.

Engines would disturb each other in one process: each loads its own OpenMP or thread pool, and JAX
takes its threads from the process as a whole.  A process says that it is done when its threads
sleep: after the last call they go on spinning, those of OpenMP for about 10 ms, those of ONNX
Runtime for about 40 ms, and would take a processor from the engine that is measured next.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.bench import limits, peers
from fastlstm.bench.cases import Array, Case


class EngineError(Exception):
    """An engine could not do what it was asked."""


class Worker:
    """Starts an engine in a new process and passes calls on to its `_Server`."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, threads), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process ends the waiting, too
        self._receive()

    def prepare(self, case: Case) -> list[list[Array]]:
        """Set a case up and return the arrays of its first call, or calls if it carries state."""
        arrays: list[list[Array]] = self._ask("prepare", case)
        return arrays

    def turn(self, calls: int, seconds: float, warm: float) -> NDArray[np.float64]:
        """Time up to so many calls, after calls for `warm` seconds that are not counted."""
        times: NDArray[np.float64] = self._ask("turn", calls, seconds, warm)
        return times

    def limit(self, kind: str, threads: int) -> float:
        """See `limits.measure`."""
        rate: float = self._ask("limit", kind, threads)
        return rate

    def _ask(self, *message: Any) -> Any:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise EngineError(f"{self.name}: the process has ended") from error
        return self._receive()

    def _receive(self) -> Any:
        try:
            done, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            status = self._process.exitcode
            raise EngineError(f"{self.name}: the process ended with status {status}") from None
        if not done:
            raise EngineError(f"{self.name}: {answer}")
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()


class _Server:
    """What a worker's process does."""

    def __init__(self, name: str, threads: int) -> None:
        self._engine = peers.start(name, threads)
        self._work: peers.Work | None = None
        self._clock = _clock_cost()

    def prepare(self, case: Case) -> list[list[Array]]:
        self._work = None  # free the memory of the case before
        work = self._work = self._engine.prepare(case)
        calls = range(3 if case.carries_state else 1)
        with work.mode():
            arrays = [[np.array(a) for a in work.arrays(work.call())] for _ in calls]
        _wait_for_sleep()
        return arrays

    def turn(self, calls: int, seconds: float, warm: float) -> NDArray[np.float64]:
        assert self._work is not None
        call = self._work.call
        gc.collect()
        gc.disable()
        with self._work.mode():
            _time_calls(call, calls, warm)
            times = _time_calls(call, calls, seconds)
        gc.enable()
        _wait_for_sleep()
        return np.maximum(np.array(times) - self._clock, 0) * 1e-9

    def limit(self, kind: str, threads: int) -> float:
        rate = limits.measure(kind, threads)
        _wait_for_sleep()
        return rate


def _serve(pipe: Any, name: str, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    os.dup2(2, 1)  # what a library prints is not part of the results
    try:
        server = _Server(name, threads)
        pipe.send((True, None))
    except Exception as error:
        pipe.send((False, _one_line(error)))
        return
    with contextlib.suppress(EOFError, OSError):
        while True:
            method, *arguments = pipe.recv()
            try:
                answer = True, getattr(server, method)(*arguments)
            except Exception as error:
                answer = False, _one_line(error)
            pipe.send(answer)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _time_calls(call: Any, calls: int, seconds: float) -> list[int]:
    """Nanoseconds of each call, the cost of the clock included; at least one call."""
    clock = time.perf_counter_ns
    times = []
    end = clock() + int(seconds * 1e9)
    for _ in range(calls):
        start = clock()
        call()
        stop = clock()
        times.append(stop - start)
        if stop > end:
            break
    return times


def _wait_for_sleep() -> None:
    """Wait until this process uses no processor, half a second at most."""
    for _ in range(50):
        before = time.process_time()
        time.sleep(0.01)
        if time.process_time() - before < 0.001:
            return


def _clock_cost() -> float:
    return float(np.median(_time_calls(lambda: None, 2000, 1.0)))
