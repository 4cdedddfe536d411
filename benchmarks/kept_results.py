"""What a loop that keeps its last result pays for memory, with the memory kept and without.

    python benchmarks/kept_results.py

"dropped": the results of a call are gone before the next one; "kept": they live until those of the
next call take their names, as in every loop with `y = lstm(x)`.  Each is measured in processes of
its own, by turns with FASTLSTM_KEEP_MEMORY as it is (on) and 0 (off), because the C library learns
from what a process has freed.  Milliseconds, medians of single calls; the input is as wide as the
layer, float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

import fastlstm

STEPS = {"forward": 60, "forward, backward": 50, "forward, backward, Adam": 50}
VARIABLE = "FASTLSTM_KEEP_MEMORY"
SETTINGS = {"on": None, "off": "0"}  # its values


def call_of(work: str, hidden: int, batch: int) -> Callable[[], Sequence[object]]:
    """What is measured; it returns all that a loop would keep."""
    lstm = fastlstm.LSTM(hidden, hidden, seed=0)
    adam = fastlstm.optim.Adam(lstm.parameters)
    shape = (STEPS[work], batch, hidden)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def train() -> Sequence[object]:
        y, state, tape = lstm.forward(x)
        results = lstm.backward(tape, y)
        if work.endswith("Adam"):
            adam.step(results[2])
        return y, state, tape, results

    return (lambda: lstm(x)) if work == "forward" else train


def times(call: Callable[[], Sequence[object]], keep: bool, calls: int) -> list[float]:
    """Of single calls, in milliseconds; letting go of what was kept is part of a call."""
    found, kept = [], None
    for _ in range(calls + 5):
        start = time.perf_counter()
        results: object = call()
        kept = results if keep else None
        del results
        found.append((time.perf_counter() - start) * 1e3)
    del kept
    return found[5:]


def measured(arguments: Sequence[str], setting: str | None) -> list[float]:
    """What a process of its own prints with these arguments."""
    environment = {**os.environ} if setting is None else {**os.environ, VARIABLE: setting}
    command = [sys.executable, __file__, *arguments]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: list[float] = json.loads(run.stdout)
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=256, help="size of the layer")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", default="1,2", help="numbers of them")
    parser.add_argument("--turns", type=int, default=3, help="processes for each number")
    parser.add_argument("--calls", type=int, default=15, help="in each process")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)  # what such a process measures
    args = parser.parse_args()
    if args.only:
        work, how = args.only
        fastlstm.set_num_threads(int(args.threads))
        print(json.dumps(times(call_of(work, args.hidden, args.batch), how == "kept", args.calls)))
        return
    fastlstm.show_config()
    print(f"\nH = {args.hidden}, B = {args.batch}; milliseconds, median\n")
    columns = [(how, name) for how in ("dropped", "kept") for name in SETTINGS]
    print(f"| | T | threads | {' | '.join(f'{how}, {name}' for how, name in columns)} |")
    print(f"|---|---:|---:|{'---:|' * len(columns)}")
    sizes = ["--hidden", str(args.hidden), "--batch", str(args.batch), "--calls", str(args.calls)]
    for work, steps in STEPS.items():
        for threads in args.threads.split(","):
            found: dict[tuple[str, str], list[float]] = {column: [] for column in columns}
            for _ in range(args.turns):
                for how, name in columns:
                    only = ["--threads", threads, "--only", work, how]
                    found[how, name] += measured([*sizes, *only], SETTINGS[name])
            cells = [f"{np.median(values):.2f}" for values in found.values()]
            print(f"| {work} | {steps} | {threads} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
