"""The cells of `fastlstm.torch` beside torch's own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from support.torch_modules import B, H, I, T, assert_close, torch_settings  # noqa: E402, F401

import fastlstm.torch  # noqa: E402

pytestmark = pytest.mark.peer

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTMCell", {}),
    "gru": ("GRUCell", {}),
    "tanh": ("RNNCell", {}),
    "relu": ("RNNCell", {"nonlinearity": "relu"}),
}
every_cell = pytest.mark.parametrize("cell", CELLS)
KINDS = ["LSTMCell", "GRUCell", "RNNCell"]


def pair(cell: str, **options: Any) -> tuple[Any, Any]:
    """A cell of torch, and one of ours with equal parameters."""
    kind, own = CELLS[cell]
    module = getattr(torch.nn, kind)(I, H, **own, **options)
    return module, fastlstm.torch.replace(copy.deepcopy(module), cells=True)


def state_of(cell: str, *lead: int, **options: Any) -> Any:
    h = torch.randn(*lead, H, **options)
    return (h, torch.randn(*lead, H, **options)) if cell == "lstm" else h


def parts_of(state: Any) -> list[Any]:
    return list(state) if isinstance(state, tuple) else [state]


@every_cell
def test_is_a_cell_of_torch(cell: str) -> None:
    kind, own = CELLS[cell]
    theirs, ours = pair(cell, bias=False)
    made = getattr(fastlstm.torch, kind)(I, H, False, **own)
    assert type(ours) is type(made)
    assert isinstance(made, getattr(torch.nn, kind))
    assert repr(made) == repr(ours) == f"fastlstm.torch.{theirs!r}"
    assert [n for n, _ in made.named_parameters()] == ["weight_ih", "weight_hh"]
    theirs.load_state_dict(made.state_dict())
    x = torch.randn(B, I)
    assert_close(made(x), theirs(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("lead", [(B,), ()], ids=["batch", "alone"])
@every_cell
def test_steps_and_their_gradients(
    cell: str, lead: tuple[int, ...], with_state: bool, bias: bool
) -> None:
    theirs, ours = pair(cell, bias=bias)
    xs = torch.randn(T, *lead, 2 * I)[..., ::2]  # not contiguous
    state_0, dh = state_of(cell, *lead), torch.randn(T, *lead, H)
    found = []
    for module in (theirs, ours):
        leaves = [t.clone().requires_grad_() for t in (xs, *parts_of(state_0))]
        state: Any = tuple(leaves[1:]) if cell == "lstm" else leaves[1]
        hs, state = [], state if with_state else None
        for x in leaves[0]:
            state = module(x, state)
            hs.append(parts_of(state)[0])
        (torch.stack(hs) * dh).sum().backward()
        grads = [t.grad for t in (*leaves[: 1 + with_state], *module.parameters())]
        found.append([*hs, *parts_of(state), *grads])
    for got, expected in zip(found[1], found[0], strict=True):
        assert got.shape == expected.shape
        assert_close(got, expected)


@every_cell
def test_gradcheck(cell: str) -> None:
    module = pair(cell)[1].double()
    names = [name for name, _ in module.named_parameters()]
    at = {"dtype": torch.float64, "requires_grad": True}

    def outputs(x: Any, h: Any, c: Any, *weights: Any) -> Any:
        state = (h, c) if cell == "lstm" else h + c
        arguments = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(module, arguments, (x, state))

    inputs = [torch.randn(B, size, **at) for size in (I, H, H)]
    weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
    checked = torch.autograd.gradcheck
    assert checked(outputs, (*inputs, *weights), fast_mode=True, check_batched_grad=True)


@every_cell
def test_a_step_has_the_bits_of_a_layer(cell: str) -> None:
    kind, _ = CELLS[cell]
    ours, xs, state = pair(cell)[1], torch.randn(T, B, I), None
    layer = getattr(fastlstm, kind.removesuffix("Cell")).from_torch(ours)
    y, _ = layer(xs.numpy())
    with torch.no_grad():
        for x, expected in zip(xs, y, strict=True):
            state = ours(x, state)
            assert torch.equal(parts_of(state)[0], torch.from_numpy(expected))


def test_no_rows() -> None:
    _, ours = pair("gru")
    h = ours(torch.zeros(0, I))
    assert h.shape == (0, H)
    h.sum().backward()
    assert ours.weight_hh.grad.abs().max() == 0


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@pytest.mark.parametrize("kind", KINDS)
def test_copies(kind: str, way: str) -> None:
    ours = getattr(fastlstm.torch, kind)(I, H).eval()
    x, size = torch.randn(B, I), len(pickle.dumps(ours))
    before = parts_of(ours(x))[0]
    assert len(pickle.dumps(ours)) == size
    other = copy.deepcopy(ours) if way == "deepcopy" else pickle.loads(pickle.dumps(ours))
    assert type(other) is type(ours)
    assert not other.training
    with torch.no_grad():
        ours.weight_ih += 1
    assert torch.equal(parts_of(other(x))[0], before)
    assert not torch.equal(parts_of(ours(x))[0], before)


def test_weights_of_parametrizations() -> None:
    theirs, ours = pair("lstm")
    x, found = torch.randn(B, I), []
    for module in (theirs, ours):
        torch.nn.utils.parametrizations.weight_norm(module, "weight_hh")
        module(x, (torch.ones(B, H), torch.ones(B, H)))[0].sum().backward()
        found.append({name: p.grad for name, p in module.named_parameters()})
    assert isinstance(ours, fastlstm.torch.LSTMCell)
    assert len(found[1]) == 5
    for name, grad in found[0].items():
        assert_close(found[1][name], grad)


def zeros(*shape: int) -> Any:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("cell", "arguments", "error", "message"),
    [
        ("gru", (zeros(B, I + 1),), RuntimeError, r"input: expected \(5, 3\), got \(5, 4\)"),
        ("gru", (zeros(T, B, I),), ValueError, "input: expected 1-D or 2-D, got 3-D"),
        ("gru", ([0.0],), TypeError, "input: expected a tensor, got list"),
        ("gru", (zeros(B, I), zeros(B, H + 1)), RuntimeError, r"hx: expected \(5, 4\), got"),
        ("gru", (zeros(B, I), zeros(1, H)), RuntimeError, r"hx: expected \(5, 4\), got \(1, 4\)"),
        ("gru", (zeros(B, I), zeros(1, B, H)), ValueError, "hx: expected 1-D or 2-D, got 3-D"),
        ("relu", (zeros(I), zeros(1, H)), RuntimeError, r"hx: expected \(4,\), got \(1, 4\)"),
        ("lstm", (zeros(B, I), zeros(B, H)), TypeError, "hx: expected a pair of tensors"),
        ("tanh", (zeros(B, I).double(),), TypeError, "input: expected torch.float32, got"),
        ("tanh", (zeros(B, I).to("meta"),), TypeError, "input: expected a tensor on the CPU"),
    ],
)
def test_bad_input(cell: str, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pair(cell)[1](*arguments)
