"""The reference's options: finite differences for each and for every pair, direct formulas."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, Arrays
from support.reference_layers import B, H, I, T, random_call, random_layer, results

from fastlstm import reference

OPTIONS: dict[str, dict[str, Any]] = {
    "projection": {"proj_size": 4},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "layer-norm": {"layer_norm": True},
    "norm-eps": {"layer_norm": True, "layer_norm_eps": 0.1},
    "cell-clip": {"cell_clip": 0.4},
    "preact-clip": {"preact_clip": 0.7},
    "zoneout": {"zoneout": (0.4, 0.3)},
    "recurrent-dropout": {"recurrent_dropout": 0.5},
    "both-ways": {"bidirectional": True},
    "two-layers": {"num_layers": 2, "bias": False},
}
CASES = OPTIONS | {f"{a} {b}": OPTIONS[a] | OPTIONS[b] for a, b in combinations(OPTIONS, 2)}
for place, defaults in enumerate([("tanh", "tanh"), ("sigmoid", "tanh"), ("sigmoid", "tanh")]):
    for name in reference.ACTIVATIONS:
        three = (*defaults[:place], name, *defaults[place:])
        CASES[" ".join(three)] = {"activations": three}
CONSTANTS = [("elu", 0.7), ("affine", 0.8, 0.1), ("scaled_tanh", 1.3, 0.6), "sigmoid", "tanh"]
OF_BOTH_WAYS = {"activations": [*CONSTANTS, ("leaky_relu", 0.3)]}
CASES["everything"] = {k: v for options in OPTIONS.values() for k, v in options.items()}
CASES["everything"] |= OF_BOTH_WAYS


def random_masks(rng: Generator, lstm: reference.LSTM) -> dict[str, Any]:
    """Those that the layer needs, of zeros and 2 or 1."""
    masks: dict[str, Any] = {}
    P, LD = lstm.output_size, len(lstm.suffixes) * lstm.num_layers
    if lstm.recurrent_dropout:
        masks["recurrent_masks"] = [rng.integers(0, 2, (B, P)) * 2 for _ in range(LD)]
    if any(lstm.zoneout):
        pairs = [[rng.integers(0, 2, (T, B, n)) for n in (P, H)] for _ in range(LD)]
        masks["zoneout_masks"] = pairs
    return masks


def check_gradients(
    rng: Generator, layer: Any, at: Arrays, got: Arrays, loss: Callable[[Arrays], float]
) -> None:
    """Each gradient along a random direction, against central differences; `at` is not changed."""
    for name, value in at.items():
        direction = rng.standard_normal(value.shape)
        above, below = (loss(at | {name: value + eps * direction}) for eps in (1e-6, -1e-6))
        expected = np.vdot(got[name], direction)
        assert (above - below) / 2e-6 == pytest.approx(expected, rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_are_those_of_finite_differences(rng: Generator, case: dict[str, Any]) -> None:
    """Of x, h_0, c_0 and each parameter, through y, h_n and c_n at once."""
    lstm = random_layer(reference.LSTM, rng, **case)
    v, masks = random_call(rng, lstm), random_masks(rng, lstm)
    found = results(lstm, v, **masks)

    def loss(at: Arrays) -> float:
        lstm.parameters = {name: at[name] for name in lstm.parameters}
        y, (h_n, c_n), _ = lstm.forward(at["x"], (at["h_0"], at["c_0"]), **masks)
        return float(np.vdot(v["dy"], y) + np.vdot(v["dh_n"], h_n) + np.vdot(v["dc_n"], c_n))

    at = {name: v[name] for name in ("x", "h_0", "c_0")} | lstm.parameters
    got = {name: found[f"d {name}" if name in lstm.parameters else f"d{name}"] for name in at}
    assert [name for name in found if name.startswith("d ")] == [f"d {n}" for n in lstm.parameters]
    check_gradients(rng, lstm, at, got, loss)


@pytest.mark.parametrize("case", [c for c in CASES if "clip" in c or c == "everything"])
def test_clips_clip_some_values_in_the_cases_above(rng: Generator, case: str) -> None:
    """And not all; else their gradients would not be tested."""
    lstm = random_layer(reference.LSTM, rng, **CASES[case])
    v, masks = random_call(rng, lstm), random_masks(rng, lstm)
    _, _, tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]), **masks)
    for saved in tape.saved:
        cells = np.abs([step.s for step in saved.steps])
        preacts = np.abs([[gate.z for gate in step.gates.values()] for step in saved.steps])
        if "cell_clip" in CASES[case]:
            assert 0.1 < np.mean(cells >= 0.4) < 0.9
        if "preact_clip" in CASES[case]:
            assert 0.1 < np.mean(preacts >= 0.7) < 0.9


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_gru_that_resets_before(rng: Generator, layers: int, bidirectional: bool) -> None:
    gru = random_layer(
        reference.GRU, rng, num_layers=layers, bidirectional=bidirectional, reset_after=False
    )
    v = random_call(rng, gru)
    _, _, tape = gru.forward(v["x"], v["h_0"])
    dx, dh_0, grads = gru.backward(tape, v["dy"], v["dh_n"])

    def loss(at: Arrays) -> float:
        gru.parameters = {name: at[name] for name in gru.parameters}
        y, h_n = gru(at["x"], at["h_0"])
        return float(np.vdot(v["dy"], y) + np.vdot(v["dh_n"], h_n))

    at = {"x": v["x"], "h_0": v["h_0"]} | gru.parameters
    check_gradients(rng, gru, at, {"x": dx, "h_0": dh_0} | grads, loss)


def test_without_options_it_is_the_textbook_cell(rng: Generator) -> None:
    """`options_forward` and `lstm_forward`; masks of ones choose the first."""
    lstm = random_layer(reference.LSTM, rng, num_layers=2, bidirectional=True)
    v = random_call(rng, lstm)
    plain, neutral = results(lstm, v), results(lstm, v, recurrent_masks=[np.ones((B, H))] * 4)
    assert not np.array_equal(plain["dx"], neutral["dx"])  # rounded differently: two functions
    for name in plain:
        np.testing.assert_allclose(neutral[name], plain[name], 1e-12, 1e-13, err_msg=name)


@pytest.mark.parametrize("coupled", [False, True])
def test_all_together_by_their_formulas(rng: Generator, coupled: bool) -> None:
    """The definition once more, gate by gate."""
    options = {**CASES["everything"], "num_layers": 1, "bidirectional": False, "bias": True}
    options |= {"coupled": coupled, "activations": ("sigmoid", "softsign", "tanh")}
    lstm = random_layer(reference.LSTM, rng, **options)
    v, masks = random_call(rng, lstm), random_masks(rng, lstm)
    [r], [(zh, zc)], gates = *masks.values(), "igo" if coupled else "ifgo"

    def of(name: str, gates: str) -> Arrays:
        return dict(zip(gates, np.split(lstm.parameters[f"{name}_l0"], len(gates)), strict=True))

    peephole = of("weight_ch", gates.replace("g", "")) | {"g": np.zeros(H)}
    w, u, b_ih, b_hh, gain = (
        of(name, gates) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ln")
    )

    def clip(value: Array, bound: float) -> Array:
        return np.minimum(np.maximum(value, -bound), bound)

    def z(q: str, x: Array, h: Array, c: Array) -> Array:
        a = x @ w[q].T + (r * h) @ u[q].T + peephole[q] * c
        a = a - a.mean(axis=1)[:, None]
        a = gain[q] * a / np.sqrt((a**2).mean(axis=1) + 0.1)[:, None]
        return clip(a + b_ih[q] + b_hh[q], 0.7)

    (h,), (c,), y = v["h_0"], v["c_0"], []
    for t, x in enumerate(v["x"]):
        i, g = reference.sigmoid(z("i", x, h, c)), z("g", x, h, c)
        f = 1 - i if coupled else reference.sigmoid(z("f", x, h, c))
        new_c = clip(f * c + i * g / (1 + np.abs(g)), 0.4)
        new_h = reference.sigmoid(z("o", x, h, new_c)) * np.tanh(new_c)
        h = np.where(zh[t] == 1, h, new_h @ lstm.parameters["weight_hr_l0"].T)
        c = np.where(zc[t] == 1, c, new_c)
        y.append(h)
    got_y, (h_n, c_n), _ = lstm.forward(v["x"], (v["h_0"], v["c_0"]), **masks)
    np.testing.assert_allclose(got_y, y, rtol=1e-12)
    np.testing.assert_allclose(h_n, [h], rtol=1e-12)
    np.testing.assert_allclose(c_n, [c], rtol=1e-12)


def test_inference_takes_the_rates_of_zoneout_and_no_recurrent_mask(rng: Generator) -> None:
    options = {"num_layers": 2, "bidirectional": True, "proj_size": 4}
    lstm = random_layer(reference.LSTM, rng, zoneout=(0.4, 0.3), recurrent_dropout=0.5, **options)
    v = random_call(rng, lstm)
    rates = [(np.full((T, B, 4), 0.4), np.full((T, B, H), 0.3))] * 4
    ones = [np.ones((B, 4))] * 4
    state = (v["h_0"], v["c_0"])
    y, state_n, _ = lstm.forward(v["x"], state, recurrent_masks=ones, zoneout_masks=rates)
    got_y, got_state = lstm(v["x"], state)
    np.testing.assert_array_equal(got_y, y)
    for got, expected in zip(got_state, state_n, strict=True):
        np.testing.assert_array_equal(got, expected)
    dropped = random_masks(rng, lstm)["recurrent_masks"]
    y, _, _ = lstm.forward(v["x"], state, recurrent_masks=dropped, zoneout_masks=rates)
    assert not np.allclose(y, got_y)


def test_reverse_direction_has_its_own_activations_and_masks_in_the_order_of_time(
    rng: Generator,
) -> None:
    options = {"proj_size": 4, "zoneout": (0.4, 0.3), "recurrent_dropout": 0.5}
    both = random_layer(reference.LSTM, rng, bidirectional=True, **options, **OF_BOTH_WAYS)
    v, masks = random_call(rng, both), random_masks(rng, both)
    y, (h_n, c_n), _ = both.forward(v["x"], (v["h_0"], v["c_0"]), **masks)
    for d, (suffix, step) in enumerate([("", 1), ("_reverse", -1)]):
        three = OF_BOTH_WAYS["activations"][3 * d : 3 * d + 3]
        one = reference.LSTM(I, H, **options, activations=three)
        one.load_state_dict({name: both.parameters[name + suffix] for name in one.parameters})
        y_d, (h_d, c_d), _ = one.forward(
            v["x"][::step],
            (v["h_0"][[d]], v["c_0"][[d]]),
            recurrent_masks=[masks["recurrent_masks"][d]],
            zoneout_masks=[[z[::step] for z in masks["zoneout_masks"][d]]],
        )
        np.testing.assert_array_equal(y[..., 4 * d : 4 * d + 4], y_d[::step])
        np.testing.assert_array_equal(h_n[d], h_d[0])
        np.testing.assert_array_equal(c_n[d], c_d[0])


def test_layouts_do_not_move_masks(rng: Generator) -> None:
    lstm = random_layer(reference.LSTM, rng, **CASES["everything"])
    v, masks = random_call(rng, lstm), random_masks(rng, lstm)
    expected = results(lstm, v, **masks)
    lstm.batch_first = True
    turned = results(lstm, v | {name: v[name].swapaxes(0, 1) for name in ("x", "dy")}, **masks)
    for name in ("y", "dx"):
        turned[name] = turned[name].swapaxes(0, 1)
    for name in expected:
        np.testing.assert_array_equal(turned[name], expected[name], err_msg=name)
    row = {name: value[:, 1] for name, value in v.items()}
    own = {
        "recurrent_masks": [r[1:2] for r in masks["recurrent_masks"]],
        "zoneout_masks": [[z[:, 1:2] for z in pair] for pair in masks["zoneout_masks"]],
    }
    alone = results(lstm, row, **own)
    for name in ("y", "h_n", "c_n", "dx", "dh_0", "dc_0"):
        np.testing.assert_allclose(alone[name], expected[name][:, 1], 1e-11, 1e-13, err_msg=name)


@pytest.mark.parametrize("empty", ["T", "B"])
def test_nothing_to_do_is_legal(rng: Generator, empty: str) -> None:
    options = CASES["everything"] | {"zoneout": (0, 0), "recurrent_dropout": 0}
    lstm = random_layer(reference.LSTM, rng, **options)
    v = random_call(rng, lstm)
    if empty == "T":
        v |= {"x": v["x"][:0], "dy": v["dy"][:0]}
    else:
        v = {name: value[:, :0] for name, value in v.items()}
    found = results(lstm, v)
    for got, given in (("y", "dy"), ("h_n", "h_0"), ("dx", "x"), ("dc_0", "dc_n")):
        assert found[got].shape == v[given].shape
    np.testing.assert_array_equal(found["c_n"], v["c_0"])
    assert all(found[f"d {name}"].shape == p.shape for name, p in lstm.parameters.items())
    assert all(not found[f"d {name}"].any() for name in lstm.parameters)


@pytest.mark.parametrize(
    ("entry", "x", "y"),
    [
        ("sigmoid", 1.0, 0.7310585786300049),
        ("tanh", 0.5, 0.46211715726000973),
        ("relu", -2.0, 0.0),
        ("affine", 3.0, 3.0),
        (("affine", 2.0), 3.0, 6.0),
        (("affine", 2.0, 1.0), 3.0, 7.0),
        ("leaky_relu", -2.0, -0.02),
        ("thresholded_relu", 0.99, 0.0),
        ("thresholded_relu", 1.01, 1.01),
        ("scaled_tanh", 0.5, 0.46211715726000973),
        (("scaled_tanh", 3.0, 0.5), 1.0, 1.3863514717800292),
        ("hard_sigmoid", 1.0, 0.7),
        ("hard_sigmoid", -2.6, 0.0),
        ("elu", -1.0, -0.6321205588285577),
        ("softsign", -3.0, -0.75),
        ("softplus", 0.0, 0.6931471805599453),
        ("softplus", 800.0, 800.0),
    ],
)
def test_activations_by_hand(entry: Any, x: float, y: float) -> None:
    assert reference.activation(entry)(np.array([x])) == pytest.approx([y], rel=1e-14, abs=0)


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_slopes_of_activations(name: str) -> None:
    """On a grid that has no kinks but spans all pieces, with the defaults and other constants."""
    x = np.arange(-40, 40) / 10 + 0.0123
    for entry in (name, (name, 0.7), (name, 0.7, 0.3)):
        function = reference.activation(entry)
        slope = (function(x + 1e-6) - function(x - 1e-6)) / 2e-6
        np.testing.assert_allclose(function.slope(x, function(x)), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("entry", "kink"),
    [
        ("relu", 0.0),
        ("thresholded_relu", 1.0),
        (("thresholded_relu", -0.5), -0.5),
        (("hard_sigmoid", 0.25, 0.5), -2.0),
        (("hard_sigmoid", 0.25, 0.5), 2.0),
    ],
)
def test_slope_at_a_kink_is_zero(entry: Any, kink: float) -> None:
    function, x = reference.activation(entry), np.array([kink])
    assert function.slope(x, function(x)) == 0


def test_gradient_is_cut_at_the_bound_itself() -> None:
    """Of a cell and of a pre-activation that are exactly there."""
    lstm = reference.LSTM(1, 1, cell_clip=0.5, bias=False, activations=["affine"] * 3)
    weights = {"weight_ih_l0": [[1.0], [1.0], [0.5], [1.0]], "weight_hh_l0": [[0.0]] * 4}
    lstm.load_state_dict(weights)
    one = np.ones((1, 1, 1))  # c = 0 + 1 * 0.5
    for clips, expected in (((0.5, 9), 0.0), ((0.5625, 9), 1.0), ((9, 1), 0.0)):
        cell_clip, preact_clip = clips
        lstm.options = [lstm.options[0]._replace(cell_clip=cell_clip, preact_clip=preact_clip)]
        _, _, tape = lstm.forward(one)
        _, _, grads = lstm.backward(tape, 0 * one, (0 * one, one))
        assert grads["weight_ih_l0"][0, 0] == expected / 2  # dc * g


def test_names_and_shapes() -> None:
    options = {"num_layers": 2, "proj_size": 4, "peephole": True, "layer_norm": True}
    shapes: dict[str, tuple[int, ...]] = {"weight_ih_l0": (20, I), "weight_hh_l0": (20, 4)}
    shapes |= {"bias_ih_l0": (20,), "bias_hh_l0": (20,)}
    shapes |= {"weight_hr_l0": (4, 5), "weight_ch_l0": (15,), "weight_ln_l0": (20,)}
    shapes |= {name.replace("l0", "l1"): shape for name, shape in shapes.items()}
    shapes["weight_ih_l1"] = (20, 4)
    lstm = reference.LSTM(I, H, seed=1, **options)
    assert [(name, p.shape) for name, p in lstm.parameters.items()] == list(shapes.items())
    assert 0 < np.abs(lstm.parameters["weight_ch_l0"]).max() <= H**-0.5
    assert (lstm.parameters["weight_ln_l1"] == 1).all()

    lstm = reference.LSTM(I, H, bidirectional=True, coupled=True, bias=False, **options)
    assert lstm.parameters["weight_ih_l1_reverse"].shape == (15, 8)
    assert lstm.parameters["weight_ch_l1_reverse"].shape == (10,)
    assert lstm.parameters["weight_ln_l0"].shape == (15,)
    assert len(lstm.parameters) == 4 * 5


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"activations": ["tanh"] * 6}, {}, "activations: expected 3 for each direction, got 6"),
        ({"activations": ["tanh", "sin", "tanh"]}, {}, "expected one of sigmoid, .*, got 'sin'"),
        ({"recurrent_dropout": 0.1}, {}, "recurrent_masks: expected 1 arrays, got None"),
        ({"zoneout": (0, 0.1)}, {}, "zoneout_masks: expected 1 pairs of arrays, got None"),
        ({}, {"recurrent_masks": []}, "recurrent_masks: expected 1 entries, got 0"),
        (
            {"proj_size": 4},
            {"recurrent_masks": [np.ones((B, H))]},
            r"recurrent_masks\[0\]: expected \(3, 4\), got \(3, 5\)",
        ),
        (
            {"proj_size": 4},
            {"zoneout_masks": [(np.ones((T, B, 4)), np.ones((T, B, 4)))]},
            r"zoneout_masks\[0\]\[1\]: expected \(4, 3, 5\), got \(4, 3, 4\)",
        ),
    ],
)
def test_messages(options: dict[str, Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reference.LSTM(I, H, **options).forward(np.zeros((T, B, I)), **given)
