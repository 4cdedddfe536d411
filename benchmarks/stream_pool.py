"""What stepping k of 1,000 live streams takes: a StreamPool, k streams one by one, a batch.

    python benchmarks/stream_pool.py

The three are called in turns, so that none has a better machine, and the medians are of single
calls.  Slots are random ones, others at each call.  "one by one" steps k objects of `lstm.stream()`
in a loop, with `out`; "batch" is one stream of k rows that always are the same: what remains if
nothing has to be gathered or checked.  Inputs are as wide as the layer; float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import fastlstm

SIZES = (1, 8, 32, 256, 1000)
DIFFERENT = 16  # choices of slots


def calls_of(lstm: fastlstm.LSTM, capacity: int, k: int) -> dict[str, Callable[[int], object]]:
    """What is compared, each called with the number of the turn."""
    rng = np.random.default_rng(0)
    pool, streams = fastlstm.StreamPool(lstm, capacity), [lstm.stream() for _ in range(capacity)]
    for _ in range(capacity):
        pool.open()
    batch = lstm.stream(k)
    x = rng.standard_normal((k, lstm.input_size), dtype=np.float32)
    out = np.empty((k, lstm.hidden_size), np.float32)
    slots = [rng.permutation(capacity)[:k] for _ in range(DIFFERENT)]
    chosen = [
        [(streams[slot].step, x[row], out[row]) for row, slot in enumerate(some)] for some in slots
    ]

    def one_by_one(turn: int) -> None:
        for step, x_t, y_t in chosen[turn % DIFFERENT]:
            step(x_t, y_t)

    return {
        "pool": lambda turn: pool.step(x, slots[turn % DIFFERENT], out),
        "one by one": one_by_one,
        "batch": lambda turn: batch.step(x, out),
    }


def medians(calls: dict[str, Callable[[int], object]], seconds: float) -> dict[str, float]:
    """Of single calls, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    stop, turn = time.perf_counter() + seconds, 0
    while turn < 5 or time.perf_counter() < stop:
        for name, call in calls.items():
            call(turn)  # wakes threads, and brings the weights into the caches
            start = time.perf_counter()
            call(turn + 1)
            times[name].append(time.perf_counter() - start)
        turn += 1
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    """Measure, and print a table for each number of threads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", default="32,128,256", help="sizes of the layer")
    parser.add_argument("--capacity", type=int, default=1000, help="live streams")
    parser.add_argument("--threads", default="1,2", help="numbers of them")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row of the table")
    args = parser.parse_args()
    fastlstm.show_config()
    for threads in map(int, args.threads.split(",")):
        fastlstm.set_num_threads(threads)
        print(f"\n{args.capacity:,} live streams, threads: {threads}; microseconds, median\n")
        print("| units | k | pool | steps/s | one by one | | batch | |")
        print("|---:|---:|---:|---:|---:|---:|---:|---:|")
        for hidden in map(int, args.hidden.split(",")):
            lstm = fastlstm.LSTM(hidden, hidden, seed=0)
            for k in dict.fromkeys(min(k, args.capacity) for k in SIZES):
                found = medians(calls_of(lstm, args.capacity, k), args.seconds)
                pool, one, batch = (value * 1e6 for value in found.values())
                cells = [f"{hidden}", f"{k}", f"{pool:,.1f}", f"{k / pool * 1e6:,.0f}"]
                cells += [
                    f"{one:,.1f}",
                    f"{one / pool:.2f}x",
                    f"{batch:,.1f}",
                    f"{batch / pool:.2f}x",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
