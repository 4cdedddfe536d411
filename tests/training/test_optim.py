"""The optimizers: against torch.optim, against values computed by hand, and their errors."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from support.optimizers import OPTIONS

import fastlstm
from fastlstm import optim
from fastlstm._parameters import Gradients, Parameters

SHAPES = {"weight": (13, 7), "bias": (13,)}


def random_parameters(rng: np.random.Generator, dtype: str = "float64") -> Parameters:
    parameters = Parameters(SHAPES, dtype)
    parameters.flat = rng.standard_normal(parameters.flat.size).astype(dtype)
    return parameters


def random_gradients(rng: np.random.Generator, dtype: str = "float64") -> Gradients:
    # Sizes from 1e-3 to 10, so that eps matters in some places.
    size = sum(int(np.prod(shape)) for shape in SHAPES.values())
    flat = rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 1, size)
    return Gradients(SHAPES, flat.astype(dtype))


@pytest.mark.peer
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_follows_torch(name: str, options: dict[str, Any], dtype: str, tolerance: float) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    ours = [random_parameters(rng, dtype), random_parameters(rng, dtype)]
    theirs = [torch.tensor(p.flat.copy(), requires_grad=True) for p in ours]
    optimizer = getattr(optim, name)(ours, lr=0.01, **options)
    peer = getattr(torch.optim, name)(theirs, lr=0.01, **options)
    for step in range(60):
        optimizer.lr = peer.param_groups[0]["lr"] = 0.01 * (1 - step / 100)
        grads = [random_gradients(rng, dtype) for _ in ours]
        for tensor, grad in zip(theirs, grads, strict=True):
            tensor.grad = torch.tensor(grad.flat)
        optimizer.step(grads)
        peer.step()
        for mine, tensor in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(
                mine.flat, tensor.detach().numpy(), rtol=tolerance, atol=tolerance
            )


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9}),
        ("RMSprop", {"lr": 0.003}),
        ("Adagrad", {"lr": 0.03}),
        ("Adam", {"lr": 0.01}),
        ("AdamW", {"lr": 0.01}),
    ],
)
def test_training_loss_follows_torch(name: str, options: dict[str, Any]) -> None:
    """LSTM and linear layer, mean square error, new data and clipped gradients at each step."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(9)
    ours = fastlstm.LSTM(3, 16, seed=9)
    linear = Parameters({"weight": (2, 16), "bias": (2,)}, "float32")
    linear.flat = rng.uniform(-0.25, 0.25, linear.flat.size)
    theirs = torch.nn.ModuleList([torch.nn.LSTM(3, 16), torch.nn.Linear(16, 2)])
    for module, source in zip(theirs, (ours.parameters, linear), strict=True):
        module.load_state_dict({key: torch.tensor(value) for key, value in source.items()})
    optimizer = getattr(optim, name)([ours.parameters, linear], **options)
    peer = getattr(torch.optim, name)(theirs.parameters(), **options)
    losses = []
    for _ in range(60):
        x = rng.standard_normal((20, 8, 3)).astype(np.float32)
        target = np.stack([x[..., 0] * x[..., 1], x.sum(axis=-1)], axis=-1)
        y, _, tape = ours.forward(x)
        error = y @ linear["weight"].T + linear["bias"] - target
        dout = 2 * error / error.size
        _, _, grads = ours.backward(tape, dout @ linear["weight"])
        dlinear = np.concatenate([np.tensordot(dout, y, ([0, 1], [0, 1])).ravel(),
                                  dout.sum(axis=(0, 1))])  # fmt: skip
        both = [grads, Gradients({"weight": (2, 16), "bias": (2,)}, dlinear)]
        optim.clip_grad_norm(both, 0.2)
        optimizer.step(both)

        peer.zero_grad()
        loss = (theirs[1](theirs[0](torch.tensor(x))[0]) - torch.tensor(target)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.2)
        peer.step()
        losses.append(loss.item())
        assert float(np.square(error).mean()) == pytest.approx(loss.item(), abs=1e-5)
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.mark.peer
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
def test_defaults_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.optim, name)([torch.zeros(1)]).defaults
    state = getattr(optim, name)(Parameters(SHAPES, "float32")).state_dict()
    assert {"lr": state["lr"], **state["options"]} == {
        key: theirs[key] for key in ["lr", *state["options"]]
    }


@pytest.mark.peer
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
def test_clip_follows_torch(max_norm: float) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    grads = [random_gradients(rng), random_gradients(rng)]
    tensors = [torch.zeros(g.flat.size, dtype=torch.float64, requires_grad=True) for g in grads]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = torch.tensor(grad.flat.copy())
    expected = torch.nn.utils.clip_grad_norm_(tensors, max_norm)
    assert optim.clip_grad_norm(grads, max_norm) == pytest.approx(float(expected), rel=1e-12)
    for tensor, grad in zip(tensors, grads, strict=True):
        np.testing.assert_allclose(grad.flat, tensor.grad.numpy(), rtol=1e-12)


BY_HAND: list[tuple[str, dict[str, Any], list[float], list[float]]] = [
    # name, options, gradients step by step, the weight after each step; it starts at 1
    ("SGD", {}, [0.5, 0.5], [0.95, 0.9]),
    ("SGD", {"momentum": 0.9}, [0.5, 0.5], [0.95, 0.855]),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}, [0.5, 0.5], [0.95, 0.88]),
    ("SGD", {"momentum": 0.9, "nesterov": True}, [0.5, 0.5], [0.905, 0.7695]),
    ("SGD", {"weight_decay": 0.2}, [0.5, 0.5], [0.93, 0.8614]),
    ("RMSprop", {"alpha": 0.75, "eps": 0.0}, [2.0, 2.0], [0.8, 0.6488142141]),
    ("RMSprop", {"alpha": 0.75, "eps": 1.0}, [2.0], [0.9]),
    ("RMSprop", {"alpha": 0.75, "eps": 0.0, "momentum": 0.5}, [2.0, 2.0], [0.8, 0.5488142141]),
    ("RMSprop", {"alpha": 0.5, "eps": 0.0, "centered": True}, [2.0], [0.8]),
    ("Adagrad", {"eps": 0.0}, [3.0, 4.0], [0.9, 0.82]),
    ("Adagrad", {"eps": 0.0, "lr_decay": 1.0}, [3.0, 4.0], [0.9, 0.86]),
    ("Adagrad", {"eps": 0.0, "initial_accumulator_value": 16.0}, [3.0], [0.94]),
    ("Adam", {"betas": (0.5, 0.5), "eps": 0.0}, [2.0, -1.0, 1.0], [0.9, 0.9, 0.8521908556]),
    ("Adam", {"betas": (0.5, 0.5), "eps": 2.0}, [2.0], [0.95]),
    ("Adam", {"betas": (0.5, 0.5), "amsgrad": True}, [2.0, 0.0], [0.9, 0.8591751709]),
    ("Adam", {"betas": (0.5, 0.5), "weight_decay": 1.0}, [2.0], [0.9]),
    ("AdamW", {"betas": (0.5, 0.5), "weight_decay": 0.5}, [2.0], [0.85]),
]


@pytest.mark.parametrize(("name", "options", "gradients", "expected"), BY_HAND)
def test_values_by_hand(
    name: str, options: dict[str, Any], gradients: list[float], expected: list[float]
) -> None:
    weights = Parameters({"w": (1,)}, "float64")
    weights["w"] = [1.0]
    optimizer = getattr(optim, name)(weights, 0.1, **options)
    for gradient, value in zip(gradients, expected, strict=True):
        optimizer.step(Gradients({"w": (1,)}, np.array([gradient])))
        assert weights["w"][0] == pytest.approx(value, abs=1e-8)


def test_centered_rmsprop_stands_a_steady_gradient() -> None:
    # The variance of a constant is 0, and rounding makes it less than 0 sooner or later.
    weights = Parameters({"w": (50,)}, "float32")
    optimizer = optim.RMSprop(weights, centered=True, alpha=0.5)
    grads = Gradients({"w": (50,)}, np.linspace(0.1, 7, 50, dtype="float32"))
    for _ in range(60):
        optimizer.step(grads)
    assert np.isfinite(weights.flat).all()


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_step_leaves_gradients_alone_and_tells_the_layer(name: str, options: Any) -> None:
    rng = np.random.default_rng(3)
    parameters, grads = random_parameters(rng), random_gradients(rng)
    before, version = grads.flat.copy(), parameters.version
    optimizer = getattr(optim, name)(parameters, **options)
    optimizer.step(grads)
    assert np.array_equal(grads.flat, before)
    assert parameters.version > version


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_step_makes_no_large_temporaries(name: str, options: Any) -> None:
    shapes = {"w": (3_000_000,)}
    parameters = Parameters(shapes, "float32")
    grads = Gradients(shapes, np.ones(3_000_000, "float32"))
    optimizer = getattr(optim, name)(parameters, **options)
    optimizer.step(grads)
    tracemalloc.start()
    optimizer.step(grads)
    optim.clip_grad_norm(grads, 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_saved_state_goes_on_with_the_same_bits(name: str, options: Any) -> None:
    rng = np.random.default_rng(4)
    parameters = random_parameters(rng)
    start = parameters.flat.copy()
    grads = [random_gradients(rng) for _ in range(7)]
    optimizer = getattr(optim, name)(parameters, 0.02, **options)
    for grad in grads[:4]:
        optimizer.step(grad)
    middle, state = parameters.flat.copy(), optimizer.state_dict()
    for grad in grads[4:]:
        optimizer.step(grad)
    end = parameters.flat.copy()
    assert not np.array_equal(start, end)

    other = Parameters(SHAPES, "float64")
    other.flat = middle
    resumed = getattr(optim, name)(other, 0.5)
    resumed.load_state_dict(state)
    for grad in grads[4:]:
        resumed.step(grad)
    assert np.array_equal(other.flat, end)
    assert repr(resumed) == repr(optimizer)


def test_bad_state_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    optimizer = optim.Adam(random_parameters(rng), 0.25)
    optimizer.step(random_gradients(rng))
    before = optimizer.state_dict()
    wrong = optimizer.state_dict()
    wrong["lr"] = 0.5
    wrong["vectors"][0]["exp_avg"][...] = 7
    wrong["vectors"][0]["exp_avg_sq"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"state: exp_avg_sq: expected shape \(104,\), got \(3,\)"):
        optimizer.load_state_dict(wrong)
    with pytest.raises(ValueError, match="state: expected that of AdamW, got Adam"):
        optim.AdamW(random_parameters(rng)).load_state_dict(before)
    with pytest.raises(ValueError, match="state: expected the keys"):
        optimizer.load_state_dict({"steps": 1})
    with pytest.raises(ValueError, match="state: expected vectors of 1 parameters, got 0"):
        optimizer.load_state_dict({**before, "vectors": []})
    with pytest.raises(ValueError, match=r"state: expected vectors \['exp_avg'"):
        optimizer.load_state_dict({**before, "vectors": [{}]})
    for steps, got in ((-1, "at least 0, got -1"), (1.5, "an integer, got float"),
                       (None, "an integer, got NoneType")):  # fmt: skip
        with pytest.raises(ValueError, match=f"state: steps: expected {got}"):
            optimizer.load_state_dict({**before, "lr": 0.5, "steps": steps})
    after = optimizer.state_dict()
    assert (after["lr"], after["steps"]) == (0.25, 1)
    assert np.array_equal(after["vectors"][0]["exp_avg"], before["vectors"][0]["exp_avg"])


def test_clip_spreads_nan_and_keeps_large_float32_norms_accurate() -> None:
    flat = np.random.default_rng(8).random(1_000_000, "float32")
    grads, before = Gradients({"w": (1_000_000,)}, flat), flat.copy()
    norm = float(np.linalg.norm(flat.astype(np.float64)))
    assert optim.clip_grad_norm(grads, 1e9) == pytest.approx(norm, rel=1e-8)
    assert np.array_equal(flat, before)
    flat[7] = np.nan
    assert np.isnan(optim.clip_grad_norm(grads, 1.0))
    assert np.isnan(flat).all()


def _other(shapes: dict[str, tuple[int, ...]], dtype: str = "float64") -> Gradients:
    return Gradients(shapes, np.zeros(sum(int(np.prod(s)) for s in shapes.values()), dtype))


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        (
            _other({"weight": (7, 13), "bias": (13,)}),
            ValueError,
            r"^grads\['weight'\]: expected \(13, 7\), got \(7, 13\)$",
        ),
        (
            _other({"weight": (13, 7)}),
            ValueError,
            "^grads: expected those of weight, bias, got weight$",
        ),
        (_other(SHAPES, "float32"), TypeError, "grads: expected float64, got float32"),
        ([], ValueError, "grads: expected those of 1 parameters, got 0"),
        ([_other(SHAPES)] * 2, ValueError, "grads: expected those of 1 parameters, got 2"),
        (
            [np.zeros(104)],
            TypeError,
            r"^grads\[0\]: expected a mapping with weight, bias, got ndarray$",
        ),
        (None, TypeError, "^grads: expected a mapping with weight, bias, got NoneType$"),
    ],
)
def test_wrong_gradients_change_nothing(grads: Any, error: type[Exception], message: str) -> None:
    parameters = random_parameters(np.random.default_rng(6))
    before = parameters.flat.copy()
    optimizer = optim.Adam(parameters)
    with pytest.raises(error, match=message):
        optimizer.step(grads)
    assert np.array_equal(parameters.flat, before)
    assert optimizer.state_dict()["steps"] == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SGD", {"lr": -0.1}, r"lr: expected a number >= 0, got -0\.1"),
        ("SGD", {"lr": math.nan}, "lr: expected a finite number, got nan"),
        ("Adam", {"lr": math.inf}, "lr: expected a finite number, got inf"),
        ("Adam", {"lr": 10**400}, "lr: expected a finite number, got 1000"),
        ("SGD", {"dampening": math.nan}, "dampening: expected a finite number, got nan"),
        ("SGD", {"momentum": math.inf}, "momentum: expected a finite number, got inf"),
        ("Adam", {"eps": math.inf}, "eps: expected a finite number, got inf"),
        ("AdamW", {"weight_decay": math.nan}, "weight_decay: expected a finite number, got nan"),
        ("Adam", {"betas": (math.nan, 0.9)}, r"betas: expected two numbers, got \(nan, 0\.9\)"),
        ("SGD", {"lr": "fast"}, "lr: expected a number, got 'fast'"),
        ("SGD", {"momentum": -1}, "momentum: expected a number >= 0, got -1"),
        ("SGD", {"nesterov": True}, "nesterov: expected momentum > 0 and dampening = 0"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov: expected"),
        ("SGD", {"weight_decay": -1}, "weight_decay: expected a number >= 0, got -1"),
        ("RMSprop", {"alpha": -1}, "alpha: expected a number >= 0, got -1"),
        ("RMSprop", {"eps": -1}, "eps: expected a number >= 0, got -1"),
        ("RMSprop", {"momentum": -1}, "momentum: expected a number >= 0, got -1"),
        ("Adagrad", {"lr_decay": -1}, "lr_decay: expected a number >= 0, got -1"),
        ("Adagrad", {"initial_accumulator_value": -1}, "initial_accumulator_value: expected"),
        ("Adam", {"betas": (1.0, 0.9)}, r"betas: expected two numbers in \[0, 1\)"),
        ("Adam", {"betas": (0.9, -0.1)}, r"betas: expected two numbers in \[0, 1\)"),
        ("Adam", {"betas": 0.9}, r"betas: expected two numbers, got 0\.9"),
        ("AdamW", {"eps": -1}, "eps: expected a number >= 0, got -1"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(optim, name)(Parameters(SHAPES, "float32"), **options)


def test_wrong_parameters() -> None:
    parameters = Parameters(SHAPES, "float32")
    with pytest.raises(TypeError, match=r"^parameters: expected Parameters, .* got LSTM$"):
        optim.Adam(fastlstm.LSTM(2, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^parameters\[1\]: expected memory of its own"):
        optim.Adam([parameters, parameters])
    with pytest.raises(ValueError, match=r"^parameters: expected something to train"):
        optim.Adam([])
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match=f"max_norm: expected a number >= 0, got {wrong}"):
            optim.clip_grad_norm([], wrong)


def test_an_infinite_bound_measures_only() -> None:
    grads = Gradients({"w": (2,)}, np.array([3.0, 4.0]))
    assert optim.clip_grad_norm(grads, math.inf) == 5
    assert grads.flat.tolist() == [3, 4]


def test_lr_can_be_assigned() -> None:
    weights = Parameters({"w": (1,)}, "float64")
    optimizer = optim.SGD(weights, lr=1.0)
    optimizer.lr = 0.25
    optimizer.step(Gradients({"w": (1,)}, np.ones(1)))
    assert optimizer.lr == 0.25
    assert weights["w"][0] == -0.25
    for wrong in (-2, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"lr: expected a .*number.*, got {wrong}"):
            optimizer.lr = wrong
    assert optimizer.lr == 0.25
