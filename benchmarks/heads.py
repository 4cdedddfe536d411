"""Losses of heads, with gradients, and decoding: fastlstm beside torch and pytorch-crf, in turns.

    python benchmarks/heads.py --threads 1
    python benchmarks/heads.py --threads 2 --dtype float64

Both have the same numbers, in one process, and are called in turns; medians are printed.  CTC is
``log_softmax`` and ``ctc_loss`` of torch, the CRF is that of pytorch-crf (pip install pytorch-crf).
"""

from __future__ import annotations

import argparse
import functools
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
    """Two calls that compute the same; each returns an array to compare."""

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]


def crf_cases(dtype: str, T: int, K: int) -> list[Case]:
    """Loss with all gradients, and the best path."""
    rng = np.random.default_rng(0)
    ours = CRF(K, dtype=dtype, seed=0)
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
        Case(f"CRF loss, {size}", lambda: ours.loss(emissions, tags)[1], their_loss),
        Case(
            f"CRF decode, {size}",
            lambda: np.stack(ours.decode(emissions)),
            lambda: np.array(theirs.decode(x.detach())),
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

    our_loss = functools.partial(ctc_loss, logits, targets, lengths, counts)
    return [Case(f"CTC loss, T = {T}, K = {K}, S = {S}", lambda: our_loss()[1], their_loss)]


def seconds(call: Callable[[], Any]) -> float:
    """Of one call, after the threads of the other one have gone to sleep."""
    time.sleep(0.03)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(case: Case, rounds: int) -> tuple[float, float]:
    """Of both, called in turns; the first results must agree."""
    error = np.abs(case.ours() - case.theirs()).max()
    if error > 1e-2:  # in float32 torch's gradients are off by 1e-3 at T = 400, ours by 3e-5
        raise SystemExit(f"{case.name}: the results differ by {error}")
    pairs = [(seconds(case.ours), seconds(case.theirs)) for _ in range(rounds)]
    ours, theirs = zip(*pairs, strict=True)
    return statistics.median(ours), statistics.median(theirs)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch and of fastlstm")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fastlstm.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", "where received a uint8")  # of pytorch-crf
    print(f"{args.dtype}, B = {BATCH}; threads: {args.threads}; {fastlstm.isas()[0]}")
    print(f"{'ms':34} {'torch':>8} {'fastlstm':>9} {'ratio':>6}")
    cases = [case for size in CRF_SIZES for case in crf_cases(args.dtype, *size)]
    cases += [case for size in CTC_SIZES for case in ctc_cases(args.dtype, *size)]
    for case in cases:
        ours, theirs = medians(case, args.rounds)
        print(f"{case.name:34} {1e3 * theirs:8.2f} {1e3 * ours:9.2f} {theirs / ours:6.1f}")


if __name__ == "__main__":
    main()
