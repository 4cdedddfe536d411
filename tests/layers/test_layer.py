"""class LSTM as its users see it: shapes, arrays, parameters, copies, tapes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, check_bits, random_call, results, same_bits

import fastlstm
from fastlstm.optim import SGD

T, B, I, H = 4, 3, 5, 6

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
}
every_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


# Shapes and defaults


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(
    ("batch_first", "x", "y", "rows"),
    [
        (False, (T, B), (T, B), (B,)),
        (True, (B, T), (B, T), (B,)),
        (False, (T,), (T,), ()),
        (True, (T,), (T,), ()),
        (False, (0, B), (0, B), (B,)),
        (False, (T, 0), (T, 0), (0,)),
        (True, (0, 0), (0, 0), (0,)),
        (False, (0,), (0,), ()),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_shapes(
    rng: Generator,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    x: tuple[int, ...],
    y: tuple[int, ...],
    rows: tuple[int, ...],
) -> None:
    D = 1 + bidirectional
    lstm = fastlstm.LSTM(I, H, layers, bidirectional=bidirectional, batch_first=batch_first)
    state = (rng.random((layers * D, *rows, H), "f4"), rng.random((layers * D, *rows, H), "f4"))
    for given in (None, state):
        out, state_n, tape = lstm.forward(ones(*x, I), given)
        inferred, inferred_state = lstm(ones(*x, I), given)
        assert out.shape == inferred.shape == (*y, D * H)
        dx, dstate, grads = lstm.backward(tape, ones(*y, D * H), given)
        assert dx.shape == (*x, I)
        for pair in (state_n, inferred_state, dstate):
            assert [s.shape for s in pair] == [(layers * D, *rows, H)] * 2
        assert {n: g.shape for n, g in grads.items()} == {
            n: p.shape for n, p in lstm.parameters.items()
        }
        if not out.size:  # nothing happened: the state goes through, in both directions
            for pair in (state_n, inferred_state, dstate):
                assert all(map(same_bits, pair, given or (0 * state[0], 0 * state[1])))
            assert not grads.flat.any()


def test_defaults_and_repr() -> None:
    assert repr(fastlstm.LSTM(I, H)) == "LSTM(5, 6)"
    options = {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5}
    options |= {"bidirectional": True, "dtype": "float64"}
    lstm = fastlstm.LSTM(I, H, **options)
    for name, value in options.items():
        assert getattr(lstm, name) == value
        assert f"{name}={value!r}" in repr(lstm)
    assert repr(eval(repr(lstm), {"LSTM": fastlstm.LSTM})) == repr(lstm)


def test_state_defaults_to_zeros(rng: Generator) -> None:
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=True, seed=1)
    v = random_call(rng, lstm, T, B)
    zeros = {name: np.zeros_like(v[name]) for name in ("h_0", "c_0", "dh_n", "dc_n")}
    y, state_n, tape = lstm.forward(v["x"])
    dx, dstate, grads = lstm.backward(tape, v["dy"])
    expected = results(lstm, v | zeros)
    named = {"y": y, "h_n": state_n[0], "c_n": state_n[1], "dx": dx, "dh_0": dstate[0]}
    named |= {"dc_0": dstate[1]} | {f"d {name}": grads[name] for name in grads}
    check_bits(named, expected)


def test_seeds() -> None:
    flat = fastlstm.LSTM(I, H, seed=1).parameters.flat
    assert same_bits(fastlstm.LSTM(I, H, seed=1).parameters.flat, flat)
    assert not same_bits(fastlstm.LSTM(I, H, seed=2).parameters.flat, flat)
    assert not same_bits(fastlstm.LSTM(I, H).parameters.flat, fastlstm.LSTM(I, H).parameters.flat)
    large = fastlstm.LSTM(100, 100, seed=1).parameters.flat
    assert 0.0999 < large.max() <= 0.1  # uniform within 1/sqrt(H)
    assert -0.1 <= large.min() < -0.0999
    assert abs(large.mean()) < 4 * 0.1 / np.sqrt(3 * large.size)


# Arrays in, arrays out


class OnlyDLPack:
    """What a library offers that knows neither NumPy nor buffers."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("kind", [memoryview, OnlyDLPack, np.ma.masked_array])
def test_other_arrays(rng: Generator, kind: Callable[[Array], Any]) -> None:
    lstm = fastlstm.LSTM(I, H, seed=1)
    x = rng.random((T, I), "f4")
    y, _ = lstm(kind(x))
    assert type(y) is np.ndarray
    assert same_bits(y, lstm(x)[0])
    stream = lstm.stream()
    assert same_bits(stream.run(kind(x)), y)


def test_lists_are_float64() -> None:
    x = [[1.0, 2.0], [3.0, 4.0]]
    lstm = fastlstm.LSTM(2, H, dtype="float64", seed=1)
    assert same_bits(lstm(x)[0], lstm(np.array(x))[0])
    with pytest.raises(TypeError, match="x: expected float32, got float64; cast it with"):
        fastlstm.LSTM(2, H)(x)


@pytest.mark.peer
def test_torch_tensors(rng: Generator) -> None:
    torch = pytest.importorskip("torch")
    lstm = fastlstm.LSTM(I, H, seed=1)
    v = random_call(rng, lstm, T, B)
    tensors = {name: torch.from_numpy(array) for name, array in v.items()}
    check_bits(results(lstm, tensors), results(lstm, v))
    with pytest.raises(TypeError, match=r"x: .*requires grad"):
        lstm(tensors["x"].requires_grad_())


def test_inputs_are_not_changed_and_outputs_are_new(rng: Generator) -> None:
    lstm = fastlstm.LSTM(I, H, 2, seed=1)
    v = random_call(rng, lstm, T, B)
    before = {name: array.copy() for name, array in v.items()}
    first, second = results(lstm, v), results(lstm, v)
    kept = {name: array.copy() for name, array in first.items()}
    y, state = lstm(v["x"], (v["h_0"], v["c_0"]))
    for array in [*second.values(), y, *state]:
        assert array.flags.writeable
        array[...] = np.nan  # would be seen below if memory were shared
    check_bits(v, before)
    check_bits(first, kept)
    check_bits(results(lstm, v), kept)


# Parameters: an edit takes effect at the next call, everywhere


def assign_one(lstm: fastlstm.LSTM, flat: Array) -> None:
    start = 0
    for name, array in lstm.parameters.items():
        lstm.parameters[name] = flat[start : start + array.size].reshape(array.shape)
        start += array.size


def load(lstm: fastlstm.LSTM, flat: Array) -> None:
    other = fastlstm.LSTM(I, H, 2)
    other.parameters.flat = flat
    lstm.load_state_dict(other.state_dict())


def optimize(lstm: fastlstm.LSTM, flat: Array) -> None:
    """One step of plain gradient descent to `flat`, by rounding."""
    _, _, tape = lstm.forward(ones(1, I))
    _, _, grads = lstm.backward(tape, ones(1, H))
    grads.flat[:] = lstm.parameters.flat - flat
    SGD(lstm.parameters, lr=1.0).step(grads)


EDITS: dict[str, Callable[[fastlstm.LSTM, Array], None]] = {
    "names": assign_one,
    "flat": lambda lstm, flat: setattr(lstm.parameters, "flat", flat),
    "load_state_dict": load,
    "optimizer": optimize,
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_take_effect(rng: Generator, edit: Callable[[fastlstm.LSTM, Array], None]) -> None:
    lstm = fastlstm.LSTM(I, H, 2, seed=1)
    stream = lstm.stream(B)
    v = random_call(rng, lstm, T, B)
    before = results(lstm, v), lstm(v["x"])[0], stream.step(v["x"][0]), stream.run(v["x"])
    edit(lstm, rng.uniform(-1, 1, lstm.parameters.flat.size).astype("f4"))

    fresh = fastlstm.LSTM(I, H, 2)
    fresh.parameters.flat = lstm.parameters.flat
    check_bits(results(lstm, v), results(fresh, v))
    assert same_bits(lstm(v["x"])[0], fresh(v["x"])[0])
    for through in ("step", "run"):  # each notices by itself
        stream.reset()
        moved = stream.step(v["x"][0]) if through == "step" else stream.run(v["x"])
        other = fresh.stream(B)
        expected = other.step(v["x"][0]) if through == "step" else other.run(v["x"])
        assert same_bits(moved, expected)
        assert not same_bits(moved, before[2 if through == "step" else 3])
        edit(lstm, lstm.parameters.flat / 2)
        fresh.parameters.flat = lstm.parameters.flat
    assert not same_bits(before[0]["dx"], results(lstm, v)["dx"])
    assert not same_bits(before[1], lstm(v["x"])[0])


def test_views_of_parameters_are_read_only() -> None:
    """What could change the weights unnoticed is an error."""
    lstm = fastlstm.LSTM(I, H, seed=1)
    before = lstm.parameters.flat.copy()
    for array in [lstm.parameters.flat, *lstm.parameters.values()]:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    with pytest.raises(ValueError, match="read-only"):
        lstm.parameters["weight_ih_l0"] += 1
    with pytest.raises(KeyError, match="weight_hr_l0"):
        lstm.parameters["weight_hr_l0"] = before
    lstm.state_dict()["weight_ih_l0"][...] = 0
    assert same_bits(lstm.parameters.flat, before)


@pytest.mark.parametrize("value", [np.zeros(3), "zeros", 1j * np.zeros((24, 5)), None])
def test_a_refused_edit_changes_nothing(value: Any) -> None:
    lstm = fastlstm.LSTM(I, H, seed=1)
    before = lstm.parameters.flat.copy()
    y, _, tape = lstm.forward(ones(T, I))
    for edit in (
        lambda: lstm.parameters.__setitem__("weight_ih_l0", value),
        lambda: setattr(lstm.parameters, "flat", value),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^parameters"):
            edit()
    assert same_bits(lstm.parameters.flat, before)
    lstm.backward(tape, y)  # the tape is still of these parameters


def test_gradients_are_one_flat_vector(rng: Generator) -> None:
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=True, seed=1)
    _, _, tape = lstm.forward(ones(T, B, I))
    _, _, grads = lstm.backward(tape, ones(T, B, 2 * H))
    assert list(grads) == list(lstm.parameters)
    assert same_bits(np.concatenate([g.ravel() for g in grads.values()]), grads.flat)
    grads.flat[:] = 7
    assert all((g == 7).all() for g in grads.values())


# Copies


@every_copy
def test_copies_are_equal_and_independent(rng: Generator, duplicate: Callable[[Any], Any]) -> None:
    lstm = fastlstm.LSTM(I, H, 2, dropout=0.5, bidirectional=True, dtype="float64", seed=1)
    v = random_call(rng, lstm, T, B)
    lstm(v["x"])
    twin = duplicate(lstm)
    assert repr(twin) == repr(lstm)
    check_bits(results(twin, v), results(lstm, v))  # masks are drawn alike
    before = lstm(v["x"])[0]
    twin.parameters.flat = twin.parameters.flat * 2
    assert same_bits(lstm(v["x"])[0], before)
    assert not same_bits(twin(v["x"])[0], before)
    lstm.parameters.flat = lstm.parameters.flat * 2
    assert same_bits(lstm(v["x"])[0], twin(v["x"])[0])


@every_copy
def test_copies_of_parameters(duplicate: Callable[[Any], Any]) -> None:
    lstm = fastlstm.LSTM(I, H, seed=1)
    parameters = duplicate(lstm.parameters)
    assert same_bits(parameters.flat, lstm.parameters.flat)
    assert list(parameters) == list(lstm.parameters)
    parameters.flat = parameters.flat * 0
    assert lstm.parameters.flat.any()


# Tapes


def test_tapes_may_be_used_again_and_in_any_order(rng: Generator) -> None:
    lstm = fastlstm.LSTM(I, H, 2, dropout=0.5, seed=1)
    calls = [random_call(rng, lstm, T, B) for _ in range(3)]
    runs = [lstm.forward(v["x"]) for v in calls]
    first = [lstm.backward(tape, v["dy"]) for v, (_, _, tape) in zip(calls, runs, strict=True)]
    for k in (2, 0, 1, 0):
        dx, _, grads = lstm.backward(runs[k][2], calls[k]["dy"])
        assert same_bits(dx, first[k][0])
        assert same_bits(grads.flat, first[k][2].flat)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_nbytes_of_a_tape(dropout: float, isa: str) -> None:
    """Six values per step, row, layer, direction and unit; whole vectors and the start besides."""
    lstm, H = fastlstm.LSTM(I, 64, 2, dropout=dropout), 64
    _, _, tape = lstm.forward(ones(100, 8, I))
    values = (6 * 2 + (dropout > 0)) * 100 * 8 * H
    assert 4 * values < tape.nbytes < 4 * values * 1.02


def test_tapes_hold_a_reference_not_a_copy(rng: Generator) -> None:
    """Of x, whose change before `backward` the documentation forbids."""
    lstm = fastlstm.LSTM(I, H)
    x = rng.random((T, B, I), "f4")
    _, _, tape = lstm.forward(x)
    assert np.shares_memory(tape._inputs.x, x)
