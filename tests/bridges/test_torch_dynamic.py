"""`from_torch` of the modules that torch's `quantize_dynamic` makes."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
from support.compare import Arrays, check_bits, same_bits

import fastlstm

pytestmark = pytest.mark.peer
torch = pytest.importorskip("torch")
if torch.backends.quantized.engine == "none":
    pytest.skip("torch cannot quantize here", allow_module_level=True)

I, H, T, B = 3, 4, 6, 5

# torch rounds x and h to 7 bits with one scale for all rows, where we have 8 and one for each row.
# A value of x up to 3 is off by at most 6/254 there and 3/254 here; three of them times weights of
# up to 0.5 and a function of slope 1 or less give up to 0.05, and typically a third of that.
BYTES = 0.025

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
}
every_layer = pytest.mark.parametrize("kind", ["LSTM", "GRU"])  # torch has no other


def quantized(module: Any, config: str = "default_dynamic_qconfig") -> Any:
    """What torch makes of a module; it warns that it will no longer do so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        of = torch.ao.quantization
        dtype = torch.float16 if "float16" in config else torch.qint8
        model = torch.nn.Sequential(module)
        return of.quantize_dynamic(model, {"0": getattr(of, config)}, dtype=dtype)[0]


def made(kind: str, **options: Any) -> Any:
    torch.manual_seed(3)
    return getattr(torch.nn, kind)(I, H, **options)


def integers_of(module: Any) -> Arrays:
    """By the names of a layer: integers, scales of rows, biases."""
    end = "" if hasattr(module, "mode") else "_l0"
    found = {f"{name}{end}": b.detach().numpy() for name, b in module.get_bias().items()}
    for name, tensor in module.get_weight().items():
        each = "per_channel" in str(tensor.qscheme())
        scale = tensor.q_per_channel_scales().numpy() if each else tensor.q_scale()
        found[f"{name}{end}"] = tensor.int_repr().numpy()
        found[f"{name}{end}_scale"] = np.broadcast_to(scale, len(tensor)).astype("f4")
    return found


@pytest.mark.parametrize("config", ["default_dynamic_qconfig", "per_channel_dynamic_qconfig"])
@every_layer
def test_layer(kind: str, config: str) -> None:
    module = quantized(made(kind, num_layers=2, bidirectional=True, batch_first=True), config)
    layer = getattr(fastlstm, kind).from_torch(module)
    options = "num_layers=2, batch_first=True, bidirectional=True"
    assert repr(layer) == f"{kind}({I}, {H}, {options}, weights_dtype='int8')"
    check_bits(layer.state_dict(), integers_of(module))
    x = torch.randn(B, T, I)
    y = module(x)[0].detach().numpy()
    assert np.abs(layer(x.numpy())[0] - y).max() < BYTES
    wide = getattr(fastlstm, kind).from_torch(module, dtype="float64", batch_first=False)
    assert repr(wide) == f"{kind}({I}, {H}, num_layers=2, bidirectional=True, dtype='float64')"
    for name, tensor in module.get_weight().items():
        assert same_bits(wide.parameters[name], tensor.dequantize().double().numpy())


@pytest.mark.parametrize(("kind", "options"), CELLS.values(), ids=CELLS)
def test_cell(kind: str, options: dict[str, Any]) -> None:
    cell = quantized(made(f"{kind}Cell", **options))
    layer = getattr(fastlstm, kind).from_torch(cell)
    expected = getattr(fastlstm, kind)(I, H, **options).quantize("int8")
    assert repr(layer) == repr(expected)
    check_bits(layer.state_dict(), integers_of(cell))
    x = torch.randn(B, I)
    state = cell(x)
    h = state[0] if kind == "LSTM" else state
    assert np.abs(layer(x.numpy()[None])[0][0] - h.detach().numpy()).max() < BYTES


@every_layer
def test_float16(kind: str) -> None:
    """torch widens them and computes with float32, as we do."""
    plain = made(kind, num_layers=2, bidirectional=True)
    module = quantized(plain, "float16_dynamic_qconfig")
    layer = getattr(fastlstm, kind).from_torch(module)
    assert (
        repr(layer)
        == f"{kind}({I}, {H}, num_layers=2, bidirectional=True, weights_dtype='float16')"
    )
    for name, array in layer.state_dict().items():
        expected = plain.state_dict()[name]
        expected = expected.half() if "weight" in name else expected
        assert same_bits(array, expected.numpy())
    x = torch.randn(T, B, I)
    y = module(x)[0].detach().numpy()
    assert np.abs(layer(x.numpy())[0] - y).max() < 2e-6
    wide = getattr(fastlstm, kind).from_torch(module, dtype="float32")
    assert wide.weights_dtype == "float32"
    assert same_bits(wide(x.numpy())[0], layer(x.numpy())[0])


def test_refused() -> None:
    module = quantized(made("LSTM"))
    with pytest.raises(
        ValueError, match=r"weight_ih_l0: expected int8 \(12, 3\), got int8 \(16, 3"
    ):
        fastlstm.GRU.from_torch(module)
    with pytest.raises(ValueError, match="source: expected a matrix 'weight_ih_l0' among"):
        fastlstm.LSTM.from_torch(module.state_dict())
    with pytest.raises(TypeError, match=r"source: expected a torch\.nn\.LSTM, .* got Linear"):
        fastlstm.LSTM.from_torch(quantized(torch.nn.Linear(I, H)))


ZEROS, ONES = torch.zeros(4 * H), torch.ones(4 * H)
UNFIT: dict[str, tuple[Any, str]] = {
    "zero point": (
        lambda w: torch.quantize_per_tensor(w, 0.1, 3, torch.qint8),
        r"qint8, \[3\] and axis 0",
    ),
    "zero points": (
        lambda w: torch.quantize_per_channel(w, ONES, ZEROS.long() + 1, 0, torch.qint8),
        r"qint8, \[1\] and axis 0",
    ),
    "columns": (
        lambda w: torch.quantize_per_channel(w, ONES[:I], ZEROS[:I].long(), 1, torch.qint8),
        r"qint8, \[0\] and axis 1",
    ),
    "unsigned": (
        lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.quint8),
        r"quint8, \[0\] and axis 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("quantize", "got"), UNFIT.values(), ids=UNFIT)
def test_what_no_layer_has(monkeypatch: pytest.MonkeyPatch, quantize: Any, got: str) -> None:
    module = quantized(made("LSTM"))
    found = module._weight_bias()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["weight"]["weight_ih_l0"] = tensor = quantize(torch.randn(4 * H, I))
    monkeypatch.setattr(module, "_weight_bias", lambda: found)
    expected = "weight_ih_l0: expected qint8 with zero points of 0 and scales along axis 0, got "
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}{got}; give dtype='float32' to "):
        fastlstm.LSTM.from_torch(module)
    wide = fastlstm.LSTM.from_torch(module, dtype="float32")
    assert same_bits(wide.parameters["weight_ih_l0"], tensor.dequantize().numpy())
