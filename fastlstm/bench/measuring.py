"""Measuring a case: the engines in turns, the machine's limits beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.bench import limits
from fastlstm.bench.cases import Array, Case
from fastlstm.bench.peers import ENGINES, OURS, as_run
from fastlstm.bench.worker import EngineError, Worker

# How far off the results of other engines may be, relative to the largest value, or to 1 if that is
# less and weights are float32.  With fewer bits, engines round differently.  int8 moves a weight or
# an input by up to 1/254 of the largest in its row, torch's inputs by twice that, and the hidden
# state carries it on: two engines are 5% apart after 100 steps of 256 units.  bfloat16 moves a
# weight by up to 1/512 of itself, float16 by 1/4096.
TOLERANCES = {"float32": 1e-4, "int8": 0.1, "bfloat16": 2e-2, "float16": 2e-3}


@dataclass(frozen=True)
class Plan:
    """How much to measure, for each engine and case."""

    calls: int = 2000  # ten times as many for a single step: its 99.9th percentile is reported
    seconds: float = 1.0
    rounds: int = 5
    warm: float = 0.02  # seconds before each turn: wakes threads, fills caches


QUICK = Plan(calls=200, seconds=0.1, rounds=2, warm=0.005)


def measure(case: Case, threads: int, workers: dict[str, Worker], plan: Plan) -> dict[str, Any]:
    """Measure a case with every engine that can do it.

    Each round measures every engine for a part of its time, a different one first, so that a
    drift of the machine's speed meets all of them.

    Returns
    -------
    dict
        A row of the results.  An engine that failed, or whose results differ from those of
        fastlstm, has the text "error" instead of times.

    Raises
    ------
    EngineError
        If fastlstm itself failed.
    """
    expected = workers[OURS].prepare(case)
    engines: dict[str, Any] = {OURS: []}
    for name, worker in workers.items():
        if name != OURS and case.work in ENGINES[name].works:
            try:
                got = worker.prepare(as_run(name, case))
                _compare(name, got, expected, case.weights_dtype)
                engines[name] = []
            except EngineError as error:
                engines[name] = {"error": str(error)}
    level = limits.level_for(case, threads)
    rates: dict[str, list[float]] = {kind: [] for kind in ("fma", level) if kind}
    ready = [name for name, times in engines.items() if isinstance(times, list)]
    for number in range(plan.rounds):
        first = number % len(ready)
        for name in ready[first:] + ready[:first]:
            _take_turn(engines, workers[name], case, plan)
        for kind, values in rates.items():
            values.append(workers[OURS].limit(kind, threads))
    measured = {kind: float(np.median(values)) for kind, values in rates.items()}
    return {
        "work": case.work,
        "layers": case.layers,
        "input": case.input,
        "hidden": case.hidden,
        "batch": case.batch,
        "steps": case.steps,
        "threads": threads,
        **_shares(case, float(np.median(np.concatenate(engines[OURS]))), measured, level),
        "engines": {
            name: _statistics(np.concatenate(times), case) if isinstance(times, list) else times
            for name, times in engines.items()
        },
    }


def _take_turn(engines: dict[str, Any], worker: Worker, case: Case, plan: Plan) -> None:
    if not isinstance(engines[worker.name], list):
        return  # it failed in an earlier round
    calls = plan.calls * (10 if case.steps == 1 else 1)
    try:
        times = worker.turn(-(-calls // plan.rounds), plan.seconds / plan.rounds, plan.warm)
        engines[worker.name].append(times)
    except EngineError as error:
        if worker.name == OURS:
            raise
        engines[worker.name] = {"error": str(error)}


def _compare(name: str, got: list[list[Array]], expected: list[list[Array]], weights: str) -> None:
    """Make sure that a peer computes the same thing."""
    for call, ours in zip(got, expected, strict=True):
        for a, b in zip(call, ours, strict=True):
            if a.shape != b.shape:
                raise EngineError(f"{name}: shape {a.shape} where fastlstm has {b.shape}")
            largest = max(1.0 if weights == "float32" else 1e-30, float(np.abs(b).max()))
            off = float(np.abs(a - b).max()) / largest
            if not off <= TOLERANCES[weights]:
                raise EngineError(f"{name}: results are {off:.1g} off those of fastlstm")


def _statistics(seconds: NDArray[np.float64], case: Case) -> dict[str, float | int]:
    """Median, quartiles and, of single steps, high percentiles, in microseconds."""
    names = {"median_us": 50.0, "q1_us": 25.0, "q3_us": 75.0}
    if case.steps == 1:
        names |= {"p99_us": 99.0, "p999_us": 99.9}
    values = np.percentile(seconds * 1e6, list(names.values()))
    return {
        **{name: round(float(value), 4) for name, value in zip(names, values, strict=True)},
        "calls": seconds.size,
    }


def _shares(
    case: Case, seconds: float, rates: dict[str, float], level: str | None
) -> dict[str, Any]:
    """fastlstm beside the machine's limits, which were measured in the same seconds."""
    row: dict[str, Any] = {
        "gflops": round(case.operations / seconds / 1e9, 3),
        "fma_gflops": round(rates["fma"] / 1e9, 3),
    }
    if case.weights_dtype != "int8":  # which is not multiplied at that rate
        row["fma_share"] = round(case.operations / seconds / rates["fma"], 4)
    if level:
        least = limits.floor(case, rates["fma"], rates[level])
        row |= {
            "weights_in": level,
            "read_gb_per_s": round(rates[level] / 1e9, 3),
            "floor_us": round(least * 1e6, 4),
            "floor_share": round(least / seconds, 4),
        }
    return row
