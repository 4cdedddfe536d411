"""Why LSTM: after how many steps does a cell still know the first symbol it read?

    python examples/long_memory.py --plot long_memory.svg

A sequence begins with one of four symbols; all that follows are random distractors; at the end the
cell has to say what the first one was.  Gradients reach a plain RNN's first step only if the lag is
short: they shrink with every step in between.  The cell state of an LSTM carries them further,
through a forget gate that learns to stay open; so does a GRU's update gate.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import fastlstm

SYMBOLS, DISTRACTORS, HIDDEN, BATCH = 4, 4, 32, 64
SCALE = 6  # of the first hidden units after the last step, which are the logits of the symbols
CELLS = {"RNN": fastlstm.RNN, "GRU": fastlstm.GRU, "LSTM": fastlstm.LSTM}


def sequences(rng: np.random.Generator, lag: int) -> tuple[Any, Any]:
    """Tokens (lag + 1, B), and the symbols (B,) that they begin with."""
    tokens = SYMBOLS + rng.integers(DISTRACTORS, size=(lag + 1, BATCH))
    tokens[0] = rng.integers(SYMBOLS, size=BATCH)
    return tokens, tokens[0].copy()


def train(name: str, lag: int, steps: int, seed: int = 0) -> Any:
    """A layer trained on one lag."""
    rng = np.random.default_rng(seed)
    # The usual advice: gates that keep the state are open at first, each unit's for as many steps
    # as it draws.
    opened = {} if name == "RNN" else {"forget_bias": "chrono", "max_lag": lag + 1}
    layer = CELLS[name](SYMBOLS + DISTRACTORS, HIDDEN, seed=seed, **opened)
    optimizer = fastlstm.optim.Adam(layer.parameters, lr=5e-3)
    for _ in range(steps):
        tokens, symbols = sequences(rng, lag)
        y, _, tape = layer.forward(tokens, embedding="one-hot")
        _, dlogits = fastlstm.heads.cross_entropy(SCALE * y[-1, :, :SYMBOLS], symbols)
        dy = np.zeros_like(y)
        dy[-1, :, :SYMBOLS] = SCALE * dlogits
        _, _, grads = layer.backward(tape, dy)
        fastlstm.optim.clip_grad_norm(grads, 1.0)
        optimizer.step(grads)
    return layer


def accuracy(layer: Any, lag: int) -> float:
    """Part of 640 new sequences whose first symbol it knows."""
    rng, right = np.random.default_rng(1), 0
    for _ in range(10):
        tokens, symbols = sequences(rng, lag)
        y, _ = layer(tokens, embedding="one-hot")
        right += int((y[-1, :, :SYMBOLS].argmax(axis=1) == symbols).sum())
    return right / (10 * BATCH)


def main() -> None:
    """Print a table of accuracy by lag, and draw how far gradients reach."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lags", default="5,10,20,50,100", help="numbers of steps")
    parser.add_argument("--steps", type=int, default=800, help="updates for each cell and lag")
    parser.add_argument("--plot", help="a name that ends in svg, png or pdf")
    args = parser.parse_args()
    lags = [int(lag) for lag in args.lags.split(",")]
    print("accuracy (guessing: 25%) after " + " ".join(f"{lag:>5}" for lag in lags) + "  steps")
    layers = {}
    for name in CELLS:
        found = []
        for lag in lags:
            layers[name] = train(name, lag, args.steps)
            found.append(accuracy(layers[name], lag))
        print(f"{name:30} " + " ".join(f"{part:5.0%}" for part in found), flush=True)
    if args.plot:
        from fastlstm import plot

        tokens, _ = sequences(np.random.default_rng(2), lags[-1])
        x = np.eye(SYMBOLS + DISTRACTORS, dtype=np.float32)[tokens]
        plot.gradient_flow(layers, x).savefig(args.plot)


if __name__ == "__main__":
    main()
