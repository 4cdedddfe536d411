"""What shards cost one process, and what many would take: measured steps, calculated networks.

    python benchmarks/scale_out.py

The first table is measured: a step of a language model (gradients, their sum, clipping, Adam)
with shards over one without, by turns; and `forward` and `backward` of a layer alone.  The second
is a calculation: a process of P computes the rows it has of a batch, a step that is measured here
in one process; to this are added the bytes that `Group.sum` sends, at the network's rate, and a
latency for each message.  Assumed: every process has a link of its own with that rate both ways,
sends while it computes nothing, and all are equally fast; a message takes 30 microseconds.
Nothing of it was measured on a network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastlstm
from fastlstm.distributed import Group, Shards, alone
from fastlstm.models import LanguageModel
from fastlstm.optim import Adam, clip_grad_norm

CHARACTERS, STEPS = 100, 64
MODELS = {"256": (256, 1), "512": (512, 1), "2 x 512": (512, 2)}
LAYERS = (256, 512)
GIGABITS, MESSAGE = (1, 10, 100), 30e-6


class Silent(Group):
    """A process of a group that adds what it would get, and counts what it would send."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.sent, self.messages = rank, size, 0, 0

    def check(self, settings: Any) -> None:
        """There is nobody to differ from."""

    def _alltoall(
        self, send: Any, sent: Sequence[int], receive: Any, received: Sequence[int]
    ) -> None:
        receive[...] = 0
        self.sent += sum(sent) - sent[self.rank]
        self.messages += self.size - 1

    def _allgather(self, send: Any, receive: Any) -> None:
        receive[...] = 0
        self.sent += (self.size - 1) * send.nbytes
        self.messages += self.size - 1

    def _broadcast(self, buffer: Any) -> None:
        raise NotImplementedError


def step_of(name: str, shards: Shards | None, rows: int, group: Group | None) -> Callable[[], None]:
    """A step of training with so many rows."""
    hidden, layers = MODELS[name]
    alphabet = "".join(chr(32 + i) for i in range(CHARACTERS))
    model = LanguageModel(alphabet, hidden_size=hidden, num_layers=layers, seed=0)
    optimizer = Adam(model.trainable, 1e-3)
    codes = np.random.default_rng(0).integers(0, CHARACTERS, (STEPS + 1, rows))

    def step() -> None:
        grads: Any
        if shards is None or group is None:
            _, grads, _ = model.gradients(codes[:-1], codes[1:], None)
        else:
            _, of_shards, _ = model.shard_gradients(codes[:-1], codes[1:], None, shards)
            grads = group.sum(of_shards)
        clip_grad_norm(grads, 1.0)
        optimizer.step(grads)

    return step


def layer_step(hidden: int, shards: Shards | None, rows: int) -> Callable[[], None]:
    """Forward and backward of a layer whose input is as wide as it is."""
    layer = fastlstm.LSTM(hidden, hidden, seed=0)
    x = np.random.default_rng(0).standard_normal((STEPS, rows, hidden), dtype=np.float32)

    def step() -> None:
        y, _, tape = layer.forward(x, shards=shards)
        layer.backward(tape, y)

    return step


def medians(calls: dict[Any, Callable[[], None]], seconds: float) -> dict[Any, list[float]]:
    """Times of each, taken by turns."""
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def cost_of_shards(seconds: float) -> None:
    counts, batch = (None, 1, 4, 8, 16), 64
    print(f"\n| batch of {batch} | one, ms | {' | '.join(f'{n} shards' for n in counts[1:])} |")
    print("|---|---:|" + "---:|" * (len(counts) - 1))
    layers = {f"layer of {hidden}": hidden for hidden in LAYERS}
    for name in (*layers, *MODELS):
        calls: dict[Any, Callable[[], None]] = {}
        for count in counts:
            shards = Shards(batch, count) if count else None
            if name in layers:
                calls[count] = layer_step(layers[name], shards, batch)
            else:
                calls[count] = step_of(name, shards, batch, alone())
        times = medians(calls, seconds)
        ratios = [np.median(np.divide(times[n], times[None])) for n in counts[1:]]
        texts = [f"{1e3 * np.median(times[None]):.1f}", *(f"{ratio:.3f}" for ratio in ratios)]
        print(f"| {name} | {' | '.join(texts)} |", flush=True)


def rows_of_processes(name: str, batch: int, count: int, seconds: float) -> None:
    """A row for each number of processes; the first one is without shards."""
    calls, sent = {0: step_of(name, None, batch, None)}, {0: (0, 0)}
    for size in (1, 2, 4, 8, 16, 32, 64):
        group = Silent(0, size)
        shards = group.shards(batch, count)
        calls[size] = step_of(name, shards, shards.rows.stop, group)
        calls[size]()
        sent[size] = group.sent, group.messages
    times = {size: float(np.median(found)) for size, found in medians(calls, seconds).items()}
    for size, own in times.items():
        numbers, messages = sent[size]
        who = f"{size} | {batch // size}" if size else f"1, no shards | {batch}"
        texts = [f"{name} | {who} | {1e3 * own:.1f} | {numbers / 1e6:.1f}"]
        for gigabits in GIGABITS:
            whole = own + numbers * 8 / (gigabits * 1e9) + messages * MESSAGE
            texts.append(f"{1e3 * whole:.0f} ({times[0] / whole:.1f}x)")
        print(f"| {' | '.join(texts)} |", flush=True)


def processes(args: argparse.Namespace) -> None:
    heads = " | ".join(f"{gigabits} GbE, ms" for gigabits in GIGABITS)
    print(f"\nA batch of {args.batch} rows in {args.shards} shards, calculated:\n")
    print(f"| model | processes | rows | own, ms | sent, MB | {heads} |")
    print(f"|---|---:|---:|---:|---:|{'---:|' * len(GIGABITS)}")
    for name in ("256", "2 x 512"):
        rows_of_processes(name, args.batch, args.shards, 2 * args.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8, help="of measurement for each row")
    parser.add_argument("--table", choices=["cost", "processes", "both"], default="both")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256, help="rows, of the second table")
    parser.add_argument("--shards", type=int, default=64, help="of the second table")
    args = parser.parse_args()
    fastlstm.set_num_threads(args.threads)
    fastlstm.show_config()
    print(f"\nA step of {STEPS} characters a row, threads: {args.threads}")
    if args.table != "processes":
        cost_of_shards(args.seconds)
    if args.table != "cost":
        processes(args)


if __name__ == "__main__":
    main()
