"""A recurrent cell of Flax, served without it: the same sequence, step by step as well.

    python examples/flax_weights.py

An ``nnx`` layer is run over a batch with JAX; its parameters become a layer here, which gives the
same outputs for the whole sequence and for single steps, and go back into another ``nnx`` layer.
Mind the order of the state: the carry of Flax is (c, h), the state here (h, c).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

FEATURES, HIDDEN = 8, 32


def largest_difference(a: Any, b: Any) -> str:
    """Of two results."""
    return f"{np.abs(np.asarray(a) - np.asarray(b)).max():.1e}"


def main() -> None:
    """Carry a layer over, compare, carry it back."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()

    from flax import nnx  # --help should not wait for it

    from fastlstm.flax import from_flax, to_flax_params

    def recurrent(seed: int) -> Any:
        cell = nnx.OptimizedLSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(seed))
        return nnx.RNN(cell, return_carry=True, rngs=nnx.Rngs(seed))

    theirs = recurrent(0)
    x = np.random.default_rng(0).standard_normal((args.batch, args.steps, FEATURES))
    x = x.astype(np.float32)  # Flax has the batch first
    (c_n, h_n), y = theirs(x)

    lstm = from_flax(nnx.state(theirs.cell), batch_first=True)
    ours, state = lstm(x)
    print(f"{lstm} of {type(theirs.cell).__name__}")
    print(f"largest difference of outputs: {largest_difference(ours, y)}")
    print(f"of the final states: {largest_difference(state, ([h_n], [c_n]))}")

    stream = lstm.stream(args.batch)
    steps = np.stack([stream.step(x_t) for x_t in x.swapaxes(0, 1)], axis=1)
    print(f"of the same steps, one by one: {largest_difference(steps, y)}")

    copy = recurrent(1)
    [parameters] = to_flax_params(lstm, api="nnx")
    nnx.update(copy, parameters)
    print(f"of a copy with the weights carried back: {largest_difference(copy(x)[1], y)}")


if __name__ == "__main__":
    main()
