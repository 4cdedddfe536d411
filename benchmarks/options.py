"""What each option of the LSTM costs, and the other cells: beside the plain cell, and beside torch.

    python benchmarks/options.py

A ratio is the median over turns of a call's time over that of the plain LSTM of the same sizes in
the same turn, so below 1 is faster.  Inference is a call, training `forward` with `backward`; the
input is as wide as the layer, float32.  "torch" is the time of torch's own module over ours, where
it has one (`--no-torch` leaves it out).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastlstm


def layers(size: int) -> dict[str, tuple[Any, Any]]:
    """By name: the layer, and the name and options of torch's module that does the same."""
    half = {"proj_size": size // 2}
    options: dict[str, dict[str, Any]] = {
        "proj_size=H/2": half,
        "peephole": {"peephole": True},
        "coupled": {"coupled": True},
        "layer_norm": {"layer_norm": True},
        "cell_clip": {"cell_clip": 1.0},
        "preact_clip": {"preact_clip": 3.0},
        "activations": {"activations": ("hard_sigmoid", "softsign", "tanh")},
        "zoneout": {"zoneout": (0.1, 0.1)},
        "recurrent_dropout": {"recurrent_dropout": 0.2},
    }
    found: dict[str, tuple[Any, Any]] = {
        "LSTM": (fastlstm.LSTM(size, size, seed=0), ("LSTM", {})),
        **{name: (fastlstm.LSTM(size, size, seed=0, **o), None) for name, o in options.items()},
        "all of them": (
            fastlstm.LSTM(
                size, size, seed=0, **{k: v for o in options.values() for k, v in o.items()}
            ),
            None,
        ),
        "GRU": (fastlstm.GRU(size, size, seed=0), ("GRU", {})),
        "GRU, reset_after=False": (fastlstm.GRU(size, size, seed=0, reset_after=False), None),
        "RNN": (fastlstm.RNN(size, size, seed=0), ("RNN", {})),
        "SLSTM": (fastlstm.SLSTM(size, size, seed=0), None),
    }
    found["proj_size=H/2"] = (found["proj_size=H/2"][0], ("LSTM", half))
    return found


def ours(layer: Any, x: Any) -> dict[str, Callable[[], object]]:
    """Inference and training of a layer."""

    def train() -> object:
        y, _, tape = layer.forward(x)
        return layer.backward(tape, y)

    return {"inference": lambda: layer(x), "training": train}


def theirs(torch: Any, layer: Any, name: str, options: dict[str, Any], x: Any) -> dict[str, Any]:
    """The same of torch's module, with the same weights."""
    module = getattr(torch.nn, name)(layer.input_size, layer.hidden_size, **options)
    module.load_state_dict({n: torch.tensor(v) for n, v in layer.state_dict().items()})
    given = torch.tensor(x, requires_grad=True)
    wanted = [given, *module.parameters()]

    def infer() -> object:
        with torch.inference_mode():
            return module(given)

    def train() -> object:
        y, _ = module(given)
        return torch.autograd.grad(y, wanted, y.detach())

    return {"inference": infer, "training": train}


def medians(
    calls: dict[str, Callable[[], object]], turns: int, base: str | None
) -> dict[str, float]:
    """Of the ratios to `base`, turn by turn; or of the seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn > 1:  # the first ones find cold caches
                times[name].append(time.perf_counter() - start)
    return {
        name: float(np.median(np.array(values) / np.array(times[base] if base else 1.0)))
        for name, values in times.items()
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", default="32,128,256", help="sizes of the layer")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-torch", action="store_true", help="fastlstm alone")
    args = parser.parse_args()
    fastlstm.set_num_threads(args.threads)
    torch = None
    if not args.no_torch:
        import torch

        torch.set_num_threads(args.threads)
    sizes = [int(size) for size in args.hidden.split(",")]
    cells: dict[str, list[str]] = {name: [] for name in layers(4)}
    for size in sizes:
        shape = (args.steps, args.batch, size)
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        for work in ("inference", "training"):
            calls = {}
            for name, (layer, peer) in layers(size).items():
                calls[name] = ours(layer, x)[work]
                if torch and peer:
                    calls[f"torch {name}"] = theirs(torch, layer, *peer, x)[work]
            found = medians(calls, args.turns, "LSTM")
            for name, texts in cells.items():
                texts.append(f"{found[name]:.2f}")
                peer = found.get(f"torch {name}")
                texts.append(f"{peer / found[name]:.2f}x" if peer else "")
    fastlstm.show_config()
    print(f"\nB = {args.batch}, T = {args.steps}, threads: {args.threads}\n")
    heads = [f"{work} H={size} | torch" for size in sizes for work in ("inference", "training")]
    print(f"| | {' | '.join(heads)} |")
    print(f"|---|{'---:|' * (2 * len(heads))}")
    for name, texts in cells.items():
        print(f"| {name} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
