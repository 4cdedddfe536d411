"""What ``fastlstm.torch.replace`` gains: whole training steps of torch models, and inference.

    python benchmarks/torch_bridge.py --threads 1

The models are torch's, with torch's losses and optimizer; only who computes their LSTM differs.  A
step is everything: forward, backward, clipping, Adam.  Each engine has a process of its own; they
are measured in turns, so that neither has a better machine, and the medians of all steps are
printed.  A thread count is that of torch and of fastlstm, each with threads of its own.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import fastlstm

VOCABULARY, CLASSES, BATCH, STEPS = 5000, 5, 32, 100


class Classifier:
    """Tokens, embedding, LSTMs, the last hidden states, a class."""

    def __init__(self, torch: Any, engine: str, hidden: int, options: dict[str, Any]) -> None:
        torch.manual_seed(0)
        self.torch, nn = torch, torch.nn
        directions = 2 if options.get("bidirectional") else 1
        self.embedding = nn.Embedding(VOCABULARY, 64)
        self.lstm = nn.LSTM(64, hidden, **options)
        self.head = nn.Linear(directions * hidden, CLASSES)
        self.parts = nn.ModuleList([self.embedding, self.lstm, self.head])
        if engine == "fastlstm":
            from fastlstm.torch import replace

            replace(self.parts)
        self.optimizer = torch.optim.Adam(self.parts.parameters(), 1e-3)
        self.targets = torch.randint(CLASSES, (BATCH,))
        self.directions = directions

    def tokens(self) -> Any:
        """A batch, all rows of the same length."""
        return self.torch.randint(VOCABULARY, (STEPS, BATCH))

    def lengths(self) -> Any:
        """Of the rows of a ragged batch: from 1 to twice the mean."""
        return self.torch.randint(1, 2 * STEPS, (BATCH,))

    def logits(self, packed: bool) -> Any:
        """Of a new batch."""
        if packed:
            lengths = self.lengths()
            x = self.embedding(self.torch.randint(VOCABULARY, (int(lengths.max()), BATCH)))
            pack = self.torch.nn.utils.rnn.pack_padded_sequence
            x = pack(x, lengths, enforce_sorted=False)
        else:
            x = self.embedding(self.tokens())
        _, (h_n, _) = self.lstm(x)
        return self.head(self.torch.cat(list(h_n[-self.directions :]), dim=1))

    def train(self, packed: bool) -> float:
        """One step on a new batch."""
        functional, utils = self.torch.nn.functional, self.torch.nn.utils
        loss = functional.cross_entropy(self.logits(packed), self.targets)
        self.optimizer.zero_grad()
        loss.backward()
        utils.clip_grad_norm_(self.parts.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def infer(self, packed: bool) -> float:
        """Logits of a new batch, without gradients."""
        with self.torch.inference_mode():
            return float(self.logits(packed).sum())


BOTH_WAYS = {"num_layers": 2, "bidirectional": True}
CASES: dict[str, tuple[int, dict[str, Any], str, bool]] = {
    "train, H=64": (64, {}, "train", False),
    "train, H=256": (256, {}, "train", False),
    "train, H=128, L=2, both ways": (128, BOTH_WAYS, "train", False),
    "train packed, H=64": (64, {}, "train", True),
    "train packed, H=256": (256, {}, "train", True),
    "train packed, H=128, L=2, both ways": (128, BOTH_WAYS, "train", True),
    "infer, H=256": (256, {}, "infer", False),
    "infer packed, H=256": (256, {}, "infer", True),
}
ENGINES = ["torch", "fastlstm"]


def work(engine: str, threads: int) -> None:
    """Measure: names of cases and seconds from stdin; the times of calls and a check to stdout."""
    import torch

    torch.set_num_threads(threads)
    fastlstm.set_num_threads(threads)
    calls: dict[str, Callable[[], float]] = {}
    for line in sys.stdin:
        name, seconds = json.loads(line)
        first = name not in calls
        if first:
            hidden, options, method, packed = CASES[name]
            model = Classifier(torch, engine, hidden, options)
            calls[name] = functools.partial(getattr(model, method), packed)
        call = calls[name]
        torch.manual_seed(1)
        values = [call() for _ in range(3)] if first else []
        call()
        times: list[float] = []
        while sum(times) < seconds or len(times) < 3:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        print(json.dumps({"times": times, "values": values}), flush=True)


def measure(threads: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Medians in seconds, by case and engine."""
    command = [sys.executable, __file__, "--threads", str(threads), "--engine"]
    workers = {
        engine: subprocess.Popen(
            [*command, engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for engine in ENGINES
    }
    times: dict[str, dict[str, list[float]]] = {n: {e: [] for e in ENGINES} for n in CASES}
    for turn in range(rounds):
        for name in CASES:
            values = {}
            for engine in ENGINES[:: 1 if turn % 2 else -1]:
                worker = workers[engine]
                assert worker.stdin
                assert worker.stdout
                print(json.dumps([name, seconds / rounds]), file=worker.stdin, flush=True)
                found = json.loads(worker.stdout.readline())
                times[name][engine] += found["times"]
                values[engine] = found["values"]
                time.sleep(0.05)  # until the threads of this engine sleep
            for a, b in zip(*values.values(), strict=True):
                if abs(a - b) > 1e-3:
                    raise SystemExit(f"{name}: the engines do not agree, {values}")
    for worker in workers.values():
        worker.communicate()
    return {
        name: {engine: statistics.median(found) for engine, found in at.items()}
        for name, at in times.items()
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="in which each case is measured")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case and engine")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine:
        work(args.engine, args.threads)
        return
    found = measure(args.threads, args.rounds, args.seconds)
    print(f"B = {BATCH}, T = {STEPS} (packed: 1 to {2 * STEPS - 1}); threads: {args.threads}")
    print(f"{'ms':36} {'torch':>8} {'fastlstm':>9} {'ratio':>6}")
    for name, at in found.items():
        ms = {engine: 1000 * seconds for engine, seconds in at.items()}
        ratio = ms["torch"] / ms["fastlstm"]
        print(f"{name:36} {ms['torch']:8.2f} {ms['fastlstm']:9.2f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
