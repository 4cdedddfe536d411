"""The layer's gradients against central differences of the layer itself, in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, Arrays, random_call

import fastlstm

T, B, I, H = 3, 2, 4, 3  # I != H, so that a mix-up shows

# Differences of a step s are off by about s^2 times a third derivative, and by eps / s: with
# s = eps^(1/3) both are about eps^(2/3) = 4e-11.  Losses here sum up to 30 values of order one,
# in each of which a parameter takes part: 30 times that.
STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
BOUND = 30 * STEP**2

LOSSES = {"y": "dy", "h_n": "dh_n", "c_n": "dc_n"}  # an output, and its gradient


def losses(lstm: fastlstm.LSTM, v: Arrays) -> Array:
    """One loss through each output: y, h_n, c_n.  A copy of the layer draws the same masks."""
    y, (h_n, c_n), _ = copy.deepcopy(lstm).forward(v["x"], (v["h_0"], v["c_0"]))
    return np.array([np.vdot(v["dy"], y), np.vdot(v["dh_n"], h_n), np.vdot(v["dc_n"], c_n)])


def gradients(lstm: fastlstm.LSTM, v: Arrays, through: str) -> Arrays:
    """Of the loss through one output; the gradients of the other two are zero, or left out."""
    zero = np.zeros_like(v["dh_n"])
    dstate = {"y": None, "h_n": (v["dh_n"], zero), "c_n": (zero, v["dc_n"])}[through]
    dy = v["dy"] if through == "y" else np.zeros_like(v["dy"])
    layer = copy.deepcopy(lstm)
    _, _, tape = layer.forward(v["x"], (v["h_0"], v["c_0"]))
    dx, (dh_0, dc_0), grads = layer.backward(tape, dy, dstate)
    return {"x": dx, "h_0": dh_0, "c_0": dc_0, "parameters": grads.flat}


def central_differences(lstm: fastlstm.LSTM, v: Arrays, name: str) -> Array:
    """Of the three losses, by each element of `name`: (3, size)."""
    at = lstm.parameters.flat if name == "parameters" else v[name]
    moved_layer, columns = copy.deepcopy(lstm), []
    for k in range(at.size):
        sides = []
        for sign in (1, -1):
            moved = at.copy()
            moved.flat[k] += sign * STEP
            if name == "parameters":
                moved_layer.parameters.flat = moved
            sides.append(losses(moved_layer, {**v, name: moved}))
        columns.append((sides[0] - sides[1]) / (2 * STEP))
    return np.stack(columns, axis=-1)


@pytest.mark.filterwarnings("ignore:dropout:UserWarning")  # with one layer it has no effect
@pytest.mark.parametrize("dropout", [0.0, 0.4], ids=["no-dropout", "dropout"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients(
    rng: Generator, layers: int, bidirectional: bool, bias: bool, dropout: float
) -> None:
    """Of x, h_0, c_0 and every parameter, through y alone, h_n alone and c_n alone."""
    options: dict[str, Any] = {"bidirectional": bidirectional, "bias": bias, "dropout": dropout}
    lstm = fastlstm.LSTM(I, H, layers, **options, dtype="float64", seed=1)
    v = random_call(rng, lstm, T, B)
    numeric = {n: central_differences(lstm, v, n) for n in ("x", "h_0", "c_0", "parameters")}
    for row, through in enumerate(LOSSES):
        for name, got in gradients(lstm, v, through).items():
            expected = numeric[name][row].reshape(got.shape)
            assert np.any(expected != 0), f"nothing to see in {name} through {through}"
            error = np.max(np.abs(got - expected)) / max(1, np.max(np.abs(expected)))
            assert error < BOUND, f"{name} through {through}: error {error:.1e}"


def test_gradients_add_up(rng: Generator) -> None:
    """What comes in through y, h_n and c_n at once is the sum of the three."""
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=True, dtype="float64", seed=1)
    v = random_call(rng, lstm, T, B)
    parts = [gradients(lstm, v, through) for through in LOSSES]
    _, _, tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]))
    dx, (dh_0, dc_0), grads = lstm.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))
    together = {"x": dx, "h_0": dh_0, "c_0": dc_0, "parameters": grads.flat}
    for name, got in together.items():
        np.testing.assert_allclose(got, sum(part[name] for part in parts), rtol=0, atol=1e-13)


def test_gradients_of_chunks_add_up_to_those_of_the_whole(rng: Generator) -> None:
    """BPTT over two chunks with the state's gradient passed back is BPTT over the whole."""
    lstm = fastlstm.LSTM(I, H, 2, dtype="float64", seed=1)
    v = random_call(rng, lstm, 6, B)
    _, _, tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]))
    dx, dstate, grads = lstm.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))

    _, middle, first = lstm.forward(v["x"][:2], (v["h_0"], v["c_0"]))
    _, _, second = lstm.forward(v["x"][2:], middle)
    dx_2, dmiddle, grads_2 = lstm.backward(second, v["dy"][2:], (v["dh_n"], v["dc_n"]))
    dx_1, dstart, grads_1 = lstm.backward(first, v["dy"][:2], dmiddle)
    np.testing.assert_allclose(np.concatenate([dx_1, dx_2]), dx, rtol=0, atol=1e-13)
    np.testing.assert_allclose(dstart, dstate, rtol=0, atol=1e-13)
    np.testing.assert_allclose(grads_1.flat + grads_2.flat, grads.flat, rtol=0, atol=1e-13)
