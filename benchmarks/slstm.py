"""The sLSTM beside the plain LSTM of the same sizes, and beside xlstm's own cell in torch.

    python benchmarks/slstm.py

Medians over turns, taken in turns: microseconds of a call, the ratio to the LSTM's, and how many
times as long xlstm's "vanilla" cell takes (`--no-xlstm` leaves it out): torch's operators, step by
step, after one product of W with all steps.  Inference is a call, training `forward` with
`backward`, "steps" are T steps of a stream, or T calls of xlstm's cell.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from options import medians, ours

import fastlstm


def steps_of(layer: Any, x: Any) -> Callable[[], object]:
    """A stream over x, step by step."""
    stream, out = layer.stream(x.shape[1]), np.empty((x.shape[1], layer.hidden_size), x.dtype)

    def run() -> object:
        for x_t in x:
            stream.step(x_t, out=out)
        return out

    return run


def vanilla(layer: fastlstm.SLSTM, x: Any) -> dict[str, Callable[[], object]]:
    """The same of xlstm's cell, with the same weights."""
    import torch
    from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig

    H, heads = layer.hidden_size, layer.num_heads
    config = sLSTMCellConfig(
        hidden_size=H, num_heads=heads, backend="vanilla", dtype="float32", input_shape="SBGNH"
    )
    cell, p = sLSTMCell(config), {n: torch.tensor(v) for n, v in layer.state_dict().items()}
    kernel = p["weight_hh_l0"].reshape(4, heads, H // heads, H // heads).swapaxes(0, 1)
    cell.load_state_dict(
        {"_recurrent_kernel_": kernel.reshape(heads, 4 * (H // heads), -1),
         "_bias_": p["bias_ih_l0"]}
    )  # fmt: skip
    given = torch.tensor(x, requires_grad=True)
    weight = p["weight_ih_l0"].requires_grad_()
    wanted = [given, weight, *cell.parameters()]

    def run() -> Any:
        return cell(torch.nn.functional.linear(given, weight))[0]

    def infer() -> object:
        with torch.inference_mode():
            return run()

    def train() -> object:
        y = run()
        return torch.autograd.grad(y, wanted, y.detach())

    def steps() -> object:
        with torch.inference_mode():
            state = None
            for x_t in given:
                a = torch.nn.functional.linear(x_t[None], weight)
                _, state = cell(a, state)
            return state

    y = torch.as_tensor(infer()).permute(2, 0, 1, 3).reshape(len(x), -1, H)
    assert np.abs(y.numpy() - layer(x)[0]).max() < 1e-4, "not the same cell"
    return {"inference": infer, "training": train, "steps": steps}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", default="128,256,512", help="sizes of the layer")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch", default="1,32")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-xlstm", action="store_true", help="fastlstm alone")
    args = parser.parse_args()
    fastlstm.set_num_threads(args.threads)
    if not args.no_xlstm:
        import torch

        torch.set_num_threads(args.threads)
    fastlstm.show_config()
    print(f"\nI = H, T = {args.steps}, {args.heads} heads, threads: {args.threads}\n")
    print("| H | B | | us | LSTM = 1 | xlstm |\n|---:|---:|---|---:|---:|---:|")
    for size in map(int, args.hidden.split(",")):
        slstm = fastlstm.SLSTM(size, size, num_heads=args.heads, seed=0)
        lstm = fastlstm.LSTM(size, size, seed=0)
        for batch in map(int, args.batch.split(",")):
            shape = (args.steps, batch, size)
            x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            peer = {} if args.no_xlstm else vanilla(slstm, x)
            for work in ("inference", "training", "steps"):
                calls = {
                    name: ours(layer, x)[work] if work != "steps" else steps_of(layer, x)
                    for name, layer in (("LSTM", lstm), ("SLSTM", slstm))
                }
                calls |= {"xlstm": peer[work]} if peer else {}
                times = medians(calls, args.turns, None)
                ratio = times["SLSTM"] / times["LSTM"]
                text = f"{times['xlstm'] / times['SLSTM']:.1f}x" if peer else ""
                us = 1e6 * times["SLSTM"]
                print(
                    f"| {size} | {batch} | {work} | {us:.0f} | {ratio:.2f} | {text} |", flush=True
                )


if __name__ == "__main__":
    main()
