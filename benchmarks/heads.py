"""Losses of heads, with gradients, and decoding: fastlstm beside torch and pytorch-crf, in turns.

    python benchmarks/heads.py
    python benchmarks/heads.py --threads 1 --dtype float64

Both have the same numbers, in one process, and are called in turns, with each number of threads;
medians are printed, and how far the gradients are from those of fastlstm in float64.  CTC is
``log_softmax`` and ``ctc_loss`` of torch, the CRF is that of pytorch-crf (pip install pytorch-crf).
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torchcrf

import fastlstm
from fastlstm.heads import CRF, ctc_loss

BATCH = 32
CRF_SIZES = [(100, 10), (400, 10), (100, 50), (400, 50)]  # T, K
CTC_SIZES = [(100, 30, 20), (400, 30, 50), (100, 100, 20), (400, 100, 50)]  # T, K, S


class Case(NamedTuple):
    """Calls that compute the same; each returns an array to compare."""

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    exact: Callable[[], Any]
    """Ours in float64, for the same numbers."""


def crf_cases(dtype: str, T: int, K: int) -> list[Case]:
    """Loss with all gradients, and the best path."""
    rng = np.random.default_rng(0)
    ours, exact = CRF(K, dtype=dtype, seed=0), CRF(K, dtype="float64")
    exact.load_state_dict(ours.state_dict())
    theirs = torchcrf.CRF(K).to(getattr(torch, dtype))
    names = {"transitions": "transitions", "start": "start_transitions", "end": "end_transitions"}
    with torch.no_grad():
        for name, other in names.items():
            getattr(theirs, other).copy_(torch.tensor(ours.parameters[name]))
    emissions = rng.standard_normal((T, BATCH, K)).astype(dtype)
    tags = rng.integers(0, K, (T, BATCH))
    x, y = torch.tensor(emissions, requires_grad=True), torch.tensor(tags)

    def their_loss() -> Any:
        x.grad = None
        theirs.zero_grad()
        (-theirs(x, y, reduction="sum")).backward()
        return x.grad.numpy()

    size = f"T = {T}, K = {K}"
    return [
        Case(
            f"CRF loss, {size}",
            lambda: ours.loss(emissions, tags)[1],
            their_loss,
            lambda: exact.loss(emissions.astype(np.float64), tags)[1],
        ),
        Case(
            f"CRF decode, {size}",
            lambda: np.stack(ours.decode(emissions)),
            lambda: np.array(theirs.decode(x.detach())),
            lambda: np.stack(exact.decode(emissions.astype(np.float64))),
        ),
    ]


def ctc_cases(dtype: str, T: int, K: int, S: int) -> list[Case]:
    """Loss and gradient."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((T, BATCH, K)).astype(dtype)
    targets, lengths, counts = (
        rng.integers(1, K, (BATCH, S)),
        np.full(BATCH, T),
        np.full(BATCH, S),
    )
    x = torch.tensor(logits, requires_grad=True)
    arguments = [torch.tensor(a) for a in (targets, lengths, counts)]

    def their_loss() -> Any:
        x.grad = None
        loss = torch.nn.functional.ctc_loss(x.log_softmax(2), *arguments, reduction="sum")
        loss.backward()
        return x.grad.numpy()

    def our_loss(logits: Any) -> Any:
        return ctc_loss(logits, targets, lengths, counts)[1]

    name, exact = f"CTC loss, T = {T}, K = {K}, S = {S}", logits.astype(np.float64)
    return [Case(name, lambda: our_loss(logits), their_loss, lambda: our_loss(exact))]


def seconds(call: Callable[[], Any]) -> float:
    """Of one call: the threads of the other one have gone to sleep, its own are awake."""
    time.sleep(0.03)
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    fastlstm.set_num_threads(threads)


def medians(case: Case, threads: list[int], rounds: int) -> list[float]:
    """Of torch and of fastlstm with each number of threads, all in turns."""
    times: list[list[float]] = [[] for _ in threads for _ in range(2)]
    for _ in range(rounds):
        for i, number in enumerate(threads):
            set_threads(number)
            times[2 * i].append(seconds(case.theirs))
            times[2 * i + 1].append(seconds(case.ours))
    return [statistics.median(found) for found in times]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="(1 2)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--rounds", type=int, default=15, help="calls of each (15)")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "where received a uint8")  # of pytorch-crf
    print(f"{args.dtype}, B = {BATCH}; {fastlstm.isas()[0]}; ms")
    columns = "".join(f" torch, {n} | fastlstm | ratio |" for n in args.threads)
    print(f"| threads: |{columns} error: torch | fastlstm |")
    print("|---|" + "---:|" * (3 * len(args.threads) + 2))
    cases = [case for size in CRF_SIZES for case in crf_cases(args.dtype, *size)]
    cases += [case for size in CTC_SIZES for case in ctc_cases(args.dtype, *size)]
    for case in cases:
        exact = case.exact()
        errors = [np.abs(call() - exact).max() for call in (case.theirs, case.ours)]
        found = medians(case, args.threads, args.rounds)
        pairs = zip(found[::2], found[1::2], strict=True)
        text = "".join(
            f" {1e3 * theirs:.2f} | {1e3 * ours:.2f} | {theirs / ours:.0f}x |"
            for theirs, ours in pairs
        )
        print(f"| {case.name} |{text} {errors[0]:.0e} | {errors[1]:.0e} |", flush=True)


if __name__ == "__main__":
    main()
