"""GRU, RNN and SLSTM: everything that is tested of the LSTM, where the cell makes a difference."""

from __future__ import annotations

import copy
import pickle
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, Arrays, check_bits, check_close, same_bits

import fastlstm
from fastlstm import reference
from fastlstm._core import library
from fastlstm._layers.states import SingleState, States

CELLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gru": (fastlstm.GRU, {}),
    "gru-before": (fastlstm.GRU, {"reset_after": False}),
    "tanh": (fastlstm.RNN, {}),
    "relu": (fastlstm.RNN, {"nonlinearity": "relu"}),
    "slstm": (fastlstm.SLSTM, {}),
}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
LAYERS: dict[str, dict[str, Any]] = {
    "tiny": {"input_size": 1, "hidden_size": 1},
    "odd": {"input_size": 5, "hidden_size": 17, "bias": False},
    "deep": {"input_size": 20, "hidden_size": 33, "num_layers": 3},
    "both-ways": {"input_size": 9, "hidden_size": 66, "num_layers": 2, "bidirectional": True},
    "batch-first": {"input_size": 3, "hidden_size": 100, "batch_first": True},
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


LSTMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lstm": (fastlstm.LSTM, {}),
    "lstm-options": (fastlstm.LSTM, {"peephole": True}),
}


def own_options(cell: tuple[Any, dict[str, Any]], hidden_size: int) -> dict[str, Any]:
    """Those of the cell; an sLSTM has as many heads as the units allow, most of them odd."""
    kind, own = cell
    if kind is fastlstm.SLSTM:
        own = {"num_heads": next(n for n in (4, 3, 5, 1) if hidden_size % n == 0)}
    return own


def make(cell: tuple[Any, dict[str, Any]], **options: Any) -> Any:
    return cell[0](**{"seed": 1, **options, **own_options(cell, options["hidden_size"])})


def states_of(layer: Any) -> str:
    """A letter for each state that the user has."""
    if isinstance(layer, reference.SLSTM | reference.GRU | reference.RNN):
        return "".join(layer.states)
    return "".join(name[0] for name in layer._states.names[False])


def parts(state: Any) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


def state_of(v: Arrays, pattern: str, states: str) -> Any:
    """The state as a user gives it, from what is named by a pattern."""
    found = tuple(v[pattern.format(letter)] for letter in states)
    return found if len(found) > 1 else found[0]


def random_call(rng: Generator, layer: Any, steps: int, batch: int) -> Arrays:
    """x, the states and the gradients of all outputs: all random, all different."""
    D, H = 1 + layer.bidirectional, layer.hidden_size
    first = (batch, steps) if layer.batch_first else (steps, batch)
    shapes = {"x": (*first, layer.input_size), "dy": (*first, D * H)}
    names = [form.format(s) for s in states_of(layer) for form in ("{}_0", "d{}_n")]
    shapes |= dict.fromkeys(names, (layer.num_layers * D, batch, H))
    v = {name: rng.standard_normal(shape).astype(layer.dtype) for name, shape in shapes.items()}
    if "n_0" in v:
        v["n_0"] = np.abs(v["n_0"]) + np.asarray(0.5, layer.dtype)  # a sum of weights
    return v


def results(layer: Any, v: Arrays, **options: Any) -> Arrays:
    """Everything that forward and backward return."""
    states = states_of(layer)
    y, state_n, tape = layer.forward(v["x"], state_of(v, "{}_0", states), **options)
    dx, dstate_0, grads = layer.backward(tape, v["dy"], state_of(v, "d{}_n", states))
    named = {"y": y, "dx": dx}
    named |= {f"{s}_n": array for s, array in zip(states, parts(state_n), strict=True)}
    named |= {f"d{s}_0": array for s, array in zip(states, parts(dstate_0), strict=True)}
    return named | {f"d {name}": grads[name] for name in grads}


def bound(layer: Any, steps: int, batch: int) -> float:
    """As `error_bound`, for states that only a plain RNN lets grow."""
    width = max(layer.input_size, 2 * layer.hidden_size)
    terms = width + 5 * layer.hidden_size + min(steps * batch, 256) + 80
    return float(16 * layer.num_layers * np.finfo(layer.dtype).eps * np.sqrt(terms))


@every_dtype
@every_cell
@every_layer
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (7, 3), (5, 14), (40, 1)])
def test_against_the_reference(
    rng: Generator, isa: str, cell: Any, layer: dict[str, Any], dtype: str, steps: int, batch: int
) -> None:
    ours = make(cell, **layer, dtype=dtype)
    twin = getattr(reference, type(ours).__name__)(**ours._configuration())
    twin.load_state_dict(ours.state_dict())
    v = random_call(rng, ours, steps, batch)
    got, expected = results(ours, v), results(twin, v)
    assert all(array.dtype == ours.dtype for array in got.values())
    check_close(got, expected, bound(ours, steps, batch))
    y, state_n = ours(v["x"], state_of(v, "{}_0", states_of(ours)))
    if isa != "baseline":
        assert same_bits(y, got["y"])
        for letter, array in zip(states_of(ours), parts(state_n), strict=True):
            assert same_bits(array, got[f"{letter}_n"])


@every_cell
@pytest.mark.parametrize("name", ["odd", "both-ways"])
def test_the_reference_by_finite_differences(rng: Generator, cell: Any, name: str) -> None:
    layer = {**LAYERS[name], "input_size": 2, "hidden_size": 3}
    ours = make(cell, **layer, dtype="float64")
    twin, states = getattr(reference, cell[0].__name__)(**ours._configuration()), states_of(ours)
    for array in twin.parameters.values():
        array[:] = rng.standard_normal(array.shape)
    v = random_call(rng, ours, 4, 2)
    found = results(twin, v)

    def loss(changed: Arrays, parameters: Arrays) -> float:
        other = copy.deepcopy(twin)
        other.parameters = parameters
        y, state_n = other(changed["x"], state_of(changed, "{}_0", states))
        pairs = zip(parts(state_n), parts(state_of(v, "d{}_n", states)), strict=True)
        return float((y * v["dy"]).sum() + sum((a * b).sum() for a, b in pairs))

    step = 1e-6
    for given, gradient in [("x", "dx"), *((f"{s}_0", f"d{s}_0") for s in states)]:
        move = step * rng.standard_normal(v[given].shape)
        up, down = (loss(v | {given: v[given] + m}, twin.parameters) for m in (move, -move))
        assert (up - down) / 2 == pytest.approx((found[gradient] * move).sum(), abs=1e-12)
    for parameter, array in twin.parameters.items():
        move = step * rng.standard_normal(array.shape)
        up, down = (loss(v, twin.parameters | {parameter: array + m}) for m in (move, -move))
        expected = (found[f"d {parameter}"] * move).sum()
        assert (up - down) / 2 == pytest.approx(expected, abs=1e-12), parameter


@every_dtype
@every_cell
@pytest.mark.parametrize("name", ["deep", "both-ways"])
def test_same_bits_on_every_instruction_set(
    rng: Generator, cell: Any, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for isa in (isa for isa in fastlstm.isas() if isa != "baseline"):
        monkeypatch.setenv("FASTLSTM_ISA", isa)
        layer = make(cell, **LAYERS[name], dtype=dtype)
        found.append(results(layer, random_call(np.random.default_rng(1), layer, 9, 7)))
    for other in found[1:]:
        check_bits(other, found[0])


@every_cell
@pytest.mark.parametrize("batch", [2, 40])
def test_same_bits_with_threads_and_segments(
    rng: Generator, cell: Any, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastlstm._core.library, "PROCESSORS", 4)
    layer = make(cell, input_size=64, hidden_size=200)
    v, before, found = random_call(rng, layer, 300, batch), fastlstm.get_num_threads(), []
    try:
        for threads, every in ((1, None), (2, None), (3, None), (2, "auto")):
            fastlstm.set_num_threads(threads)
            found.append(results(layer, v, checkpoint_every=every))
    finally:
        fastlstm.set_num_threads(before)
    for other in found[1:]:
        check_bits(other, found[0])


@every_cell
@pytest.mark.parametrize("layers", [1, 3])
def test_streams(rng: Generator, cell: Any, layers: int) -> None:
    """Steps, chunks and the whole; the state, read and set; copies and pickles."""
    layer, T, B = make(cell, input_size=6, hidden_size=20, num_layers=layers), 12, 3
    v = random_call(rng, layer, T, B)
    state_0 = state_of(v, "{}_0", states_of(layer))
    y, state_n = layer(v["x"], state_0)
    stream = layer.stream(B, state_0)
    steps = [stream.step(x_t) for x_t in v["x"][:4]]
    middle = stream.state
    assert all(part.shape == (layers, B, 20) for part in parts(middle))
    other, third = stream.copy(), pickle.loads(pickle.dumps(stream))
    assert same_bits(np.concatenate([np.stack(steps), stream.run(v["x"][4:])]), y)
    assert all(map(same_bits, parts(stream.state), parts(state_n)))
    assert same_bits(other.run(v["x"][4:]), y[4:])
    assert same_bits(third.run(v["x"][4:]), y[4:])
    stream.state = middle
    assert same_bits(stream.run(v["x"][4:]), y[4:])
    stream.reset()
    assert not np.any(stream.state)


@every_cell
@pytest.mark.parametrize("name", ["odd", "both-ways"])
def test_lengths_and_resets(rng: Generator, cell: Any, name: str) -> None:
    """Each row as if it were alone."""
    layer, T = make(cell, **LAYERS[name]), 11
    lengths = np.array([4, 11, 0, 7, 1])
    v, reset, states = random_call(rng, layer, T, 5), rng.random((T, 5)) < 0.2, states_of(layer)
    got = results(layer, v, lengths=lengths, reset=reset)
    for b, n in enumerate(lengths):
        rows = slice(b, b + 1)
        if n == 0:
            for s in states:
                assert same_bits(got[f"{s}_n"][:, rows], v[f"{s}_0"][:, rows])
                assert same_bits(got[f"d{s}_0"][:, rows], v[f"d{s}_n"][:, rows])
            continue
        one = {"x": v["x"][:n, rows], "dy": v["dy"][:n, rows]}
        one |= {name: v[name][:, rows] for s in states for name in (f"{s}_0", f"d{s}_n")}
        alone = results(layer, one, reset=reset[:n, rows])
        for part in ("y", "dx"):
            assert same_bits(got[part][:n, rows], alone[part]), part
            assert not got[part][n:, rows].any()
        for part in (name for s in states for name in (f"{s}_n", f"d{s}_0")):
            assert same_bits(got[part][:, rows], alone[part]), part


@every_cell
def test_tokens(rng: Generator, cell: Any) -> None:
    layer, tokens = make(cell, input_size=7, hidden_size=20), rng.integers(0, 7, (30, 4))
    v = random_call(rng, layer, 30, 4)
    dense = results(layer, v | {"x": np.eye(7, dtype=np.float32)[tokens]})
    sparse = results(layer, v | {"x": tokens}, embedding="one-hot")
    assert sparse.pop("dx") is None
    del dense["dx"]
    assert same_bits(sparse["y"], dense["y"])
    check_close(sparse, dense, bound(layer, 30, 4))
    table = rng.standard_normal((50, 7), dtype=np.float32)
    assert same_bits(layer(tokens, embedding=table)[0], layer(table[tokens])[0])


@every_cell
def test_weights_in_and_out(cell: Any, tmp_path: Path) -> None:
    layer = make(cell, input_size=3, hidden_size=4, num_layers=2, bidirectional=True)
    kind = type(layer)
    layer.save(tmp_path / "layer.safetensors")
    loaded = kind.load(tmp_path / "layer.safetensors")
    assert repr(loaded) == repr(layer)
    assert same_bits(loaded.parameters.flat, layer.parameters.flat)
    assert same_bits(copy.deepcopy(layer).parameters.flat, layer.parameters.flat)
    with pytest.raises(ValueError, match=r"layer\.safetensors"):
        fastlstm.LSTM.load(tmp_path / "layer.safetensors")


def test_names() -> None:
    assert repr(fastlstm.GRU(2, 3)) == "GRU(2, 3)"
    assert repr(fastlstm.RNN(2, 3, nonlinearity="relu")) == "RNN(2, 3, nonlinearity='relu')"
    assert fastlstm.GRU(2, 3).parameters["weight_hh_l0"].shape == (9, 3)
    assert fastlstm.RNN(2, 3).parameters["bias_ih_l0"].shape == (3,)


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda: fastlstm.RNN(2, 3, nonlinearity="sin"), ValueError, "nonlinearity: expected 'ta"),
        (lambda: fastlstm.GRU(2, 3, proj_size=1), TypeError, "proj_size"),
        (
            lambda: fastlstm.GRU(2, 3)(np.ones((4, 1, 2), "f4"), (np.zeros((1, 1, 3), "f4"),) * 2),
            TypeError,
            "h_0: expected an array, got a tuple: this cell has one state",
        ),
        (
            lambda: fastlstm.GRU(2, 3)(np.ones((4, 1, 2), "f4"), np.zeros((1, 2, 3), "f4")),
            ValueError,
            r"h_0: expected \(1, 1, 3\), got \(1, 2, 3\)",
        ),
    ],
)
def test_errors(action: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        action()


@pytest.mark.peer
@pytest.mark.parametrize("cell", [CELLS[name] for name in ("gru", "tanh", "relu")])
@pytest.mark.parametrize(
    ("layers", "both", "bias", "first"),
    list(product([1, 2], [False, True], [True, False], [False, True])),
)
def test_against_torch(
    rng: Generator, cell: Any, layers: int, both: bool, bias: bool, first: bool
) -> None:
    """Outputs and all gradients, weights taken over from the module."""
    torch = pytest.importorskip("torch")
    kind, own = cell
    torch.manual_seed(1)
    options = {"num_layers": layers, "bidirectional": both, "bias": bias, "batch_first": first}
    module = getattr(torch.nn, kind.__name__)(5, 19, **options, **own, dtype=torch.float64)
    layer = kind.from_torch(module)
    assert type(layer)(5, 19, **options, **own)._configuration() == {
        **layer._configuration(),
        "dtype": "float32",
    }
    v = random_call(rng, layer, 8, 6)
    x, h_0 = (torch.tensor(v[name], requires_grad=True) for name in ("x", "h_0"))
    y, h_n = module(x, h_0)
    ((y * torch.tensor(v["dy"])).sum() + (h_n * torch.tensor(v["dh_n"])).sum()).backward()
    theirs: dict[str, Array] = {"y": y.detach().numpy(), "h_n": h_n.detach().numpy()}
    theirs |= {"dx": x.grad.numpy(), "dh_0": h_0.grad.numpy()}
    theirs |= {f"d {name}": p.grad.numpy() for name, p in module.named_parameters()}
    check_close(results(layer, v), theirs, 1e-12)


def test_table_of_cells() -> None:
    """The rows of src/cells.h are what layers are made of."""
    rows, seen = {row.name: row for row in library.cells()}, set()
    for cell in [*CELLS.values(), *LSTMS.values()]:
        layer = make(cell, input_size=2, hidden_size=5)
        row = rows[layer._cell]
        _, state = layer(np.zeros((3, 2), np.float32))
        assert len(layer.parameters["weight_hh_l0"]) == 5 * len(row.gates)
        assert len(set(row.states)) == len(parts(state))
        assert row.biases == sum(name.startswith("bias") for name in layer.parameters)
        assert row.has_options == (layer._core_options() is not None)
        seen.add(row.name)
    assert seen == set(rows)


def test_states_of_a_cell() -> None:
    """Four, as of an sLSTM, the first of other units; and one that the core has twice."""
    four = States("hcnm", 2, 3, np.dtype("f8"))
    arrays = four.to_core(None, "state", (5,))
    assert [array.shape for array in arrays] == [(5, 2), (5, 3), (5, 3), (5, 3)]
    for array, value in zip(arrays, range(4), strict=True):
        array += value
    state = four.from_core(four.to_core(tuple(arrays), "state", (5,)))
    assert [part.max() for part in state] == [0, 1, 2, 3]
    with pytest.raises(TypeError, match=r"^state: expected a tuple \(h_0, c_0, n_0, m_0\), got 3 "):
        four.to_core(state[:3], "state", (5,))

    one = SingleState("hh", 3, 3, np.dtype("f8"))
    h = np.arange(3.0)
    first, copy = one.to_core(h, "state", ())
    assert (first == h).all()
    assert (copy == h).all()
    assert not np.shares_memory(first, copy)
    first, copy = one.to_core(h, "dstate", (), gradient=True)
    assert (first == h).all()
    assert not copy.any()
    assert (one.from_core([h, 2 * h], gradient=True) == 3 * h).all()
    assert one.from_core([h, 2 * h]) is h
