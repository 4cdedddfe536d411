"""`SLSTM.from_xlstm`, against the cell and the layer of the package xlstm, run by torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, same_bits

import fastlstm

H, HEADS, T, B = 24, 3, 7, 5
STATES = "hcnm"


def cell_of(backend: str = "vanilla", **options: Any) -> Any:
    """A cell of xlstm with random weights; the one for CUDA is only made, not run."""
    torch = pytest.importorskip("torch")
    xlstm = pytest.importorskip("xlstm.blocks.slstm.cell")
    torch.manual_seed(1)
    config = xlstm.sLSTMCellConfig(
        hidden_size=H, num_heads=HEADS, backend=backend, dtype="float32", **options
    )
    cell = xlstm.sLSTMCell(config, skip_backend_init=True).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_()
    return cell


def layer_of(**options: Any) -> Any:
    """A layer of xlstm with random weights."""
    torch = pytest.importorskip("torch")
    xlstm = pytest.importorskip("xlstm.blocks.slstm.layer")
    torch.manual_seed(1)
    config = xlstm.sLSTMLayerConfig(
        embedding_dim=H, num_heads=HEADS, backend="vanilla", dtype="float32", **options
    )
    layer = xlstm.sLSTMLayer(config).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def random_state(rng: Generator, begins: str) -> list[Array]:
    state = [np.zeros((1, B, H)) for _ in STATES]
    if begins == "anywhere":
        state = [rng.standard_normal((1, B, H)) for _ in STATES]
        state[2] = np.abs(state[2]) + 0.5
    return state


@pytest.mark.peer
@pytest.mark.parametrize("begins", ["zeros", "anywhere"])
def test_cell(rng: Generator, begins: str) -> None:
    """Values, and gradients of everything, from a loss of the outputs and all final states."""
    cell = cell_of()
    torch = pytest.importorskip("torch")
    ours = fastlstm.SLSTM.from_xlstm(cell)
    assert repr(ours) == (
        f"SLSTM({4 * H}, {H}, batch_first=True, num_heads={HEADS}, dtype='float64')"
    )
    x, state = rng.standard_normal((B, T, 4 * H)) * 2, random_state(rng, begins)
    dy, dstate = rng.standard_normal((B, T, H)), rng.standard_normal((4, B, H))
    theirs_x = torch.tensor(x, requires_grad=True)
    theirs_state = torch.tensor(np.concatenate(state), requires_grad=True)
    by_head, final = cell(theirs_x, theirs_state)
    theirs_y = by_head.permute(0, 2, 1, 3).reshape(B, T, H)
    ((theirs_y * torch.tensor(dy)).sum() + (final * torch.tensor(dstate)).sum()).backward()

    y, state_n, tape = ours.forward(x, tuple(state))
    dx, dstate_0, grads = ours.backward(tape, dy, tuple(dstate[:, None]))
    np.testing.assert_allclose(y, theirs_y.detach(), atol=1e-12)
    np.testing.assert_allclose(np.concatenate(state_n), final.detach(), atol=1e-12)
    np.testing.assert_allclose(dx, theirs_x.grad, atol=1e-10)
    np.testing.assert_allclose(np.concatenate(dstate_0), theirs_state.grad, atol=1e-10)
    gradients = {name: parameter.grad for name, parameter in cell.named_parameters()}
    moved = fastlstm.SLSTM.from_xlstm(gradients).parameters
    for name in ("weight_hh_l0", "bias_ih_l0"):
        np.testing.assert_allclose(grads[name], moved[name], atol=1e-10)


@pytest.mark.peer
def test_layer(rng: Generator) -> None:
    """What its cell gives to the dropout; i and f are exchanged in it."""
    layer = layer_of(conv1d_kernel_size=0)
    torch = pytest.importorskip("torch")
    found: list[Any] = []
    layer.slstm_cell.register_forward_hook(lambda module, args, out: found.append(out))
    x = rng.standard_normal((B, T, H))
    theirs_x = torch.tensor(x, requires_grad=True)
    layer(theirs_x)
    [(by_head, final)] = found
    theirs_y = by_head.permute(0, 2, 1, 3).reshape(B, T, H)
    dy = rng.standard_normal((B, T, H))
    (theirs_y * torch.tensor(dy)).sum().backward()

    ours = fastlstm.SLSTM.from_xlstm(layer)
    y, state_n, tape = ours.forward(x)
    dx, _, grads = ours.backward(tape, dy)
    np.testing.assert_allclose(y, theirs_y.detach(), atol=1e-12)
    np.testing.assert_allclose(np.concatenate(state_n), final.detach(), atol=1e-12)
    np.testing.assert_allclose(dx, theirs_x.grad, atol=1e-10)
    moved = fastlstm.SLSTM.from_xlstm(
        {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    ).parameters
    own = ours.parameters["weight_ih_l0"] != 0  # elsewhere theirs has no weight
    np.testing.assert_allclose(grads["weight_ih_l0"] * own, moved["weight_ih_l0"], atol=1e-10)
    np.testing.assert_allclose(grads["weight_hh_l0"], moved["weight_hh_l0"], atol=1e-10)
    narrow = fastlstm.SLSTM.from_xlstm(layer, dtype="float32", batch_first=False)
    assert repr(narrow) == f"SLSTM({H}, {H}, num_heads={HEADS})"


@pytest.mark.peer
def test_backends_keep_their_weights_in_different_orders() -> None:
    """The same weights by xlstm's own conversion, from both of its orders."""
    vanilla, cuda = cell_of(), cell_of("cuda")
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        kernel = vanilla._recurrent_kernel_int2ext(vanilla._recurrent_kernel_)
        cuda._recurrent_kernel_.copy_(cuda._recurrent_kernel_ext2int(kernel))
        cuda._bias_.copy_(cuda._bias_ext2int(vanilla._bias_int2ext(vanilla._bias_)))
    ours, same = (fastlstm.SLSTM.from_xlstm(cell) for cell in (vanilla, cuda))
    assert same_bits(ours.parameters.flat, same.parameters.flat)


@pytest.mark.peer
def test_modules_that_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a layer without a convolution"):
        fastlstm.SLSTM.from_xlstm(layer_of())
    with pytest.raises(ValueError, match="expected a cell whose function is 'slstm', got 'lstm'"):
        fastlstm.SLSTM.from_xlstm(cell_of(function="lstm"))


def arrays(**changes: Any) -> dict[str, Array]:
    """The state dictionary of a layer of two heads, without xlstm."""
    names = dict.fromkeys([f"{gate}gate.weight" for gate in "fizo"], np.ones((2, 3, 3), "f4"))
    cell = {"slstm_cell._recurrent_kernel_": np.ones((2, 12, 3), "f4"),
            "slstm_cell._bias_": np.ones(24, "f4")}  # fmt: skip
    return {k: v for k, v in {**names, **cell, **changes}.items() if v is not None}


def test_a_mapping_needs_no_package(rng: Generator) -> None:
    gates = {f"{gate}gate.weight": rng.standard_normal((2, 3, 3)) for gate in "fizo"}
    ours = fastlstm.SLSTM.from_xlstm(arrays(**gates, **{"group_norm.weight": np.ones(6)}))
    assert ours.dtype == np.float64
    for ours_of, name in zip(np.split(ours.parameters["weight_ih_l0"], 4), "fizo", strict=True):
        first, second = gates[f"{name}gate.weight"]
        assert (ours_of == np.block([[first, np.zeros((3, 3))], [np.zeros((3, 3)), second]])).all()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, TypeError, "expected an sLSTMLayer or sLSTMCell of xlstm or a mapping, got int"),
        ({}, ValueError, "missing: _recurrent_kernel_, _bias_"),
        (arrays(**{"igate.weight": None}), ValueError, "missing: igate.weight$"),
        (arrays(other=np.ones(2)), ValueError, "unknown: other$"),
        (arrays(**{"slstm_cell._bias_": np.ones(23)}), ValueError,
         r"slstm_cell._bias_: expected \(24,\), got \(23,\)"),
        (arrays(**{"slstm_cell._recurrent_kernel_": np.ones((2, 3, 3))}), ValueError,
         r"_recurrent_kernel_: expected \(heads, 4 \* size, size\) or .*, got \(2, 3, 3\)"),
        (arrays(**{"slstm_cell._recurrent_kernel_": np.ones((0, 12, 3))}), ValueError,
         r"_recurrent_kernel_: expected \(heads, 4 \* size, size\) or .*, got \(0, 12, 3\)"),
        (arrays(**{"ogate.weight": np.ones((1, 6, 6))}), ValueError,
         r"ogate.weight: expected \(2, 3, 3\), got \(1, 6, 6\)"),
        (arrays(**{"ogate.weight": np.ones((2, 3, 3), int)}), TypeError,
         "ogate.weight: expected real numbers, got int64"),
        (arrays(**{"conv1d.conv.weight": np.ones((6, 1, 4))}), ValueError,
         "expected a layer without a convolution, conv1d_kernel_size=0"),
    ],
)  # fmt: skip
def test_mappings_that_are_refused(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastlstm.SLSTM.from_xlstm(source)
