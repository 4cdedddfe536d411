"""What `busy.py` measures, in a process of its own.

    python benchmarks/busy_worker.py ENGINE PARTS

PARTS is JSON: a list of what a call does, one after the other, each a kind of work and its sizes.
Nobody sets threads here: they are those that the library takes by itself.  Nothing is imported
from this checkout, so that any Python can be asked whose fastlstm has these parts of
`fastlstm.bench`.  Answers are lines of JSON: one when everything is ready, and one for every turn
that stdin asks for.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastlstm
from fastlstm import optim
from fastlstm.bench.cases import Case
from fastlstm.bench.peers import Work
from fastlstm.bench.peers.fastlstm import FastLSTM
from fastlstm.bench.peers.torch import Torch
from fastlstm.bench.worker import _time_calls, _wait_for_sleep

LR = 1e-6  # weights stay about what they are, however many updates an engine makes


class Ours(FastLSTM):
    """fastlstm, with its default threads or those of FASTLSTM_NUM_THREADS."""

    def __init__(self) -> None:
        pass  # the base would set the number of threads

    def about(self) -> dict[str, Any]:
        """What a heading says."""
        return {"version": fastlstm.__version__, "threads": fastlstm.get_num_threads()}

    def update(self, case: Case) -> Work:
        """A training step: forward, backward, Adam."""
        lstm, x, dy = case.layer(), case.x(), case.dy()
        adam = optim.Adam(lstm.parameters, LR)

        def step() -> Any:
            y, _, tape = lstm.forward(x)
            _, _, grads = lstm.backward(tape, dy)
            adam.step(grads)
            return y

        return Work(step, lambda y: [y])


class Theirs(Torch):
    """torch, with its default threads."""

    def __init__(self) -> None:
        self._torch = importlib.import_module("torch")

    def about(self) -> dict[str, Any]:
        """What a heading says."""
        return {"version": self._torch.__version__, "threads": self._torch.get_num_threads()}

    def update(self, case: Case) -> Work:
        """A training step: forward, backward, Adam."""
        torch = self._torch
        module = torch.nn.LSTM(case.input, case.hidden, case.layers)
        module.load_state_dict({name: torch.tensor(w) for name, w in case.weights().items()})
        x, dy = torch.tensor(case.x()).requires_grad_(), torch.tensor(case.dy())
        adam = torch.optim.Adam(module.parameters(), LR)

        def step() -> Any:
            y, _ = module(x)
            x.grad = None  # fastlstm computes that of x, too
            adam.zero_grad()
            y.backward(dy)
            adam.step()
            return y

        return Work(step, lambda y: [y.detach().numpy()])


ENGINES: dict[str, type[Ours] | type[Theirs]] = {"fastlstm": Ours, "torch": Theirs}


def grid_search(jobs: int, fits: int) -> Work:
    """A search of scikit-learn; its results are the scores."""
    from sklearn.model_selection import GridSearchCV

    from fastlstm.sklearn import LSTMClassifier

    folds = 3
    rng = np.random.default_rng(0)
    x = rng.standard_normal((240, 20, 8), np.float32)
    y = (x[:, :, 0].sum(1) > 0).astype(int)
    model = LSTMClassifier(max_iter=10, random_state=0)
    rates = [0.01 / (1 + n) for n in range(fits // folds)]
    search = GridSearchCV(model, {"learning_rate": rates}, cv=folds, n_jobs=jobs, refit=False)
    return Work(lambda: search.fit(x, y), lambda s: [s.cv_results_["mean_test_score"]])


def prepare(engine: Ours | Theirs, part: list[Any]) -> Work:
    """A part of a call."""
    work, *sizes = part
    if work == "grid":
        return grid_search(*sizes)
    case = Case(work, *sizes)
    return engine.update(case) if work == "update" else engine.prepare(case)


def paced(call: Callable[[], None], seconds: float, period: float) -> tuple[list[int], int]:
    """Nanoseconds of calls, one in every period, and how many were late.

    Late: not done a period after its time, be it that an earlier call took too long, or that the
    process did not get a processor.  What is overdue is called for at once, and the rest left out
    after three times the seconds.
    """
    clock, every = time.perf_counter_ns, int(period * 1e9)
    times: list[int] = []
    late, begin = 0, clock()
    while len(times) < max(1.0, seconds / period):
        due = begin + len(times) * every
        time.sleep(max(0, due - clock()) / 1e9)
        start = clock()
        call()
        stop = clock()
        times.append(stop - start)
        late += stop - due > every
        if stop - begin > 3e9 * seconds:
            break
    return times, late


def turn(call: Callable[[], None], seconds: float, warm: float, period: float) -> dict[str, Any]:
    """Measure calls, one after the other or each in its period, after some that do not count."""
    gc.collect()
    gc.disable()
    if warm:
        _time_calls(call, sys.maxsize, warm)
    start, used, late = time.perf_counter(), time.process_time(), 0
    if period:
        times, late = paced(call, seconds, period)
    else:
        times = _time_calls(call, sys.maxsize, seconds)
    used, passed = time.process_time() - used, time.perf_counter() - start
    gc.enable()
    _wait_for_sleep()
    return {"ms": [ns / 1e6 for ns in times], "late": late, "processors": used / passed}


def main() -> None:
    """Prepare, make a first call, and measure when asked."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    engine = ENGINES[sys.argv[1]]()
    works = [prepare(engine, part) for part in json.loads(sys.argv[2])]

    def call() -> None:
        for work in works:
            with work.mode():
                work.call()

    first = []
    for work in works:
        with work.mode():
            first.append(float(np.abs(work.arrays(work.call())[0]).mean()))
    _wait_for_sleep()
    print(json.dumps({**engine.about(), "first": first}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(call, **json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
