"""How far results are from float64: fastlstm beside torch and ONNX Runtime, long sequences.

    python benchmarks/accuracy.py

All engines get the same weights, drawn as torch draws them, and the same normally distributed
input.  Shown is the root mean square of the difference between outputs in float32 and those of
fastlstm in float64, over all steps and rows, in units of 1e-8; the median of some draws.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fastlstm

HIDDEN, NARROW = (64, 128, 256, 512, 1024), 64


def outputs(inputs: int, hidden: int, steps: int, seed: int) -> dict[str, Any]:
    """What each engine gives, and float64."""
    import onnxruntime
    import torch

    from fastlstm.onnx import to_onnx

    torch.manual_seed(seed)
    theirs = torch.nn.LSTM(inputs, hidden).eval()
    x = np.random.default_rng(seed).standard_normal((steps, 2, inputs), dtype=np.float32)
    ours = fastlstm.LSTM(inputs, hidden)
    ours.load_state_dict({name: p.detach().numpy() for name, p in theirs.state_dict().items()})
    exact = fastlstm.LSTM(inputs, hidden, dtype="float64")
    exact.load_state_dict({name: p.astype("f8") for name, p in ours.state_dict().items()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lstm.onnx")
        to_onnx(ours, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [put.name for put in session.get_inputs()]
        feed = {names[0]: x}
        for put in session.get_inputs()[1:]:
            feed[put.name] = np.zeros((1, 2, hidden), np.float32)
        of_onnxruntime = np.asarray(session.run(None, feed)[0]).reshape(steps, 2, hidden)
    with torch.inference_mode():
        of_torch = theirs(torch.from_numpy(x))[0].numpy()
    return {
        "float64": exact(x.astype("f8"))[0],
        "fastlstm": ours(x)[0],
        "torch": of_torch,
        "ONNX Runtime": of_onnxruntime,
    }


def errors(inputs: int, hidden: int, steps: int, draws: int) -> dict[str, float]:
    """Of each engine, in units of 1e-8."""
    found: dict[str, list[float]] = {}
    for seed in range(draws):
        all_outputs = outputs(inputs, hidden, steps, seed)
        exact = all_outputs.pop("float64")
        for name, y in all_outputs.items():
            found.setdefault(name, []).append(float(np.sqrt(np.mean((y - exact) ** 2))))
    return {name: 1e8 * float(np.median(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=3, help="of weights and inputs (3)")
    arguments = parser.parse_args()
    print("| I | H | fastlstm | torch | ONNX Runtime | of torch | of ONNX Runtime |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for hidden in HIDDEN:
        for inputs in sorted({NARROW, hidden}):
            e = errors(inputs, hidden, arguments.steps, arguments.draws)
            values = [f"{e[name]:.2f}" for name in ("fastlstm", "torch", "ONNX Runtime")]
            shares = [f"{e['fastlstm'] / e[name]:.2f}" for name in ("torch", "ONNX Runtime")]
            print(f"| {inputs} | {hidden} | {' | '.join([*values, *shares])} |", flush=True)


if __name__ == "__main__":
    main()
