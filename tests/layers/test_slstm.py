"""SLSTM: what only it has, four states of which two are scaled, heads, exponential gates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, same_bits

import fastlstm
from fastlstm import flax as fastlstm_flax
from fastlstm import keras as fastlstm_keras
from fastlstm import plot, reference
from fastlstm._io import tensor_file

T, I = 6, 3
STATES = "hcnm"


def zeros(layer: Any, batch: int) -> list[Array]:
    return [np.zeros((layer.num_layers, batch, layer.hidden_size), layer.dtype) for _ in STATES]


def random_state(rng: Generator, layer: Any, batch: int) -> list[Array]:
    state = [rng.standard_normal(part.shape).astype(layer.dtype) for part in zeros(layer, batch)]
    state[2] = np.abs(state[2]) + np.asarray(0.5, layer.dtype)
    return state


def twin_of(layer: fastlstm.SLSTM) -> reference.SLSTM:
    twin = reference.SLSTM(**layer._configuration())
    twin.load_state_dict(layer.state_dict())
    return twin


# Heads that are whole vectors, parts of them, and neither; and single units.
HEADS = [(4, 4), (1, 1), (24, 3), (40, 4), (66, 3), (128, 4), (130, 2), (100, 50), (96, 1)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 5, 14])
@pytest.mark.parametrize(("units", "heads"), HEADS)
def test_heads(rng: Generator, isa: str, units: int, heads: int, batch: int, dtype: str) -> None:
    """Of all sizes beside vectors and tiles: values and gradients of the reference."""
    layer = fastlstm.SLSTM(I, units, num_heads=heads, dtype=dtype, seed=1)
    twin = twin_of(layer)
    x = rng.standard_normal((T, batch, I)).astype(dtype)
    state, dstate = (tuple(random_state(rng, layer, batch)) for _ in range(2))
    dy = rng.standard_normal((T, batch, units)).astype(dtype)
    found = []
    for one in (layer, twin):
        y, state_n, tape = one.forward(x, state)
        dx, dstate_0, grads = one.backward(tape, dy, dstate)
        found.append([y, *state_n, dx, *dstate_0, *(grads[name] for name in layer.parameters)])
    for ours, theirs in zip(*found, strict=True):
        scale = max(1.0, np.abs(theirs).max())
        assert np.abs(ours - theirs).max() <= 30 * np.finfo(dtype).eps * scale


def test_no_head_sees_another(rng: Generator, isa: str) -> None:
    """Not even what is not a number, where the heads share a vector."""
    layer = fastlstm.SLSTM(I, 12, num_heads=3, seed=1)
    x, state = rng.standard_normal((T, 2, I), dtype=np.float32), random_state(rng, layer, 2)
    y, state_n = layer(x, tuple(state))
    state[0][:, :, 4:8] = np.nan
    broken, broken_n = layer(x, tuple(state))
    others = [0, 1, 2, 3, 8, 9, 10, 11]
    assert np.isnan(broken[:, :, 4:8]).all()
    assert same_bits(broken[:, :, others], y[:, :, others])
    for part, other in zip(broken_n, state_n, strict=True):
        assert same_bits(part[..., others], other[..., others])
    state[0][:] = 0
    _, _, tape = layer.forward(x, tuple(state))
    found, dy = [], rng.standard_normal(y.shape, dtype=np.float32)
    for value in (0, np.nan):
        dy[:, :, 4:8] = value
        _, dstate, grads = layer.backward(tape, dy)
        of_heads = grads["weight_hh_l0"].reshape(4, 12, 4)[:, others]
        found.append([of_heads, *(part[..., others] for part in dstate)])
    for part, other in zip(*found, strict=True):
        assert same_bits(part, other)


def test_zero_normalizers_are_asked_unit_by_unit(rng: Generator, isa: str) -> None:
    """A row that begins, a unit that does, and those that go on: each as in the equations."""
    layer = fastlstm.SLSTM(I, 8, num_heads=2, dtype="float64", seed=1)
    layer.parameters["bias_ih_l0"] = np.repeat([-4.0, 4.0, 0.0, 0.0], 8)  # l above a_i
    state = random_state(rng, layer, 3)
    for part in state:
        part[:, 1] = 0
    state[2][0, 2, ::2] = 0  # c is not 0 there
    x = rng.standard_normal((T, 3, I))
    y, state_n = layer(x, tuple(state))
    expected, expected_n = twin_of(layer)(x, tuple(state))
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    for ours, theirs in zip(state_n, expected_n, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    for row in range(3):
        alone, _ = layer(x[:, row : row + 1], tuple(part[:, row : row + 1] for part in state))
        assert same_bits(alone, y[:, row : row + 1])


def by_differences(layer: fastlstm.SLSTM, x: Array, state: list[Array], rng: Generator,
                   **rows: Any) -> None:  # fmt: skip
    """Gradients of a loss of all outputs, and of all final states, by finite differences."""
    y, state_n, tape = layer.forward(x, tuple(state), **rows)
    dy = rng.standard_normal(y.shape)
    dstate = tuple(rng.standard_normal(part.shape) for part in state_n)
    dx, dstate_0, grads = layer.backward(tape, dy, dstate)

    def loss(x: Array, state: list[Array]) -> float:
        y, state_n = layer(x, tuple(state), **rows)
        pairs = zip(state_n, dstate, strict=True)
        return float((y * dy).sum() + sum((part * d).sum() for part, d in pairs))

    def check(up: float, down: float, expected: float) -> None:
        assert (up - down) / 2 == pytest.approx(expected, abs=1e-11)

    move = 1e-6 * rng.standard_normal(x.shape)
    check(loss(x + move, state), loss(x - move, state), (dx * move).sum())
    for k in range(4):
        move = 1e-6 * rng.standard_normal(state[k].shape) * (state[2] != 0 if k == 2 else 1)
        up, down = ([*state[:k], state[k] + m, *state[k + 1 :]] for m in (move, -move))
        check(loss(x, up), loss(x, down), (dstate_0[k] * move).sum())
    for name, value in layer.parameters.snapshot().items():
        move = 1e-6 * rng.standard_normal(value.shape)
        losses = []
        for changed in (value + move, value - move):
            layer.parameters[name] = changed
            losses.append(loss(x, state))
        layer.parameters[name] = value
        check(*losses, (grads[name] * move).sum())


@pytest.mark.parametrize("begins", ["zeros", "anywhere", "without a normalizer"])
@pytest.mark.parametrize("rows", ["plain", "lengths", "reset"])
def test_gradients_by_differences(rng: Generator, begins: str, rows: str) -> None:
    """Of every state, the scaled ones too, and of gates on both sides of the maximum."""
    layer = fastlstm.SLSTM(I, 6, 2, num_heads=2, dtype="float64", seed=1)
    for name, value in layer.parameters.snapshot().items():
        layer.parameters[name] = rng.standard_normal(value.shape)
    state = zeros(layer, 3) if begins == "zeros" else random_state(rng, layer, 3)
    if begins == "without a normalizer":  # c keeps its gradient, and f has one below its bound
        state[2][:] = 0
    options: dict[str, Any] = {"lengths": {"lengths": [2, T, 0]}}.get(rows, {})
    if rows == "reset":
        options = {"reset": rng.random((T, 3)) < 0.3}
    by_differences(layer, rng.standard_normal((T, 3, I)), state, rng, **options)


def test_gradients_at_a_tie() -> None:
    """Those of m = a_i; and f has none at its bound, where nothing had been kept."""
    layer = fastlstm.SLSTM(1, 1, num_heads=1, dtype="float64")
    layer.parameters.flat = np.zeros(layer.parameters.flat.size)
    layer.parameters["bias_ih_l0"] = np.array([0.0, 1000.0, 0.0, 0.0])  # log sigmoid is 0 there
    state = [np.full((1, 1, 1), value) for value in (0.0, 0.75, 2.0, 0.0)]
    _, state_n, tape = layer.forward(np.ones((1, 1, 1)), tuple(state))
    assert [float(part[0, 0, 0]) for part in state_n] == [0.125, 0.75, 3.0, 0.0]
    one, none = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    _, dstate, grads = layer.backward(tape, none, (none, none, one, none))
    assert [float(part[0, 0, 0]) for part in dstate] == [0, 0, 1, 2.0]  # dn = n f dl
    assert grads["bias_ih_l0"].tolist() == [-2.0, 0.0, 0.0, 0.0]
    state[2][:] = 0
    _, _, tape = layer.forward(np.ones((1, 1, 1)), tuple(state))
    _, dstate, grads = layer.backward(tape, none, (none, one, none, none))
    assert [float(part[0, 0, 0]) for part in dstate] == [0, 1, 0, 0]
    assert grads["bias_ih_l0"].tolist() == [0.0, 0.0, 1.0, 0.0]


def test_gates_that_overflow(isa: str) -> None:
    """exp(a_i) alone would be infinite, and would be 0; the states stay finite."""
    layer = fastlstm.SLSTM(1, 4, seed=1)
    layer.parameters["weight_ih_l0"] = np.repeat([1.0, 0.5, 0.01, 0.0], 4)[:, None]
    x = np.array([-1e4, 300, 1e4, -500, 200, 1e4], np.float32)[:, None, None]
    y, state, tape = layer.forward(x)
    dx, dstate, grads = layer.backward(tape, np.ones_like(y))
    assert all(np.isfinite(part).all() for part in (y, *state, dx, *dstate, grads.flat))
    assert np.abs(y).max() <= 1
    np.testing.assert_allclose(y, twin_of(layer)(x)[0], rtol=1e-5)


def test_a_long_sequence_forgets_nothing_of_itself(isa: str) -> None:
    """With a forget gate of 1 - e^-20, h is o times the mean of all candidates."""
    layer = fastlstm.SLSTM(1, 1, num_heads=1, seed=1)
    layer.parameters.flat = np.zeros(layer.parameters.flat.size)
    layer.parameters["weight_ih_l0"] = np.array([[0.0], [0.0], [1.0], [0.0]])
    layer.parameters["bias_ih_l0"] = np.array([0.0, 20.0, 0.0, 0.0])
    x = np.linspace(-2, 2, 1000, dtype=np.float32)[:, None, None]
    y, (_, _, n, _) = layer(x)
    expected = 0.5 * np.cumsum(np.tanh(x[:, 0, 0])) / np.arange(1, 1001)
    np.testing.assert_allclose(y[:, 0, 0], expected, atol=2e-5)
    assert n.item() == pytest.approx(1000, rel=1e-4)


def test_initial_parameters() -> None:
    layer = fastlstm.SLSTM(5, 64, num_heads=16, seed=1)
    p = layer.parameters
    assert list(p) == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"]
    assert p["weight_hh_l0"].shape == (256, 4)
    assert 0.12 < np.abs(p["weight_ih_l0"]).max() <= 0.125
    assert 0.48 < np.abs(p["weight_hh_l0"]).max() <= 0.5
    i, f, z, o = p["bias_ih_l0"].reshape(4, 16, 4)
    assert not np.any([i, z, o])
    assert f.tolist() == [[3, 4, 5, 6]] * 16
    assert list(fastlstm.SLSTM(5, 8, bias=False).parameters) == ["weight_ih_l0", "weight_hh_l0"]
    assert repr(layer) == "SLSTM(5, 64, num_heads=16)"


def test_its_own_weights_in_another_type() -> None:
    layer = fastlstm.SLSTM(5, 12, 2, num_heads=3, bidirectional=True, seed=1)
    wide = fastlstm.SLSTM.from_torch(layer.state_dict(), dtype="float64")
    assert (
        repr(wide) == "SLSTM(5, 12, num_layers=2, bidirectional=True, num_heads=3, dtype='float64')"
    )
    assert (wide.parameters.flat == layer.parameters.flat).all()


X = np.zeros((2, 1, 5), np.float32)


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: fastlstm.SLSTM(5, 10), ValueError,
         "hidden_size: expected a multiple of num_heads, 4, got 10"),
        (lambda: fastlstm.SLSTM(5, 8, num_heads=0), ValueError,
         "num_heads: expected at least 1, got 0"),
        (lambda: fastlstm.SLSTM(5, 8, num_heads=2.0), TypeError, "num_heads: expected an integer"),
        (lambda: fastlstm.SLSTM(5, 8, proj_size=2), TypeError,
         "proj_size: is an option of LSTM, not of SLSTM"),
        (lambda: fastlstm.SLSTM(5, 8)(X, (np.zeros((1, 1, 8), "f4"),) * 2), TypeError,
         r"state: expected a tuple \(h_0, c_0, n_0, m_0\), got 2 of them"),
        (lambda: fastlstm.SLSTM(5, 8)(X, (np.zeros((1, 1, 8), "f4"),) * 3
                                      + (np.zeros((1, 1, 4), "f4"),)), ValueError,
         r"m_0: expected \(1, 1, 8\), got \(1, 1, 4\)"),
        (lambda: fastlstm.SLSTM.from_torch(3), TypeError,
         "source: expected a mapping, got int; torch has no sLSTM, see SLSTM.from_xlstm"),
        (lambda: fastlstm.SLSTM.from_torch({"weight_ih_l0": np.ones((8, 3)),
                                            "weight_hh_l0": np.ones((8, 3))}), ValueError,
         r"weight_hh_l0: expected \(4 \* H, H / num_heads\), got \(8, 3\)"),
        (lambda: setattr(fastlstm.SLSTM(5, 8), "num_heads", 2), AttributeError,
         "num_heads: cannot be changed"),
    ],
)  # fmt: skip
def test_errors(action: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        action()


@pytest.mark.parametrize("heads", [0, -1, 3, 8, 10**9, "4", None])
def test_a_file_of_other_heads(heads: Any, tmp_path: Path) -> None:
    layer, path = fastlstm.SLSTM(2, 8, seed=1), tmp_path / "layer"
    layer.save(path)
    tensors, options = tensor_file.read(path, "SLSTM")
    tensor_file.write(path, "SLSTM", tensors, options | {"num_heads": heads})
    with pytest.raises(ValueError, match="weights and configuration do not agree"):
        fastlstm.SLSTM.load(path)


@pytest.mark.parametrize("page", ["look", "gates", "contributions", "compare"])
def test_pictures_that_do_not_know_it(page: str) -> None:
    layer, x = fastlstm.SLSTM(2, 8), np.zeros((5, 2), np.float32)
    [trace] = layer.trace(x)
    pictures: dict[str, Callable[[], Any]] = {
        "look": lambda: fastlstm.look(layer, x),
        "gates": lambda: plot.gates(trace),
        "contributions": lambda: plot.contributions(layer, x),
        "compare": lambda: plot.compare({"a": trace, "b": trace}),
    }
    with pytest.raises(TypeError, match=r"expected .*LSTM, GRU or RNN, got SLSTM"):
        pictures[page]()


@pytest.mark.parametrize("bridge", ["onnx", "keras", "flax"])
def test_bridges_that_do_not_know_it(bridge: str, tmp_path: Path) -> None:
    def to_onnx(layer: fastlstm.SLSTM) -> None:
        pytest.importorskip("onnx")
        from fastlstm import onnx

        onnx.to_onnx(layer, tmp_path / "layer.onnx")

    write: Any = {
        "onnx": to_onnx,
        "keras": fastlstm_keras.to_keras_weights,
        "flax": fastlstm_flax.to_flax_params,
    }[bridge]
    with pytest.raises(TypeError, match=r"layer: expected an? .*LSTM, .*, got SLSTM"):
        write(fastlstm.SLSTM(2, 8))
