"""Rows of different lengths, and states that are reset: each row as if it were alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import (
    Array,
    Arrays,
    check_bits,
    check_close,
    error_bound,
    random_call,
    same_bits,
)

import fastlstm

LAYERS: dict[str, dict[str, Any]] = {
    "one": {"input_size": 5, "hidden_size": 7},
    "deep": {"input_size": 20, "hidden_size": 33, "num_layers": 3, "bias": False},
    "both-ways": {"input_size": 9, "hidden_size": 18, "num_layers": 2, "bidirectional": True},
    "batch-first": {"input_size": 3, "hidden_size": 66, "batch_first": True},
    "projected": {
        "input_size": 4,
        "hidden_size": 20,
        "proj_size": 9,
        "peephole": True,
        "num_layers": 2,
        "bidirectional": True,
    },
    "normed": {"input_size": 4, "hidden_size": 20, "layer_norm": True, "cell_clip": 0.3},
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
SIZES = [(9, 4), (30, 1), (12, 20), (300, 3), (7, 300)]
every_size = pytest.mark.parametrize(("steps", "batch"), SIZES)
OUTPUTS = ("y", "h_n", "c_n", "dx", "dh_0", "dc_0")


def results(lstm: fastlstm.LSTM, v: Arrays, **options: Any) -> Arrays:
    """All that forward and backward return."""
    y, (h_n, c_n), tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]), **options)
    dx, (dh_0, dc_0), grads = lstm.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))
    assert dx is not None
    named = {"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, "dh_0": dh_0, "dc_0": dc_0}
    return named | {f"d {name}": grads[name] for name in grads}


def time_first(lstm: fastlstm.LSTM, v: Arrays) -> Arrays:
    """Views with the time first, whatever the layer."""
    sequences = ("x", "dy", "y", "dx", "reset")
    swap = lstm.batch_first
    return {name: a.swapaxes(0, 1) if swap and name in sequences else a for name, a in v.items()}


def row_by_row(lstm: fastlstm.LSTM, v: Arrays, lengths: Array, reset: Array | None) -> Arrays:
    """Each row in a call of its own, of its own length; gradients of weights added up."""
    found = {name: np.zeros_like(v[of]) for name, of in (("y", "dy"), ("dx", "x"))}
    found |= {"h_n": v["h_0"].copy(), "c_n": v["c_0"].copy()}
    found |= {"dh_0": v["dh_n"].copy(), "dc_0": v["dc_n"].copy()}
    found |= {f"d {n}": np.zeros(a.shape) for n, a in lstm.parameters.items()}
    parts, whole = time_first(lstm, v), time_first(lstm, found)
    for b, n in enumerate(lengths):
        if n == 0:
            continue
        one = {}
        for name, array in parts.items():
            row = array[:n, b : b + 1] if name in ("x", "dy") else array[:, b : b + 1]
            one[name] = row
        options = {} if reset is None else {"reset": reset[:n, b : b + 1]}
        if lstm.batch_first:
            one = time_first(lstm, one)
            options = {name: a.T for name, a in options.items()}
        alone = results(lstm, one, **options)
        for name, array in time_first(lstm, alone).items():
            if name in ("y", "dx"):
                whole[name][:n, b : b + 1] = array
            elif name in OUTPUTS:
                whole[name][:, b : b + 1] = array
            else:
                found[name] += array
    return found


def spoiled(lstm: fastlstm.LSTM, v: Arrays, lengths: Array) -> Arrays:
    """Not-a-numbers beyond the ends: nothing may read them."""
    copies = {name: array.copy() for name, array in v.items()}
    for name in ("x", "dy"):
        steps = time_first(lstm, copies)[name]
        for b, n in enumerate(lengths):
            steps[n:, b] = np.nan
    return copies


def some_lengths(rng: Generator, steps: int, batch: int) -> Array:
    lengths = rng.integers(0, steps + 1, batch)
    lengths[: min(batch, 2)] = [steps, 0][: min(batch, 2)]
    return rng.permutation(lengths)


def compare(lstm: fastlstm.LSTM, got: Arrays, expected: Arrays, bound: float) -> None:
    check_bits({n: got[n] for n in OUTPUTS}, {n: expected[n] for n in OUTPUTS})
    sums = [name for name in expected if name not in OUTPUTS]
    check_close({n: got[n] for n in sums}, {n: expected[n] for n in sums}, bound)


@every_dtype
@every_layer
@every_size
@pytest.mark.parametrize("with_reset", [False, True], ids=["lengths", "lengths-and-reset"])
def test_each_row_has_the_bits_it_has_alone(
    rng: Generator,
    layer: dict[str, Any],
    steps: int,
    batch: int,
    with_reset: bool,
    dtype: str,
) -> None:
    lstm = fastlstm.LSTM(**layer, dtype=dtype, seed=1)
    v, lengths = random_call(rng, lstm, steps, batch), some_lengths(rng, steps, batch)
    reset = rng.random((steps, batch)) < 0.2 if with_reset else None
    options: dict[str, Any] = {"lengths": lengths}
    if reset is not None:
        options["reset"] = reset.T if lstm.batch_first else reset
    bad = spoiled(lstm, v, lengths)
    got = results(lstm, bad, **options)
    compare(lstm, got, row_by_row(lstm, v, lengths, reset), error_bound(lstm, steps, batch))
    y, (h_n, c_n) = lstm(bad["x"], (v["h_0"], v["c_0"]), **options)
    check_bits({"y": y, "h_n": h_n, "c_n": c_n}, {n: got[n] for n in ("y", "h_n", "c_n")})


@every_dtype
@pytest.mark.parametrize("layer", [LAYERS["one"], LAYERS["deep"]], ids=["one", "deep"])
def test_reset_is_a_new_call(rng: Generator, isa: str, layer: dict[str, Any], dtype: str) -> None:
    """Forward and backward, cut at every episode; the first reset ignores the initial state."""
    lstm, T, B = fastlstm.LSTM(**layer, dtype=dtype, seed=1), 40, 3
    v, cuts = random_call(rng, lstm, T, B), [0, 7, 8, 31]
    reset = np.zeros((T, B), bool)
    reset[cuts] = True
    got = results(lstm, v, reset=reset)
    parts = [slice(a, e) for a, e in zip(cuts, [*cuts[1:], T], strict=True)]
    zero = {name: np.zeros_like(v[name]) for name in ("h_0", "c_0", "dh_n", "dc_n")}
    calls = []
    for part in parts:
        states = {n: v[n] if part.stop == T and n.startswith("d") else zero[n] for n in zero}
        calls.append(results(lstm, {"x": v["x"][part], "dy": v["dy"][part], **states}))
    for name in ("y", "dx"):
        assert same_bits(got[name], np.concatenate([call[name] for call in calls])), name
    assert same_bits(got["h_n"], calls[-1]["h_n"])
    assert same_bits(got["c_n"], calls[-1]["c_n"])
    assert not got["dh_0"].any()
    assert not got["dc_0"].any()
    for name in (n for n in got if n.startswith("d ")):
        total = sum(call[name].astype(np.float64) for call in calls)
        check_close({name: got[name]}, {name: total}, error_bound(lstm, T, B))


def test_episodes_do_not_meet_in_either_direction(rng: Generator) -> None:
    lstm, T = fastlstm.LSTM(3, 5, bidirectional=True, seed=1), 9
    x, reset = rng.standard_normal((T, 2, 3), dtype=np.float32), np.zeros((T, 2), bool)
    reset[4] = True
    y = lstm(x, reset=reset)[0]
    assert same_bits(y, np.concatenate([lstm(x[:4])[0], lstm(x[4:])[0]]))


def test_finite_differences(rng: Generator) -> None:
    """All gradients of a ragged batch with resets, in float64."""
    lstm, T, B = fastlstm.LSTM(2, 3, 2, bidirectional=True, dtype="float64", seed=1), 6, 4
    v, lengths = random_call(rng, lstm, T, B), np.array([6, 0, 3, 5])
    options = {"lengths": lengths, "reset": rng.random((T, B)) < 0.3}

    def loss(flat: Array | None = None, **changed: Array) -> float:
        other = fastlstm.LSTM(2, 3, 2, bidirectional=True, dtype="float64")
        other.parameters.flat = lstm.parameters.flat if flat is None else flat
        w = v | changed
        y, (h_n, c_n) = other(w["x"], (w["h_0"], w["c_0"]), **options)
        return float((y * v["dy"]).sum() + (h_n * v["dh_n"]).sum() + (c_n * v["dc_n"]).sum())

    _, _, tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]), **options)
    dx, (dh_0, dc_0), grads = lstm.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))
    assert dx is not None
    step = 1e-6
    for name, gradient in (("x", dx), ("h_0", dh_0), ("c_0", dc_0)):
        direction = rng.standard_normal(gradient.shape)
        up, down = (loss(**{name: v[name] + s * direction}) for s in (step, -step))
        assert (up - down) / (2 * step) == pytest.approx((gradient * direction).sum(), abs=1e-7)
    direction = rng.standard_normal(grads.flat.shape)
    up, down = (loss(lstm.parameters.flat + s * direction) for s in (step, -step))
    assert (up - down) / (2 * step) == pytest.approx((grads.flat * direction).sum(), abs=1e-7)


@pytest.mark.parametrize("hidden", [64, 300])
@pytest.mark.parametrize("batch", [3, 40])
def test_threads_and_segments(
    rng: Generator, hidden: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers take rows in turns, or share hidden units; what is recomputed has the same bits."""
    monkeypatch.setattr(fastlstm._core.library, "PROCESSORS", 4)
    lstm, T = fastlstm.LSTM(16, hidden, seed=1), 200
    v, lengths = random_call(rng, lstm, T, batch), some_lengths(rng, T, batch)
    options = {"lengths": lengths, "reset": rng.random((T, batch)) < 0.05}
    before, found = fastlstm.get_num_threads(), []
    try:
        for threads, every in ((1, None), (2, None), (3, None), (1, "auto"), (2, 90)):
            fastlstm.set_num_threads(threads)
            found.append(results(lstm, v, **options, checkpoint_every=every))
    finally:
        fastlstm.set_num_threads(before)
    for other in found[1:]:
        check_bits(other, found[0])


def test_tokens_beyond_the_end_do_not_count(rng: Generator) -> None:
    lstm, lengths = fastlstm.LSTM(4, 5, seed=1), np.array([2, 6, 0])
    tokens, dy = rng.integers(0, 4, (6, 3)), rng.standard_normal((6, 3, 5), dtype=np.float32)
    found = []
    for _ in range(2):
        y, _, tape = lstm.forward(tokens, embedding="one-hot", lengths=lengths)
        found.append({"y": y, "d": lstm.backward(tape, dy)[2].flat})
        tokens[2:, 0] = tokens[:, 2] = 3
        dy[2:, 0] = dy[:, 2] = np.nan
    check_bits(*found)


def test_lengths_of_all_kinds(rng: Generator) -> None:
    lstm = fastlstm.LSTM(4, 5, seed=1)
    x = rng.standard_normal((6, 3, 4), dtype=np.float32)
    y = lstm(x, lengths=[6, 2, 4])[0]
    for same in ((6, 2, 4), np.array([6, 2, 4], np.uint8), np.array([6, 2, 4], ">i8")):
        assert same_bits(lstm(x, lengths=same)[0], y)
    assert same_bits(lstm(x, lengths=[6, 6, 6])[0], lstm(x)[0])
    assert not lstm(x, lengths=[0, 0, 0])[0].any()
    assert lstm(x[:, :0], lengths=[])[0].shape == (6, 0, 5)
    assert same_bits(lstm(x[:, 0], lengths=[4])[0][:4], lstm(x[:4, 0])[0])


X = np.zeros((6, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lengths": [6, 7, 1]}, ValueError, "lengths: expected integers from 0 to 6, got 7"),
        ({"lengths": [6, -1, 1]}, ValueError, "lengths: expected integers from 0 to 6, got -1"),
        ({"lengths": [6, 1]}, ValueError, r"lengths: expected \(3,\), got \(2,\)"),
        ({"lengths": 6}, ValueError, r"lengths: expected \(3,\), got \(\)"),
        ({"lengths": [1.0, 2.0, 3.0]}, TypeError, "lengths: expected integers, got float64"),
        ({"reset": np.zeros((3, 6), bool)}, ValueError, r"reset: expected \(6, 3\), got \(3, 6\)"),
        ({"reset": np.zeros((6, 3), int)}, TypeError, "reset: expected an array of bool, got int"),
    ],
)
@pytest.mark.parametrize("call", ["__call__", "forward"])
def test_errors(call: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        getattr(fastlstm.LSTM(4, 5), call)(X, **options)
