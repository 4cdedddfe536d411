"""A layer in ONNX Runtime and back: written, run in chunks with its state, read again.

    python examples/onnx_round_trip.py --keep echo.onnx

A GRU learns to repeat what it heard three steps ago.  Its file is run by ONNX Runtime, five steps
at a time: the state that comes out goes in with the next chunk, so the result is that of the whole
sequence at once.  Then the file is read into a new layer, which has the same weights to the bit.
Needs onnx and onnxruntime.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from typing import Any

import numpy as np

import fastlstm

try:
    import onnxruntime

    from fastlstm import onnx
except ModuleNotFoundError as error:
    sys.exit(f"{error}\nThis example needs two packages: pip install onnx onnxruntime")

DELAY, HIDDEN, ROWS, STEPS, CHUNK = 3, 32, 16, 40, 5


def sequences(rng: np.random.Generator) -> tuple[Any, Any]:
    """Noise (T, B, 1), and the same later."""
    x = rng.uniform(-0.8, 0.8, (STEPS, ROWS, 1)).astype(np.float32)
    return x, np.concatenate([np.zeros_like(x[:DELAY]), x[:-DELAY]])


def train(updates: int) -> fastlstm.GRU:
    """A layer whose first hidden unit is the answer."""
    rng = np.random.default_rng(0)
    layer = fastlstm.GRU(1, HIDDEN, num_layers=2, seed=0)
    optimizer = fastlstm.optim.Adam(layer.parameters, lr=5e-3)
    for _ in range(updates):
        x, wanted = sequences(rng)
        y, _, tape = layer.forward(x)
        dy = np.zeros_like(y)
        _, dy[:, :, :1] = fastlstm.heads.mse(y[:, :, :1], wanted)
        _, _, grads = layer.backward(tape, dy)
        fastlstm.optim.clip_grad_norm(grads, 1.0)
        optimizer.step(grads)
    return layer


def run_in_chunks(path: str, x: Any, h: Any) -> Any:
    """What ONNX Runtime makes of x, and the state after it."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = []
    for first in range(0, len(x), CHUNK):
        y, h = session.run(["y", "h_n"], {"x": x[first : first + CHUNK], "h_0": h})
        outputs.append(y)
    return np.concatenate(outputs), h


def main() -> None:
    """Train, write, run, read, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--keep", help="where to keep the file")
    args = parser.parse_args()
    layer = train(args.updates)
    rng = np.random.default_rng(1)
    x, wanted = sequences(rng)
    h_0 = rng.uniform(-1, 1, (2, ROWS, HIDDEN)).astype(np.float32)
    y, h_n = layer(x, h_0)
    rms = np.sqrt(np.mean((y[DELAY:, :, :1] - wanted[DELAY:]) ** 2))
    print(f"{layer}: what it heard {DELAY} steps ago, to {rms:.3f} (noise: {x.std():.3f})")
    with tempfile.TemporaryDirectory() as folder:
        path = args.keep or os.path.join(folder, "layer.onnx")
        onnx.to_onnx(layer, path)
        print(f"{os.path.getsize(path)} bytes of ONNX")
        outputs, state = run_in_chunks(path, x, h_0)
        again = onnx.from_onnx(path)
    print(f"ONNX Runtime in chunks of {CHUNK}, largest difference of outputs:",
          f"{np.abs(outputs - y).max():.1e}")  # fmt: skip
    print(f"and of the last states: {np.abs(state - h_n).max():.1e}")
    same = (again.parameters.flat == layer.parameters.flat).all()
    print(f"read again: {again}, {'the same weights' if same else 'OTHER WEIGHTS'}")


if __name__ == "__main__":
    main()
