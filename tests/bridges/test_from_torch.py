"""`from_torch` beyond the plain case of test_weights: torch's cells, and types of every width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.compare import Array, same_bits

import fastlstm

I, H = 3, 4


def test_mapping_of_a_cell() -> None:
    gru = fastlstm.GRU(I, H, dtype="float64", seed=1)
    mapping = {name.removesuffix("_l0"): array for name, array in gru.state_dict().items()}
    other = fastlstm.GRU.from_torch(mapping)
    assert repr(other) == repr(gru)
    assert same_bits(other.parameters.flat, gru.parameters.flat)
    with pytest.raises(ValueError, match="unknown: weight_hr"):
        fastlstm.LSTM.from_torch(fastlstm.LSTM(I, H).state_dict() | {"weight_hr": np.ones(1)})


def test_mapping_of_few_bits() -> None:
    """Integers and scales are of `save` and `load`; 16 bits are read as the numbers they are."""
    lstm = fastlstm.LSTM(I, H, seed=1)
    with pytest.raises(ValueError, match=r"unknown: weight_ih_l0_scale, weight_hh_l0_scale$"):
        fastlstm.LSTM.from_torch(lstm.quantize("int8").state_dict())
    for small in (lstm.quantize("bfloat16"), lstm.quantize("float16")):
        again = fastlstm.LSTM.from_torch(small.state_dict())
        assert repr(again) == repr(lstm)
        expected = small.parameters["weight_hh_l0"].astype("f4")
        assert same_bits(again.parameters["weight_hh_l0"], expected)


TYPES: dict[str, tuple[Callable[[Array], Any], str]] = {
    "float16": (lambda a: a.astype("f2"), "float32"),
    "float32": (lambda a: a.astype("f4"), "float32"),
    "float64": (lambda a: a, "float64"),
    "of the other byte order": (lambda a: a.astype(">f8"), "float64"),
    "a buffer": (lambda a: memoryview(a), "float64"),
    "lists": (lambda a: a.tolist(), "float32"),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("convert", "dtype"), TYPES.values(), ids=TYPES)
def test_precision_is_kept(convert: Callable[[Array], Any], dtype: str, last: bool) -> None:
    """Of the widest array, which may be the last one."""
    wide = fastlstm.RNN(I, H, dtype="float64", seed=1).state_dict()
    if last:
        narrow = {name: array.astype("f4") for name, array in wide.items()}
        mapping = narrow | {"bias_hh_l0": convert(wide["bias_hh_l0"])}
    else:
        mapping = {name: convert(array) for name, array in wide.items()}
    rnn = fastlstm.RNN.from_torch(mapping)
    assert rnn.dtype == dtype
    for name, array in mapping.items():
        assert same_bits(rnn.parameters[name], np.asarray(array).astype(dtype))
    for told in ("float32", "float64"):
        assert fastlstm.RNN.from_torch(mapping, dtype=told).dtype == told


@pytest.mark.peer
@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_precision_of_tensors_is_kept(name: str) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(I, H).to(getattr(torch, name))
    dtype = "float64" if name == "float64" else "float32"
    for source in (module, module.state_dict()):
        gru = fastlstm.GRU.from_torch(source)
        assert gru.dtype == dtype
        for key, parameter in module.named_parameters():
            expected = parameter.detach().to(getattr(torch, dtype)).numpy()
            assert same_bits(gru.parameters[key], expected)


CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {"bias": False}),
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
}


@pytest.mark.peer
@pytest.mark.parametrize(("kind", "options"), CELLS.values(), ids=CELLS)
def test_cell(kind: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    cell = getattr(torch.nn, f"{kind}Cell")(I, H, **options, dtype=torch.float64)
    layer = getattr(fastlstm, kind).from_torch(cell)
    assert repr(layer) == repr(getattr(fastlstm, kind)(I, H, **options, dtype="float64"))
    x = torch.randn(2, I, dtype=torch.float64)
    state = cell(x)
    h = state[0] if kind == "LSTM" else state
    assert np.abs(layer(x.numpy()[None])[0][0] - h.detach().numpy()).max() < 1e-14
    others = {"LSTM": fastlstm.GRU, "GRU": fastlstm.RNN, "RNN": fastlstm.LSTM}
    with pytest.raises(ValueError, match=r"weight_ih_l0: expected .* got \("):
        others[kind].from_torch(cell)
