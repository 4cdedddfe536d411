"""Weights in and out of a layer: state dictionaries, torch, files."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from safetensors.numpy import load_file, save_file
from support.compare import Array, same_bits

import fastlstm

I, H = 3, 4

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {
        "num_layers": 3,
        "bias": False,
        "batch_first": True,
        "dropout": 0.25,
        "bidirectional": True,
        "dtype": "float64",
    },
    "both-ways": {"bidirectional": True, "num_layers": 2},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def same_layer(a: fastlstm.LSTM, b: fastlstm.LSTM) -> bool:
    return repr(a) == repr(b) and same_bits(a.parameters.flat, b.parameters.flat)


# State dictionaries


@every_option
def test_state_dict_round_trip(options: dict[str, Any]) -> None:
    lstm, other = (fastlstm.LSTM(I, H, **options, seed=s) for s in (1, 2))
    other.load_state_dict(lstm.state_dict())
    assert same_layer(other, lstm)


def test_names_and_shapes() -> None:
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=True)
    assert [(name, array.shape) for name, array in lstm.state_dict().items()] == [
        (f"{name}_l{layer}{suffix}", shape)
        for layer, width in enumerate([I, 2 * H])
        for suffix in ("", "_reverse")
        for name, shape in [
            ("weight_ih", (4 * H, width)),
            ("weight_hh", (4 * H, H)),
            ("bias_ih", (4 * H,)),
            ("bias_hh", (4 * H,)),
        ]
    ]


def test_values_are_converted() -> None:
    source = fastlstm.LSTM(I, H, dtype="float64", seed=1)
    lstm = fastlstm.LSTM(I, H)
    lstm.load_state_dict(source.state_dict())
    assert same_bits(lstm.parameters.flat, source.parameters.flat.astype("f4"))
    lstm.load_state_dict({n: a.astype("f2") for n, a in source.state_dict().items()})
    assert same_bits(lstm.parameters.flat, source.parameters.flat.astype("f2").astype("f4"))


def without(state: dict[str, Array], name: str) -> dict[str, Array]:
    return {n: a for n, a in state.items() if n != name}


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], type[Exception], str]] = {
    "missing": (lambda s: without(s, "bias_hh_l0"), ValueError, "missing: bias_hh_l0"),
    "unknown": (lambda s: s | {"w": np.ones(1)}, ValueError, "unknown: w"),
    "both": (
        lambda s: without(s, "bias_hh_l0") | {"w": np.ones(1)},
        ValueError,
        "missing: bias_hh_l0; unknown: w",
    ),
    "shape": (
        lambda s: s | {"bias_hh_l0": np.ones(3)},
        ValueError,
        r"bias_hh_l0: expected \(16,\), got \(3,\)",
    ),
    "transposed": (
        lambda s: s | {"weight_ih_l0": s["weight_ih_l0"].T},
        ValueError,
        r"weight_ih_l0: expected \(16, 3\), got \(3, 16\)",
    ),
    "integers": (
        lambda s: s | {"bias_hh_l0": np.ones(16, int)},
        TypeError,
        "bias_hh_l0: expected real numbers, got int64",
    ),
    "None": (
        lambda s: s | {"bias_hh_l0": None},
        TypeError,
        "bias_hh_l0: expected real numbers, got object",
    ),
    "list": (lambda s: list(s), TypeError, "mapping: expected a mapping, got list"),
}


@pytest.mark.parametrize(("change", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_state_dicts_change_nothing(
    change: Callable[[dict[str, Any]], Any], error: type[Exception], message: str
) -> None:
    lstm, source = (fastlstm.LSTM(I, H, seed=s) for s in (1, 2))
    before, version = lstm.parameters.flat.copy(), lstm.parameters.version
    with pytest.raises(error, match=message) as caught:
        lstm.load_state_dict(change(source.state_dict()))
    assert caught.type is error
    assert same_bits(lstm.parameters.flat, before)
    assert lstm.parameters.version == version


def test_not_strict() -> None:
    lstm, source = (fastlstm.LSTM(I, H, seed=s) for s in (1, 2))
    expected = lstm.state_dict() | {"bias_hh_l0": source.state_dict()["bias_hh_l0"]}
    some = {"bias_hh_l0": source.parameters["bias_hh_l0"], "fc.weight": np.ones((2, 2))}
    lstm.load_state_dict(some, strict=False)
    assert all(same_bits(lstm.parameters[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match="bias_ih_l0"):  # what is there must still fit
        lstm.load_state_dict({"bias_ih_l0": np.ones(3)}, strict=False)


# torch


@every_option
def test_from_torch_on_a_mapping(options: dict[str, Any]) -> None:
    """Sizes, layers, directions and bias are read from the shapes; the rest is told."""
    lstm = fastlstm.LSTM(I, H, **options, seed=1)
    told = {name: options[name] for name in ("batch_first", "dropout") if name in options}
    assert same_layer(fastlstm.LSTM.from_torch(lstm.state_dict(), **told), lstm)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ({}, ValueError, "source: expected a matrix 'weight_ih_l0' among"),
        ({"weight_ih_l0": np.ones((4, 1))}, ValueError, "source: expected a matrix 'weight_hh_l0'"),
        (
            {"weight_ih_l0": np.ones((12, 3)), "weight_hh_l0": np.ones((12, 4))},  # of a GRU
            ValueError,
            r"weight_ih_l0: expected \(16, 3\), got \(12, 3\)",
        ),
        (
            {"weight_ih_l0": np.ones((16, 3)), "weight_hh_l0": np.ones((16, 2))}
            | {"weight_hr_l0": np.ones((3, 4))},
            ValueError,
            r"weight_hh_l0: expected \(16, 3\), got \(16, 2\)",
        ),
        ([1, 2], TypeError, "source: expected a torch.nn.LSTM, .*Cell or a mapping, got list"),
        (None, TypeError, "source: expected a torch.nn.LSTM, .* or a mapping, got NoneType"),
        (
            {"b.0.weight_ih_l0": np.ones((16, 3)), "a.weight_ih": np.ones((16, 3)), "w": None},
            ValueError,
            "'weight_ih_l0', got names that begin with 'a.' or 'b.0.'; pass those of one layer",
        ),
    ],
)
def test_from_torch_refuses(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastlstm.LSTM.from_torch(source)


@pytest.mark.peer
@every_option
def test_from_torch_on_a_module(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    dtype = options.get("dtype", "float32")
    module = torch.nn.LSTM(I, H, **{n: v for n, v in options.items() if n != "dtype"})
    module = module.to(getattr(torch, dtype))
    lstm = fastlstm.LSTM.from_torch(module)
    assert repr(lstm) == repr(fastlstm.LSTM(I, H, **options))
    for name, parameter in module.named_parameters():
        assert same_bits(lstm.parameters[name], parameter.detach().numpy())
    assert fastlstm.LSTM.from_torch(module, dtype="float32").dtype == np.float32


@pytest.mark.peer
def test_from_torch_refuses_other_modules() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="source: expected a torch"):
        fastlstm.LSTM.from_torch(torch.nn.Linear(I, H))
    with pytest.raises(ValueError, match="weight_ih_l0"):
        fastlstm.LSTM.from_torch(torch.nn.GRU(I, H))
    with pytest.raises(ValueError, match="expected weights of a GRU, got proj_size"):
        fastlstm.GRU.from_torch(torch.nn.LSTM(I, H, proj_size=2).state_dict())


# Files


@every_option
def test_file_round_trip(options: dict[str, Any], tmp_path: Path) -> None:
    lstm, path = fastlstm.LSTM(I, H, **options, seed=1), tmp_path / "layer.safetensors"
    lstm.save(path)
    assert same_layer(fastlstm.LSTM.load(path), lstm)
    assert same_layer(fastlstm.LSTM.load(str(path)), lstm)
    tensors = load_file(path)  # the names are torch's, so others can read it
    assert all(same_bits(tensors[name], array) for name, array in lstm.parameters.items())


def test_saving_keeps_the_old_file_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "layer.safetensors"
    old, new = (fastlstm.LSTM(I, H, seed=s) for s in (1, 2))
    old.save(path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(OSError, match=r"layer\.safetensors.*No space left"):
                new.save(path)
        assert same_layer(fastlstm.LSTM.load(path), old)
        assert os.listdir(tmp_path) == ["layer.safetensors"]
    new.save(path)
    assert same_layer(fastlstm.LSTM.load(path), new)
    assert os.listdir(tmp_path) == ["layer.safetensors"]


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    lstm = fastlstm.LSTM(I, H)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fastlstm.LSTM.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no"):
        lstm.save(tmp_path / "no" / "where")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        lstm.save(tmp_path)
    with pytest.raises(OSError, match=tmp_path.name):
        fastlstm.LSTM.load(tmp_path)


def write_damaged(path: Path, **changes: Any) -> None:
    """A file whose tensors are whole and whose configuration is not that of the tensors."""
    lstm = fastlstm.LSTM(I, H)
    config = {**lstm._configuration(), **changes}
    metadata = {"format": "fastlstm.LSTM", "config": json.dumps(config)}
    save_file(lstm.state_dict(), path, metadata)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 5},
        {"hidden_size": -1},
        {"hidden_size": 30_000},
        {"hidden_size": 2**62},
        {"num_layers": 10**15},
        {"bidirectional": True},
        {"dtype": "int8"},
        {"dtype": ","},
        {"seed": -1},
        {"colour": "red"},
        {"input_size": None},
        {"dropout": "often"},
    ],
    ids=str,
)
def test_configurations_that_do_not_agree(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    write_damaged(path)
    fastlstm.LSTM.load(path)
    write_damaged(path, **changes)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"layer\.safetensors: weights and configuration"):
            fastlstm.LSTM.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # seen before much was allocated
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cell", [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN])
@pytest.mark.parametrize(("inputs", "hidden"), [(1, 2048), (2**22, 1), (2**40, 1), (1, 2**40)])
def test_claims_of_tensors_without_elements(
    cell: Any, inputs: int, hidden: int, tmp_path: Path
) -> None:
    """A few bytes may claim a layer of any size; it is not made."""
    path = tmp_path / "layer.safetensors"
    config = cell(I, H, bias=False)._configuration()
    config |= {"input_size": inputs, "hidden_size": hidden}
    empty = {"weight_ih_l0": (0, inputs), "weight_hh_l0": (0, hidden)}
    save_file(
        {name: np.empty(shape, "f4") for name, shape in empty.items()},
        path,
        {"format": f"fastlstm.{cell.__name__}", "config": json.dumps(config)},
    )
    message = rf"do not agree \(weight_ih_l0: expected \(\d+, {inputs}\), got \(0, {inputs}\)\)"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            cell.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_claims_of_missing_tensors(tmp_path: Path) -> None:
    """What is not there is missed before a layer is made, with every option that has weights."""
    path = tmp_path / "layer.safetensors"
    options: dict[str, Any] = {
        "bidirectional": True,
        "proj_size": 2,
        "peephole": True,
        "layer_norm": True,
    }
    for coupled in (False, True):
        lstm = fastlstm.LSTM(I, H, 2, coupled=coupled, **options)
        lstm.save(path)
        assert same_layer(fastlstm.LSTM.load(path), lstm)
        metadata = {"format": "fastlstm.LSTM", "config": json.dumps(lstm._configuration())}
        for name in ("weight_hh_l1", "weight_hr_l0_reverse", "bias_hh_l1"):
            save_file(without(lstm.state_dict(), name), path, metadata)
            with pytest.raises(ValueError, match=rf"do not agree \(missing: {name}\)"):
                fastlstm.LSTM.load(path)


@pytest.mark.parametrize(
    ("dtype", "nbytes"), [("U16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("I32", 4)]
)
def test_types_that_are_not_read(dtype: str, nbytes: int, tmp_path: Path) -> None:
    """Also those that NumPy has no name for."""
    path = tmp_path / "layer.safetensors"
    config = json.dumps(fastlstm.LSTM(I, H)._configuration())
    header: dict[str, Any] = {"__metadata__": {"format": "fastlstm.LSTM", "config": config}}
    header["weight_ih_l0"] = {"dtype": dtype, "shape": [3], "data_offsets": [0, 3 * nbytes]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(3 * nbytes))
    message = rf"weight_ih_l0: expected one of I8, F16, BF16, F32, F64, got {dtype}$"
    with pytest.raises(ValueError, match=message):
        fastlstm.LSTM.load(path)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    state = fastlstm.LSTM(I, H).state_dict()
    for metadata, message in [
        (None, "not of a fastlstm.LSTM"),
        ({"format": "pt"}, "not of a fastlstm.LSTM"),
        ({"format": "fastlstm.LanguageModel", "config": "{}"}, "not of a fastlstm.LSTM"),
        ({"format": "fastlstm.LSTM"}, "configuration in the file is damaged"),
        ({"format": "fastlstm.LSTM", "config": "{"}, "configuration in the file is damaged"),
        ({"format": "fastlstm.LSTM", "config": "[1]"}, "configuration in the file is damaged"),
        ({"format": "fastlstm.LSTM", "config": "{}"}, "weights and configuration do not agree"),
    ]:
        save_file(state, path, metadata)
        with pytest.raises(ValueError, match=rf"layer\.safetensors: .*{message}"):
            fastlstm.LSTM.load(path)
    for content in (b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"\xff" * 100, b"{" * 8 + b"[" * 99):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"layer\.safetensors: not a safetensors file"):
            fastlstm.LSTM.load(path)


def test_truncated_and_damaged_files(tmp_path: Path, rng: Generator) -> None:
    """Any length that is too short is found out; flipped bits never do worse than other weights."""
    path = tmp_path / "layer.safetensors"
    fastlstm.LSTM(I, H).save(path)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"layer\.safetensors: "):
            fastlstm.LSTM.load(path)
    path.write_bytes(content + b"more")
    with pytest.raises(ValueError, match=r"layer\.safetensors: "):
        fastlstm.LSTM.load(path)
    refused = others = 0
    header = 8 + int.from_bytes(content[:8], "little")
    for at in rng.integers(0, header, 400):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            fastlstm.LSTM.load(path)
        except ValueError as error:
            refused += str(error).startswith(f"{path}: ")
            others += not str(error).startswith(f"{path}: ")
    assert refused > 200
    assert others == 0
