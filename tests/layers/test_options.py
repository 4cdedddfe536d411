"""Options of the LSTM: each, and every pair, against the reference; then what holds for all."""

from __future__ import annotations

import copy
import pickle
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import (
    Arrays,
    check_bits,
    check_close,
    error_bound,
    lanes,
    random_call,
    results,
    same_bits,
    twin,
)
from support.draws import masks, uniform

import fastlstm
from fastlstm._io import tensor_file
from fastlstm._layers.options import ACTIVATIONS

OPTIONS: dict[str, dict[str, Any]] = {
    "projection": {"proj_size": 5},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "norm": {"layer_norm": True},
    "norm-eps": {"layer_norm": True, "layer_norm_eps": 0.03},
    "cell-clip": {"cell_clip": 0.4},
    "preact-clip": {"preact_clip": 0.5},
    "functions": {"activations": ("hard_sigmoid", "softsign", ("leaky_relu", 0.3))},
    "zoneout": {"zoneout": (0.3, 0.4)},
    "recurrent-dropout": {"recurrent_dropout": 0.4},
    "both-ways": {"bidirectional": True},
    "deep": {"num_layers": 3, "dropout": 0.2},
    "no-bias": {"bias": False},
}
PAIRS = {
    f"{a}+{b}": OPTIONS[a] | OPTIONS[b] for a, b in combinations(OPTIONS, 2) if a != b
} | OPTIONS
# All at once, as far as chance is not in it: a row alone has the bits of a row among others.
EVERYTHING: dict[str, Any] = {
    "proj_size": 11,
    "peephole": True,
    "layer_norm": True,
    "cell_clip": 0.6,
    "preact_clip": 1.5,
    "activations": ("sigmoid", "softsign", ("scaled_tanh", 1.2, 0.7)),
    "num_layers": 2,
}
CHANCE: dict[str, Any] = {"zoneout": (0.2, 0.3), "recurrent_dropout": 0.3, "dropout": 0.1}


def make(input_size: int = 7, hidden_size: int = 19, **options: Any) -> fastlstm.LSTM:
    """A layer whose gains are not all 1."""
    lstm = fastlstm.LSTM(input_size, hidden_size, seed=3, **options)
    rng = np.random.default_rng(4)
    for name, array in lstm.parameters.items():
        if name.startswith("weight_ln"):
            lstm.parameters[name] = rng.uniform(0.5, 1.5, array.shape)
    return lstm


def check(rng: Generator, lstm: fastlstm.LSTM, steps: int, batch: int) -> None:
    """Training with its masks, then inference, against the reference."""
    v, chance = random_call(rng, lstm, steps, batch), masks(lstm, steps, batch)
    # A norm divides by standard deviations of less than one: rounding grows with it, at every step.
    other, bound = twin(lstm), error_bound(lstm, steps, batch) * (8 if lstm.layer_norm else 1)
    check_close(results(lstm, v), results(other, v, **chance), bound)
    (y, (h, c)), (y2, (h2, c2)) = (m(v["x"], (v["h_0"], v["c_0"])) for m in (lstm, other))
    check_close({"y": y, "h": h, "c": c}, {"y": y2, "h": h2, "c": c2}, bound)


@pytest.mark.parametrize("options", PAIRS.values(), ids=PAIRS)
def test_every_pair_against_the_reference(
    rng: Generator, isa: str, options: dict[str, Any]
) -> None:
    check(rng, make(dtype="float64", **options), 6, 8)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_in_float32(rng: Generator, isa: str, options: dict[str, Any]) -> None:
    check(rng, make(dtype="float32", **options), 9, 5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_function_in_each_place(rng: Generator, isa: str, name: str, dtype: str) -> None:
    numbers = [0.7 * n + 0.1 for n in ACTIVATIONS[name]]
    for place in range(3):
        functions: list[Any] = ["sigmoid", "tanh", "tanh"]
        functions[place] = (name, *numbers)
        check(rng, make(dtype=dtype, activations=functions), 5, 4)


def test_functions_of_each_direction(rng: Generator) -> None:
    functions = ("sigmoid", "relu", "tanh", "hard_sigmoid", "tanh", "softsign")
    check(rng, make(dtype="float64", bidirectional=True, activations=functions), 5, 4)


UNITS = [(0, 1), (1, -1), (1, 0), (1, 1), (4, -1), (4, 1), (0, 37)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps_batch", [(1, 1), (7, 3), (2, 13), (9, 5), (2, 300)])
@pytest.mark.parametrize("units", UNITS, ids=lambda unit: "H={}V{:+}".format(*unit))
def test_sizes_around_the_tile_edges(
    rng: Generator, isa: str, dtype: str, units: tuple[int, int], steps_batch: tuple[int, int]
) -> None:
    hidden = units[0] * lanes(isa, dtype) + units[1]
    projection = {"proj_size": max(hidden - 3, 0)}
    options = {**EVERYTHING, **CHANCE, **projection, "bidirectional": True}
    # Two units alone are normed to 1 and -1 whatever they were, and a few nearly so.
    options["layer_norm"] = hidden > 6
    check(rng, make(9, hidden, dtype=dtype, **options), *steps_batch)


def test_finite_differences(rng: Generator) -> None:
    """Of the layer itself; the masks are those of its seed."""
    options = {**EVERYTHING, **CHANCE, "coupled": True, "bidirectional": True, "dtype": "float64"}
    lstm = make(3, 13, **options)
    v = random_call(rng, lstm, 5, 2)
    found = results(copy.deepcopy(lstm), v)

    def loss(changed: Arrays, flat: Any) -> float:
        other = copy.deepcopy(lstm)
        other.parameters.flat = flat
        y, (h_n, c_n), _ = other.forward(changed["x"], (changed["h_0"], changed["c_0"]))
        return float(sum((a * v[d]).sum() for a, d in ((y, "dy"), (h_n, "dh_n"), (c_n, "dc_n"))))

    step, flat = 1e-6, lstm.parameters.flat.copy()
    for given in ("x", "h_0", "c_0"):
        move = step * rng.standard_normal(v[given].shape)
        up, down = (loss(v | {given: v[given] + m}, flat) for m in (move, -move))
        assert (up - down) / 2 == pytest.approx((found[f"d{given}"] * move).sum(), abs=1e-12)
    gradient = np.concatenate([found[f"d {name}"].ravel() for name in lstm.parameters])
    for _ in range(5):
        move = step * rng.standard_normal(flat.shape)
        up, down = (loss(v, flat + m) for m in (move, -move))
        assert (up - down) / 2 == pytest.approx((gradient * move).sum(), abs=1e-12)


@pytest.mark.parametrize("options", [EVERYTHING, {**EVERYTHING, "zoneout": (0.2, 0.3)}])
def test_streams_and_chunks(rng: Generator, isa: str, options: dict[str, Any]) -> None:
    lstm = make(**options)
    v = random_call(rng, lstm, 30, 3)
    start = (v["h_0"], v["c_0"])
    y, state_n = lstm(v["x"], start)
    stream = lstm.stream(3, start)
    parts = [stream.step(v["x"][0])[None], stream.run(v["x"][1:20])]
    parts += [stream.step(x_t)[None] for x_t in v["x"][20:]]
    assert same_bits(np.concatenate(parts), y)
    assert all(map(same_bits, stream.state, state_n))


@pytest.mark.parametrize("name", PAIRS)
def test_the_trace_is_of_the_same_bits(rng: Generator, name: str) -> None:
    lstm = make(**PAIRS[name])
    x = rng.standard_normal((6, 4, 7), dtype=np.float32)
    y, (_, c_n) = lstm(x)
    traces = lstm.trace(x)
    D = 1 + lstm.bidirectional
    assert same_bits(np.concatenate([t.hidden for t in traces[-D:]], axis=-1), y)
    assert same_bits(traces[0].cell[-1], c_n[0])
    if lstm.coupled:
        np.testing.assert_array_equal(traces[0].forget, 1 - traces[0].input)


def test_chance_is_drawn_anew_and_by_the_seed(rng: Generator) -> None:
    options = {**CHANCE, "num_layers": 2}
    lstm, again = make(**options), make(**options)
    v = random_call(rng, lstm, 5, 4)
    first, second = results(lstm, v), results(lstm, v)
    check_bits(results(again, v), first)
    assert not same_bits(first["y"], second["y"])
    assert 0.45 < np.mean(uniform(5, 1, (100, 100)) < 0.5) < 0.55


def test_zoneout_of_everything_keeps_the_state(rng: Generator) -> None:
    lstm = make(zoneout=(1.0, 1.0))
    v = random_call(rng, lstm, 5, 4)
    got = results(lstm, v)
    assert same_bits(got["h_n"], v["h_0"])
    assert same_bits(got["c_n"], v["c_0"])
    assert (got["y"] == v["h_0"]).all()
    assert not got["dx"].any()


def test_copies_and_files(tmp_path: Path) -> None:
    functions = ("sigmoid", ("elu", 0.5), "tanh")
    options = {"activations": functions, "coupled": True, "layer_norm_eps": 1e-3}
    lstm = make(**{**EVERYTHING, **CHANCE, **options})
    x = np.ones((4, 2, 7), np.float32)
    lstm.save(tmp_path / "layer.safetensors")
    for other in (
        fastlstm.LSTM.load(tmp_path / "layer.safetensors"),
        pickle.loads(pickle.dumps(lstm)),
        copy.deepcopy(lstm),
    ):
        assert repr(other) == repr(lstm)
        assert same_bits(other(x)[0], lstm(x)[0])
    assert "proj_size=11" in repr(lstm)
    assert "layer_norm_eps=0.001" in repr(lstm)
    assert "'elu', 0.5" in repr(lstm)
    assert repr(make()) == "LSTM(7, 19)"


def test_layers_saved_before_there_was_an_epsilon(rng: Generator, tmp_path: Path) -> None:
    lstm = make(layer_norm=True)
    x = rng.standard_normal((4, 2, 7), dtype=np.float32)
    config = lstm._configuration()
    assert config.pop("layer_norm_eps") == 1e-5
    tensor_file.write(tmp_path / "old", "LSTM", lstm.parameters, config)
    unpickled = copy.copy(lstm)
    del unpickled.__dict__["layer_norm_eps"]
    for old in (fastlstm.LSTM.load(tmp_path / "old"), pickle.loads(pickle.dumps(unpickled))):
        assert repr(old) == repr(lstm)
        assert same_bits(old(x)[0], lstm(x)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_norm_of_tflite(rng: Generator, isa: str, dtype: str) -> None:
    """It adds 1e-8; where sums are small, 1e-5 is another function."""
    lstm, other = (
        fastlstm.LSTM(4, 5, layer_norm=True, layer_norm_eps=eps, dtype=dtype)
        for eps in (1e-8, 1e-5)
    )
    lstm.parameters.flat = 0.1 * rng.standard_normal(lstm.parameters.flat.size)
    lstm.parameters["weight_ln_l0"] = np.ones(20)
    other.parameters.flat = lstm.parameters.flat
    w, u, b_ih, b_hh, gain = (np.split(p.astype("f8"), 4) for p in lstm.parameters.values())
    x, h, c, expected = rng.standard_normal((6, 4)).astype(dtype), np.zeros(5), np.zeros(5), []
    for x_t in x:
        z = []
        for q in range(4):
            a = w[q] @ x_t + u[q] @ h
            normed = (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + 1e-8)
            z.append(gain[q] * normed + b_ih[q] + b_hh[q])
        i, f, o = (1 / (1 + np.exp(-z[q])) for q in (0, 1, 3))
        c = f * c + i * np.tanh(z[2])
        h = o * np.tanh(c)
        expected.append(h)
    assert np.abs(lstm(x)[0] - expected).max() < 100 * np.finfo(dtype).eps
    assert np.abs(other(x)[0] - expected).max() > 1e-4


def test_sizes_from_a_mapping() -> None:
    lstm = make(proj_size=4, peephole=True, layer_norm=True, layer_norm_eps=1e-3, num_layers=2)
    other = fastlstm.LSTM.from_torch(lstm.state_dict(), layer_norm_eps=1e-3)
    assert repr(other) == repr(lstm)
    for kind in (fastlstm.GRU, fastlstm.RNN):
        with pytest.raises(ValueError, match="got proj_size"):
            kind.from_torch(lstm.state_dict())


SHAPES = {"weight_hr_l0": (4, 19), "weight_ch_l0": (57,), "weight_ln_l0": (76,)}


def test_shapes_of_parameters() -> None:
    lstm = make(proj_size=4, peephole=True, layer_norm=True, bidirectional=True, num_layers=2)
    shapes = {name: array.shape for name, array in lstm.parameters.items()}
    assert SHAPES.items() <= shapes.items()
    assert shapes["weight_hh_l0"] == (76, 4)
    assert shapes["weight_ih_l1"] == (76, 8)
    assert list(shapes)[:7] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", *SHAPES]
    assert (fastlstm.LSTM(2, 3, layer_norm=True).parameters["weight_ln_l0"] == 1).all()
    few = fastlstm.LSTM(2, 3, coupled=True, peephole=True, layer_norm=True).parameters
    sizes = [len(few[name]) for name in ("weight_ih_l0", "weight_ch_l0", "weight_ln_l0")]
    assert sizes == [9, 6, 9]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"proj_size": 3}, ValueError, "proj_size: expected less than hidden_size, 3, got 3"),
        ({"proj_size": -1}, ValueError, "proj_size: expected at least 0, got -1"),
        ({"cell_clip": -1}, ValueError, "cell_clip: expected None or a number above 0, got -1"),
        ({"preact_clip": 0}, ValueError, "preact_clip: expected None or a number above 0, got 0"),
        ({"preact_clip": "1"}, TypeError, "preact_clip: expected None or a number above 0, got s"),
        ({"cell_clip": 1e-60}, ValueError, "cell_clip: .* got 1e-60"),
        ({"cell_clip": np.nan}, ValueError, "cell_clip: .* got nan"),
        ({"cell_clip": np.float32(np.inf)}, ValueError, "cell_clip: .* got inf"),
        ({"layer_norm": True, "layer_norm_eps": 0}, ValueError, "expected a number above 0, got 0"),
        ({"layer_norm": True, "layer_norm_eps": np.inf}, ValueError, "layer_norm_eps: .* got inf"),
        ({"layer_norm": True, "layer_norm_eps": np.nan}, ValueError, "layer_norm_eps: .* got nan"),
        (
            {"layer_norm": True, "layer_norm_eps": None},
            TypeError,
            "layer_norm_eps: .* got NoneType",
        ),
        (
            {"layer_norm_eps": 1e-8},
            ValueError,
            "layer_norm_eps: expected layer_norm=True with it, got 1e-08 and no layer norm",
        ),
        ({"preact_clip": 10**400}, ValueError, "preact_clip: expected None or a number above 0"),
        ({"activations": "tanh"}, ValueError, "activations: expected 3 functions .* got 'tanh'"),
        ({"activations": ("tanh",) * 6}, ValueError, "activations: expected 3 functions"),
        (
            {"activations": ("tanh",) * 4, "bidirectional": True},
            ValueError,
            "activations: expected 3 functions .* or 6",
        ),
        (
            {"activations": ("sigmoid", "gelu", "tanh")},
            ValueError,
            r"activations\[1\]: expected one of sigmoid, tanh, relu, .*, got 'gelu'",
        ),
        (
            {"activations": ("sigmoid", ("tanh", 2), "tanh")},
            ValueError,
            r"activations\[1\]: expected at most 0 numbers with 'tanh'",
        ),
        (
            {"activations": (("elu", "a"), "tanh", "tanh")},
            ValueError,
            r"activations\[0\]: expected finite numbers with 'elu'",
        ),
        (
            {"activations": (("elu", 10**400), "tanh", "tanh")},
            ValueError,
            r"activations\[0\]: expected finite numbers with 'elu'",
        ),
        ({"activations": (1, 2, 3)}, TypeError, r"activations\[0\]: expected a name"),
        (
            {"zoneout": 0.1},
            TypeError,
            r"zoneout: expected a pair \(rate of h, rate of c\), got 0.1",
        ),
        ({"zoneout": (0.1, 2)}, ValueError, r"zoneout\[1\]: expected a number from 0 to 1, got 2"),
        ({"recurrent_dropout": 1.5}, ValueError, "recurrent_dropout: .* from 0 to 1, got 1.5"),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastlstm.LSTM(2, 3, **options)


@pytest.mark.parametrize("option", ["peephole", "coupled", "layer_norm", "proj_size", "zoneout"])
@pytest.mark.parametrize("kind", [fastlstm.GRU, fastlstm.RNN])
def test_options_of_other_cells(kind: Any, option: str) -> None:
    with pytest.raises(TypeError, match=f"{option}: is an option of LSTM, not of {kind.__name__}"):
        kind(2, 3, **{option: True})


@pytest.mark.parametrize("name", ["cell_clip", "zoneout", "layer_norm_eps", "hidden_size", "dtype"])
def test_what_is_made_cannot_be_changed(name: str) -> None:
    lstm = make()
    before = getattr(lstm, name)
    with pytest.raises(AttributeError, match=f"{name}: cannot be changed; make another LSTM"):
        setattr(lstm, name, 1)
    assert getattr(lstm, name) == before
    lstm.recurrent_dropout = 0.5  # this can, as dropout
    x = np.ones((2, 1, 7), np.float32)
    assert not same_bits(lstm.forward(x)[0], lstm(x)[0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_functions_of_infinite_numbers(isa: str, name: str) -> None:
    """As of large ones: what overflowed upstream is no reason for a not-a-number."""
    lstm = fastlstm.LSTM(1, 1, activations=("sigmoid", name, "tanh"), dtype="float64")
    lstm.parameters.flat = np.ones(lstm.parameters.flat.shape)
    for sign in (1.0, -1.0):
        candidate = lstm.trace(np.array([[sign * np.inf]]))[0].candidate.item()
        large = lstm.trace(np.array([[sign * 1e9]]))[0].candidate.item()
        assert candidate == pytest.approx(large, rel=1e-6) or (
            np.isinf(candidate) and abs(large) > 1e6
        )


def test_states_have_their_own_widths() -> None:
    lstm = make(proj_size=4)
    x = np.ones((3, 2, 7), np.float32)
    h, c = np.zeros((1, 2, 4), np.float32), np.zeros((1, 2, 19), np.float32)
    y, (h_n, c_n) = lstm(x, (h, c))
    assert (y.shape, h_n.shape, c_n.shape) == ((3, 2, 4), (1, 2, 4), (1, 2, 19))
    with pytest.raises(ValueError, match=r"h_0: expected \(1, 2, 4\), got \(1, 2, 19\)"):
        lstm(x, (c, h))
