"""The reference's options beside torch and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, Arrays
from support.reference_layers import H, I, random_call, random_layer, results

from fastlstm import reference

pytestmark = pytest.mark.peer


def of_torch(module: Any, v: Arrays) -> Arrays:
    """What `results` returns, from a torch module that is called like an LSTM."""
    torch = pytest.importorskip("torch")
    t = {name: torch.tensor(array, requires_grad=True) for name, array in v.items()}
    y, (h_n, c_n) = module(t["x"], (t["h_0"], t["c_0"]))
    torch.autograd.backward([y, h_n, c_n], [t["dy"], t["dh_n"], t["dc_n"]])
    named = {"y": y, "h_n": h_n, "c_n": c_n, "dx": t["x"].grad}
    named |= {"dh_0": t["h_0"].grad, "dc_0": t["c_0"].grad}
    named |= {f"d {name}": parameter.grad for name, parameter in module.named_parameters()}
    return {name: tensor.detach().numpy() for name, tensor in named.items()}


def check_same(got: Arrays, expected: Arrays, tolerance: float) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, tolerance, tolerance, err_msg=name)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_projection_is_that_of_torch(rng: Generator, bidirectional: bool, bias: bool) -> None:
    torch = pytest.importorskip("torch")
    options = {"num_layers": 2, "bidirectional": bidirectional, "bias": bias, "proj_size": 4}
    lstm = random_layer(reference.LSTM, rng, **options)
    module = torch.nn.LSTM(I, H, **options).double()
    assert [name for name, _ in module.named_parameters()] == list(lstm.parameters)
    module.load_state_dict({name: torch.tensor(p) for name, p in lstm.parameters.items()})
    v = random_call(rng, lstm)
    check_same(results(lstm, v), of_torch(module, v), 1e-11)


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_layer_norm_is_that_of_torch(rng: Generator, eps: float) -> None:
    """Gate by gate, of everything that is added but the bias."""
    torch = pytest.importorskip("torch")
    lstm = random_layer(reference.LSTM, rng, layer_norm=True, layer_norm_eps=eps, peephole=True)

    class Normed(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            for name, value in lstm.parameters.items():
                self.register_parameter(name, torch.nn.Parameter(torch.tensor(value)))

        def forward(self, x: Any, state: Any) -> Any:
            (h,), (c,), y = *state, []
            p_i, p_f, p_o = self.weight_ch_l0.split(H)
            gains, b = self.weight_ln_l0.split(H), (self.bias_ih_l0 + self.bias_hh_l0).split(H)

            def norm(a: Any, gate: int) -> Any:
                return torch.nn.functional.layer_norm(a, (H,), gains[gate], b[gate], eps=eps)

            for x_t in x:
                i, f, g, o = (x_t @ self.weight_ih_l0.T + h @ self.weight_hh_l0.T).split(H, -1)
                i, f = norm(i + p_i * c, 0).sigmoid(), norm(f + p_f * c, 1).sigmoid()
                c = f * c + i * norm(g, 2).tanh()
                h = norm(o + p_o * c, 3).sigmoid() * c.tanh()
                y.append(h)
            return torch.stack(y), (h[None], c[None])

    v = random_call(rng, lstm)
    check_same(results(lstm, v), of_torch(Normed(), v), 1e-10)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("relu", "relu"),
        ("leaky_relu", "leaky_relu"),
        ("elu", ("elu", 0.7)),
        ("softsign", "softsign"),
        ("softplus", "softplus"),
        ("hardsigmoid", ("hard_sigmoid", 1 / 6, 0.5)),
        ("threshold", ("thresholded_relu", 0.7)),
    ],
)
def test_activations_and_slopes_are_those_of_torch(name: str, entry: Any) -> None:
    """Also where they have kinks."""
    torch = pytest.importorskip("torch")
    own = reference.activation(entry)
    constants = {"elu": (0.7,), "threshold": (0.7, 0.0)}.get(name, ())
    x = np.append(np.linspace(-5, 5, 41), [0.7, -3.0, 3.0])
    t = torch.tensor(x, requires_grad=True)
    y = getattr(torch.nn.functional, name)(t, *constants)
    y.sum().backward()
    np.testing.assert_allclose(own(x), y.detach().numpy(), 1e-12, 1e-15)
    slope = own.slope(x, own(x))
    np.testing.assert_allclose(slope, t.grad.numpy(), 1e-7, 1e-15)  # torch's 1/6 is a float


def onnx_results(kind: str, inputs: Arrays, weights: Arrays, **attributes: Any) -> list[Array]:
    """What ONNX Runtime returns for a model of one node; Y with its directions side by side."""
    helper = pytest.importorskip("onnx").helper
    numpy_helper = pytest.importorskip("onnx").numpy_helper
    runtime = pytest.importorskip("onnxruntime")
    names, outputs = ["X", "W", "R", "B", "", "initial_h"], ["Y", "Y_h"]
    if kind == "LSTM":
        names, outputs = [*names, "initial_c", "P" if "P" in weights else ""], [*outputs, "Y_c"]
    node = helper.make_node(kind, names, outputs, hidden_size=H, **attributes)
    graph = helper.make_graph(
        [node],
        "cell",
        [helper.make_tensor_value_info(name, 1, [None] * 3) for name in inputs],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [numpy_helper.from_array(a.astype("f4"), name) for name, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y, *states = session.run(None, {name: a.astype("f4") for name, a in inputs.items()})
    return [y.swapaxes(1, 2).reshape(*inputs["X"].shape[:2], -1), *states]


def gates(array: Array, order: list[int], coupled: bool = False) -> Array:
    """The gates of `array` in another order; a coupled layer's has none of f, and ONNX's unused."""
    parts = np.split(array, len(array) // H)
    if coupled:
        parts.insert(1, np.full_like(parts[0], 7.0))
    return np.concatenate([parts[k] for k in order])


def onnx_weights(layer: Any, order: list[int], coupled: bool = False) -> Arrays:
    """W, R, B and, of a layer with peepholes, P, which ONNX has in the order i, o, f."""
    weights: dict[str, list[Array]] = {"W": [], "R": [], "B": []}
    for suffix in layer.suffixes:
        of = {name: layer.parameters[f"{name}_l0{suffix}"] for name in ("weight_ih", "weight_hh")}
        weights["W"].append(gates(of["weight_ih"], order, coupled))
        weights["R"].append(gates(of["weight_hh"], order, coupled))
        b = [layer.parameters[f"{name}_l0{suffix}"] for name in ("bias_ih", "bias_hh")]
        weights["B"].append(np.concatenate([gates(part, order, coupled) for part in b]))
        if f"weight_ch_l0{suffix}" in layer.parameters:
            p = gates(layer.parameters[f"weight_ch_l0{suffix}"], [0, 2, 1], coupled)
            weights.setdefault("P", []).append(p)
    return {name: np.stack(arrays) for name, arrays in weights.items()}


ONNX_NAMES = {name: name.title().replace("_", "") for name in reference.ACTIVATIONS}
CONSTANTS = {  # asymmetric, and far from the defaults
    "affine": (0.8, 0.1),
    "scaled_tanh": (1.3, 0.6),
    "hard_sigmoid": (0.3, 0.4),
    "leaky_relu": (0.2,),
    "thresholded_relu": (0.15,),
    "elu": (0.7,),
}


def check_against_onnx(rng: Generator, bidirectional: bool, **options: Any) -> None:
    lstm = random_layer(reference.LSTM, rng, bidirectional=bidirectional, **options)
    v = random_call(rng, lstm)
    attributes: dict[str, Any] = {"input_forget": int(options.get("coupled", False))}
    attributes["direction"] = "bidirectional" if bidirectional else "forward"
    if "preact_clip" in options:
        attributes["clip"] = options["preact_clip"]
    if "activations" in options:
        entries = list(options["activations"])
        entries *= 2 if bidirectional and len(entries) == 3 else 1
        constants = [entry[1:] for entry in entries if isinstance(entry, tuple)]
        plain = [entry if isinstance(entry, str) else entry[0] for entry in entries]
        attributes["activations"] = [ONNX_NAMES[name] for name in plain]
        for k, attribute in enumerate(["activation_alpha", "activation_beta"]):
            if of_all := [c[k] for c in constants if len(c) > k]:
                attributes[attribute] = of_all
    inputs = {"X": v["x"], "initial_h": v["h_0"], "initial_c": v["c_0"]}
    weights = onnx_weights(lstm, [0, 3, 1, 2], options.get("coupled", False))
    expected = onnx_results("LSTM", inputs, weights, **attributes)
    y, (h_n, c_n) = lstm(v["x"], (v["h_0"], v["c_0"]))
    for got, array in zip((y, h_n, c_n), expected, strict=True):
        np.testing.assert_allclose(got, array, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize(
    "options",
    [
        {"peephole": True},
        {"coupled": True},
        {"preact_clip": 0.7},
        {"peephole": True, "coupled": True},
        {"peephole": True, "preact_clip": 0.7},
        {"peephole": True, "coupled": True, "preact_clip": 0.7},
    ],
    ids=lambda options: " ".join(options),
)
def test_options_are_those_of_onnx(
    rng: Generator, bidirectional: bool, options: dict[str, Any]
) -> None:
    check_against_onnx(rng, bidirectional, **options)


@pytest.mark.parametrize("place", ["gate", "candidate", "hidden"])
@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_activations_are_those_of_onnx(rng: Generator, name: str, place: str) -> None:
    three: list[Any] = ["sigmoid", "tanh", "tanh"]
    entry = (name, *CONSTANTS[name]) if name in CONSTANTS else name
    three[["gate", "candidate", "hidden"].index(place)] = entry
    check_against_onnx(rng, False, activations=three)


def test_activations_of_two_directions_are_those_of_onnx(rng: Generator) -> None:
    forward = ["hard_sigmoid", "elu", "softsign"]
    reverse = ["sigmoid", "scaled_tanh", "leaky_relu"]
    entries = [(n, *CONSTANTS[n]) if n in CONSTANTS else n for n in forward + reverse]
    check_against_onnx(rng, True, activations=entries, peephole=True)


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_gru_is_that_of_onnx(rng: Generator, bidirectional: bool, reset_after: bool) -> None:
    options = {"bidirectional": bidirectional, "reset_after": reset_after}
    gru = random_layer(reference.GRU, rng, **options)
    v = random_call(rng, gru)
    expected = onnx_results(
        "GRU",
        {"X": v["x"], "initial_h": v["h_0"]},
        onnx_weights(gru, [1, 0, 2]),
        direction="bidirectional" if bidirectional else "forward",
        linear_before_reset=int(reset_after),
    )
    for got, array in zip(gru(v["x"], v["h_0"]), expected, strict=True):
        np.testing.assert_allclose(got, array, rtol=2e-5, atol=2e-5)
