"""The oracle itself: against numbers worked out by hand, finite differences, and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

from fastlstm import reference

T, B, I, H = 3, 2, 4, 3  # all small; I != H, so that a mix-up shows

CASES: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "bidirectional": True, "bias": False, "batch_first": True},
]


def name_of(case: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in case.items()) or "plain"


every_case = pytest.mark.parametrize("case", CASES, ids=name_of)


def random_inputs(rng: Generator, lstm: reference.LSTM) -> dict[str, np.ndarray]:
    """x, h_0, c_0 and the gradients of the three outputs: all random, all different."""
    D = len(lstm.suffixes)
    state = (lstm.num_layers * D, B, H)
    first = (B, T) if lstm.batch_first else (T, B)
    shapes = {"x": (*first, I), "dy": (*first, D * H)}
    shapes |= dict.fromkeys(["h_0", "c_0", "dh_n", "dc_n"], state)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def test_two_steps_by_hand() -> None:
    """I = H = 1; step 1 has z = 0.1*0.5 + 0.5*0.1 + 0.01 = 0.11, then 0.18, 0.25 and 0.32."""
    lstm = reference.LSTM(1, 1)
    lstm.load_state_dict(
        {
            "weight_ih_l0": [[0.1], [0.2], [0.3], [0.4]],
            "weight_hh_l0": [[0.5], [0.6], [0.7], [0.8]],
            "bias_ih_l0": [0.03, 0.05, 0.07, 0.09],
            "bias_hh_l0": [-0.02, -0.03, -0.04, -0.05],
        }
    )
    y, (h, c) = lstm([[[0.5]], [[-1.0]]], ([[[0.1]]], [[[-0.2]]]))
    # c_1 = 0.544878892373580*-0.2 + 0.527472304344594*0.244918662403709, h_1 = 0.579324252148749
    # * tanh(c_1); then i, f, g, o = 0.478975869588745, 0.456863660365225, -0.255982651921384,
    # 0.413228730117920.
    np.testing.assert_allclose(y.ravel(), [0.0117077265021172, -0.0466502508810544], rtol=1e-13)
    np.testing.assert_allclose(h.item(), -0.0466502508810544, rtol=1e-13)
    np.testing.assert_allclose(c.item(), -0.113375370033356, rtol=1e-13)


def test_sigmoid_saturates_without_overflow() -> None:
    z = np.array([-np.inf, -745.0, 0.0, 40.0, np.inf, np.nan])
    expected = [0.0, 5e-324, 0.5, 1.0, 1.0, np.nan]
    np.testing.assert_array_equal(reference.sigmoid(z), expected)


@every_case
def test_gradients_are_those_of_finite_differences(rng: Generator, case: dict[str, Any]) -> None:
    """Of every element of x, h_0, c_0 and each parameter, through y, h_n and c_n at once."""
    lstm = reference.LSTM(I, H, **case, dropout=0.5, seed=1)
    v = random_inputs(rng, lstm)
    shape = (T, B, len(lstm.suffixes) * H)
    masks = [rng.integers(0, 2, shape) * 2.0 for _ in range(lstm.num_layers - 1)]

    def loss() -> float:
        y, (h_n, c_n), _ = lstm.forward(v["x"], (v["h_0"], v["c_0"]), masks=masks)
        return float(np.vdot(v["dy"], y) + np.vdot(v["dh_n"], h_n) + np.vdot(v["dc_n"], c_n))

    _, _, tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]), masks=masks)
    dx, (dh_0, dc_0), grads = lstm.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))
    assert list(grads) == list(lstm.parameters)
    got = {"x": dx, "h_0": dh_0, "c_0": dc_0} | grads
    at = {name: v[name] for name in ("x", "h_0", "c_0")} | lstm.parameters
    for name, array in at.items():
        np.testing.assert_allclose(
            got[name], central_differences(loss, array), rtol=1e-6, atol=1e-8, err_msg=name
        )


def central_differences(loss: Any, array: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """The gradient of loss() by `array`, which is changed in place and put back."""
    gradient = np.empty_like(array)
    for index, value in np.ndenumerate(array.copy()):
        array[index] = value + eps
        above = loss()
        array[index] = value - eps
        gradient[index] = (above - loss()) / (2 * eps)
        array[index] = value
    return gradient


@every_case
@pytest.mark.peer
def test_agrees_with_torch(rng: Generator, case: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    peer = torch.nn.LSTM(I, H, **case).double()
    lstm = reference.LSTM(I, H, **case)
    shapes = {name: tuple(p.shape) for name, p in peer.named_parameters()}
    assert [(name, p.shape) for name, p in lstm.parameters.items()] == list(shapes.items())
    lstm.load_state_dict({name: p.detach().numpy() for name, p in peer.named_parameters()})

    v = random_inputs(rng, lstm)
    y, (h_n, c_n), tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]))
    dx, (dh_0, dc_0), grads = lstm.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))

    t = {name: torch.tensor(value, requires_grad=True) for name, value in v.items()}
    peer_y, (peer_h, peer_c) = peer(t["x"], (t["h_0"], t["c_0"]))
    torch.autograd.backward([peer_y, peer_h, peer_c], [t["dy"], t["dh_n"], t["dc_n"]])
    got = {"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, "dh_0": dh_0, "dc_0": dc_0} | grads
    expected = {"y": peer_y, "h_n": peer_h, "c_n": peer_c}
    expected |= {"dx": t["x"].grad, "dh_0": t["h_0"].grad, "dc_0": t["c_0"].grad}
    expected |= {name: p.grad for name, p in peer.named_parameters()}
    for name, value in expected.items():
        np.testing.assert_allclose(
            got[name], value.detach().numpy(), rtol=1e-11, atol=1e-13, err_msg=name
        )


def test_reverse_direction_reads_backwards(rng: Generator) -> None:
    both, one = reference.LSTM(I, H, bidirectional=True, seed=1), reference.LSTM(I, H)
    v = random_inputs(rng, both)
    y, (h_n, c_n) = both(v["x"], (v["h_0"], v["c_0"]))
    for d, (suffix, step) in enumerate([("", 1), ("_reverse", -1)]):
        one.load_state_dict({name: both.parameters[name + suffix] for name in one.parameters})
        y_d, (h_d, c_d) = one(v["x"][::step], (v["h_0"][[d]], v["c_0"][[d]]))
        np.testing.assert_array_equal(y[..., d * H : (d + 1) * H], y_d[::step])
        np.testing.assert_array_equal([h_n[d], c_n[d]], [h_d[0], c_d[0]])


def test_masks_multiply_what_the_next_layer_reads(rng: Generator) -> None:
    """Two layers are one layer on the masked output of the other; the last is not masked."""
    stack = reference.LSTM(I, H, 2, dropout=0.5, seed=1)
    v = random_inputs(rng, stack)
    mask = rng.integers(0, 2, (T, B, H)) * 2.0
    x, states = v["x"], []
    for k, width in enumerate([I, H]):
        layer = reference.LSTM(width, H)
        names = {name: name.replace("l0", f"l{k}") for name in layer.parameters}
        layer.load_state_dict({name: stack.parameters[names[name]] for name in names})
        x, state = layer(x * mask if k else x, (v["h_0"][[k]], v["c_0"][[k]]))
        states.append(state)
    y, state_n, _ = stack.forward(v["x"], (v["h_0"], v["c_0"]), masks=[mask])
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(state_n, np.concatenate(states, axis=1))


def test_layouts_of_x_and_state(rng: Generator) -> None:
    """batch_first and unbatched only move axes, in y and in the gradients."""
    lstm = reference.LSTM(I, H, 2, bidirectional=True, seed=1)
    turned = reference.LSTM(I, H, 2, bidirectional=True, batch_first=True, seed=1)
    v = random_inputs(rng, lstm)
    y, state_n, tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]))
    dx, dstate, grads = lstm.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))

    y2, state2, tape = turned.forward(v["x"].swapaxes(0, 1), (v["h_0"], v["c_0"]))
    dx2, dstate2, grads2 = turned.backward(tape, v["dy"].swapaxes(0, 1), (v["dh_n"], v["dc_n"]))
    np.testing.assert_array_equal(y2, y.swapaxes(0, 1))
    np.testing.assert_array_equal(dx2, dx.swapaxes(0, 1))
    np.testing.assert_array_equal([*state2, *dstate2], [*state_n, *dstate])
    for name in grads:
        np.testing.assert_array_equal(grads2[name], grads[name])

    for b, model in enumerate([lstm, turned]):  # rows 0 and 1 alone
        row = {name: v[name][:, b] for name in v}
        y1, state1, tape = model.forward(row["x"], (row["h_0"], row["c_0"]))
        dx1, dstate1, _ = model.backward(tape, row["dy"], (row["dh_n"], row["dc_n"]))
        np.testing.assert_allclose(y1, y[:, b], rtol=1e-13)
        np.testing.assert_allclose(dx1, dx[:, b], rtol=1e-12)
        np.testing.assert_allclose(state1, [s[:, b] for s in state_n], rtol=1e-13)
        np.testing.assert_allclose(dstate1, [s[:, b] for s in dstate], rtol=1e-12)


def test_state_defaults_to_zeros(rng: Generator) -> None:
    lstm = reference.LSTM(I, H, seed=1)
    v = random_inputs(rng, lstm)
    zeros = (np.zeros((1, B, H)), np.zeros((1, B, H)))
    y, _, tape = lstm.forward(v["x"])
    np.testing.assert_array_equal(y, lstm(v["x"], zeros)[0])
    dx, _, _ = lstm.backward(tape, v["dy"])
    np.testing.assert_array_equal(dx, lstm.backward(tape, v["dy"], zeros)[0])
    assert not np.array_equal(y, lstm(v["x"], (v["h_0"], v["c_0"]))[0])


def test_nothing_to_do_is_legal(rng: Generator) -> None:
    lstm = reference.LSTM(I, H, 2, bidirectional=True, seed=1)
    v = random_inputs(rng, lstm)
    y, state_n, tape = lstm.forward(v["x"][:0], (v["h_0"], v["c_0"]))
    dx, dstate, grads = lstm.backward(tape, v["dy"][:0], (v["dh_n"], v["dc_n"]))
    assert (y.shape, dx.shape) == ((0, B, 2 * H), (0, B, I))
    np.testing.assert_array_equal(state_n, [v["h_0"], v["c_0"]])
    np.testing.assert_array_equal(dstate, [v["dh_n"], v["dc_n"]])
    assert all(not g.any() for g in grads.values())

    y, (h_n, _), tape = lstm.forward(v["x"][:, :0])
    dx, _, grads = lstm.backward(tape, v["dy"][:, :0])
    assert (y.shape, h_n.shape, dx.shape) == ((T, 0, 2 * H), (4, 0, H), (T, 0, I))
    assert all(not g.any() for g in grads.values())


def test_a_tape_keeps_its_own_copies(rng: Generator) -> None:
    """Changing arrays or parameters after forward does not change what backward returns."""
    lstm = reference.LSTM(I, H, seed=1)
    v = random_inputs(rng, lstm)
    y, _, tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]))
    before = lstm.backward(tape, v["dy"])[2]
    v["x"][:] = y[:] = v["h_0"][:] = v["c_0"][:] = 7
    lstm.load_state_dict(reference.LSTM(I, H, seed=2).state_dict())
    after = lstm.backward(tape, v["dy"])[2]
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    assert not np.shares_memory(after["bias_ih_l0"], after["bias_hh_l0"])


def test_names_and_shapes() -> None:
    lstm = reference.LSTM(I, H, 2, bidirectional=True)
    expected = {}
    for suffix, width in [("l0", I), ("l0_reverse", I), ("l1", 2 * H), ("l1_reverse", 2 * H)]:
        expected[f"weight_ih_{suffix}"] = (4 * H, width)
        expected[f"weight_hh_{suffix}"] = (4 * H, H)
        expected[f"bias_ih_{suffix}"] = expected[f"bias_hh_{suffix}"] = (4 * H,)
    assert [(n, p.shape) for n, p in lstm.parameters.items()] == list(expected.items())


def test_weights_follow_the_seed() -> None:
    one, same, other = (reference.LSTM(I, H, seed=s) for s in (1, 1, 2))
    for name, value in one.parameters.items():
        np.testing.assert_array_equal(value, same.parameters[name])
        assert not np.array_equal(value, other.parameters[name])
        assert 0 < np.abs(value).max() <= H**-0.5
    one.state_dict()["bias_ih_l0"][:] = 7
    np.testing.assert_array_equal(one.parameters["bias_ih_l0"], same.parameters["bias_ih_l0"])


def wrong(case: str) -> None:
    lstm = reference.LSTM(I, H, 2, dropout=0.5)
    x, y, state, mask = (np.zeros(s) for s in [(T, B, I), (T, B, H), (2, B, H), (T, B, H)])
    tape = lstm.forward(x, masks=[mask])[2]
    calls: dict[str, Any] = {
        "x": lambda: lstm(x[..., 1:]),
        "h_0": lambda: lstm(x, (state[1:], state)),
        "c_0": lambda: lstm(x, (state, state[:, 1:])),
        "no masks": lambda: lstm.forward(x),
        "too many masks": lambda: lstm.forward(x, masks=[mask, mask]),
        "mask": lambda: lstm.forward(x, masks=[mask[1:]]),
        "dy": lambda: lstm.backward(tape, y[:1]),
        "dc_n": lambda: lstm.backward(tape, y, (state, state[0])),
        "names": lambda: lstm.load_state_dict({"weight_ih_l0": x}),
        "shape": lambda: lstm.load_state_dict(lstm.state_dict() | {"bias_hh_l1": [1.0]}),
    }
    calls[case]()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("x", r"x: expected \(T, B, 4\), got \(3, 2, 3\)"),
        ("h_0", r"h_0: expected \(2, 2, 3\), got \(1, 2, 3\)"),
        ("c_0", r"c_0: expected \(2, 2, 3\), got \(2, 1, 3\)"),
        ("no masks", "masks: expected 1 arrays for dropout, got None"),
        ("too many masks", "masks: expected 1 arrays, got 2"),
        ("mask", r"masks\[0\]: expected \(3, 2, 3\), got \(2, 2, 3\)"),
        ("dy", r"dy: expected \(3, 2, 3\), got \(1, 2, 3\)"),
        ("dc_n", r"dc_n: expected \(2, 2, 3\), got \(2, 3\)"),
        ("names", r"expected the names .*bias_hh_l1.*, got \['weight_ih_l0'\]"),
        ("shape", r"bias_hh_l1: expected \(12,\), got \(1,\)"),
    ],
)
def test_messages(case: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong(case)
