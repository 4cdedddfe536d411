"""ONNX and weights of 8 and 16 bits: DequantizeLinear, DynamicQuantizeLSTM, and what cannot be."""

from __future__ import annotations

import os
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import check_bits, same_bits
from support.onnx_low_bits import (
    BYTES,
    FLOAT,
    LSTM_OPTIONS,
    B,
    H,
    I,
    T,
    check_results,
    our_rows,
    small_layer,
    widened,
)
from support.onnx_models import random_inputs, run_layer, run_model

import fastlstm

pytestmark = pytest.mark.peer
onnx = pytest.importorskip("onnx")
from support.onnx_edits import Edit, made_by, stored, tensor_of, wired, written  # noqa: E402

from fastlstm.onnx import from_onnx, to_onnx  # noqa: E402

CELLS: list[Any] = [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN]
OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    *((fastlstm.LSTM, options) for options in LSTM_OPTIONS),
    (fastlstm.GRU, {}),
    (fastlstm.GRU, {"reset_after": False}),
    (fastlstm.RNN, {"nonlinearity": "relu"}),
]


# Written and read


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize(("cell", "options"), OPTIONS)
def test_round_trip(
    rng: Generator, tmp_path: Path, cell: Any, options: dict[str, Any], bidirectional: bool
) -> None:
    """Behind DequantizeLinear a node computes with float32."""
    layer = small_layer(cell, 2, bidirectional=bidirectional, **options)
    path = tmp_path / "layer.onnx"
    to_onnx(layer, path)
    onnx.checker.check_model(os.fspath(path), full_check=True)
    inputs = random_inputs(rng, layer, T, B)
    outputs = run_model(path, inputs)
    check_results(outputs, run_layer(widened(layer), inputs), FLOAT)
    check_results(outputs, run_layer(layer, inputs), BYTES)
    again = from_onnx(path)
    assert repr(again) == repr(layer)
    check_bits(again.state_dict(), layer.state_dict())
    single = from_onnx(path, dtype="float32")
    check_bits(single.state_dict(), widened(layer).state_dict())


def test_the_integers_are_stored(tmp_path: Path) -> None:
    """A byte for each weight, not four."""
    sizes = {}
    for layer in (lstm := fastlstm.LSTM(64, 128, seed=1), lstm.quantize("int8")):
        to_onnx(layer, tmp_path / "layer.onnx")
        sizes[layer.weights_dtype] = os.path.getsize(tmp_path / "layer.onnx")
    assert sizes["int8"] < 0.3 * sizes["float32"]
    to_onnx(lstm.quantize("int8"), tmp_path / "layer.onnx", dynamic_quantize=True)
    assert os.path.getsize(tmp_path / "layer.onnx") < 0.3 * sizes["float32"]


@pytest.mark.parametrize("weights_dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("cell", CELLS)
def test_16_bits(rng: Generator, tmp_path: Path, cell: Any, weights_dtype: str) -> None:
    """Of the rounded weights a file of float32 is made."""
    layer = cell(I, H, 2, bidirectional=True, seed=1).quantize(weights_dtype)
    to_onnx(layer, tmp_path / "layer.onnx")
    inputs = random_inputs(rng, layer, T, B)
    check_results(run_model(tmp_path / "layer.onnx", inputs), run_layer(layer, inputs), FLOAT)
    again = from_onnx(tmp_path / "layer.onnx")
    assert again.weights_dtype == "float32"
    for name, array in layer.state_dict().items():
        assert same_bits(again.parameters[name], array.astype("f4"))
    for got, expected in zip(run_layer(again, inputs), run_layer(layer, inputs), strict=True):
        assert same_bits(got, expected)


def test_bytes_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are stored count."""
    lstm = fastlstm.LSTM(I, H, bias=False)
    stored_bytes = 12 * (I + H + 2 * 4)
    monkeypatch.setattr("fastlstm.onnx._write.MOST_BYTES", stored_bytes)
    to_onnx(lstm.quantize("int8"), tmp_path / "layer.onnx")
    with pytest.raises(ValueError, match=rf"^layer: expected .* got {12 * 4 * (I + H)}$"):
        to_onnx(lstm.quantize("bfloat16"), tmp_path / "layer.onnx")
    monkeypatch.setattr("fastlstm.onnx._write.MOST_BYTES", stored_bytes - 1)
    with pytest.raises(ValueError, match=rf"^layer: expected .* got {stored_bytes}$"):
        to_onnx(lstm.quantize("int8"), tmp_path / "layer.onnx")


# DequantizeLinear of others


def quantized(op: str, name: str, form: str) -> Edit:
    """An edit that makes W or R of a file of integers, in a form that others write."""
    unsigned = form == "uint8"

    def edit(file: Any) -> None:
        tensor = tensor_of(file, f"{name}_l0")
        floats = onnx.numpy_helper.to_array(tensor)
        file.graph.initializer.remove(tensor)
        apart = {"a scale for all": (0, 1, 2), "a scale for each column": (0, 1)}.get(form, (0, 2))
        scales = np.abs(floats).max(axis=apart, keepdims=True) / np.float32(120)
        integers = np.rint(floats / scales) + 128 * unsigned
        integers = integers.astype("u1" if unsigned else "i1")
        parts, axis = [f"{name}_q", f"{name}_s", f"{name}_z"], 1
        if form == "turned":
            made_by("Transpose", [f"{name}_t"], f"{name}_l0", perm=[2, 1, 0])(file)
            integers = integers.transpose(2, 1, 0)
        if form == "a scale for each column":
            axis = 2
        output = f"{name}_t" if form == "turned" else f"{name}_l0"
        stored(parts[0], integers)(file)
        stored(parts[1], scales.reshape(() if form == "a scale for all" else -1))(file)
        zeros = np.full(scales.size, 128 * unsigned, integers.dtype)
        stored(parts[2], zeros.reshape(() if form == "a scale for all" else -1))(file)
        count = 3 if unsigned or form == "a scale for all" else 2
        made_by("DequantizeLinear", parts[:count], output, axis=axis)(file)

    return edit


FORMS = ["a scale for all", "a scale for each row", "uint8", "turned"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cell", CELLS)
def test_dequantized(rng: Generator, tmp_path: Path, cell: Any, form: str) -> None:
    op, layer = cell.__name__, cell(I, H, seed=1)
    edits = [quantized(op, name, form) for name in "WR"]
    path = written(tmp_path / "layer.onnx", layer, *edits)
    small = from_onnx(path)
    assert repr(small) == f"{op}({I}, {H}, weights_dtype='int8')"
    file, arrays = onnx.load(path), small.state_dict()
    for name, key in (("W", "weight_ih_l0"), ("R", "weight_hh_l0")):
        integers = onnx.numpy_helper.to_array(tensor_of(file, f"{name}_q")).astype(int)
        integers = integers.transpose(2, 1, 0) if form == "turned" else integers
        scales = onnx.numpy_helper.to_array(tensor_of(file, f"{name}_s"))
        scales = np.broadcast_to(scales, integers.shape[1])
        integers = (integers[0] - 128 * (form == "uint8")).astype("i1")
        assert same_bits(arrays[key], our_rows(op, integers))
        assert same_bits(arrays[f"{key}_scale"], our_rows(op, scales))
    inputs = random_inputs(rng, layer, T, B)
    outputs = run_model(path, inputs)
    check_results(outputs, run_layer(from_onnx(path, dtype="float32"), inputs), FLOAT)
    check_results(outputs, run_layer(small, inputs), BYTES)


def test_directions_apart(rng: Generator, tmp_path: Path) -> None:
    """Each dequantized with its own scales, then joined."""
    layer = small_layer(fastlstm.GRU, bidirectional=True)
    path = written(tmp_path / "layer.onnx", widened(layer))
    file = onnx.load(path)
    for name, key in (("W", "weight_ih_l0"), ("R", "weight_hh_l0")):
        file.graph.initializer.remove(tensor_of(file, f"{name}_l0"))
        made_by("Concat", [f"{name}_0", f"{name}_1"], f"{name}_l0", axis=0)(file)
        for d, suffix in enumerate(["", "_reverse"]):
            parts = [f"{name}_q{d}", f"{name}_s{d}"]
            for part, end in zip(parts, ["", "_scale"], strict=True):
                array = our_rows("GRU", layer.parameters[f"{key}{suffix}{end}"])  # its own inverse
                stored(part, array if end else array[None])(file)
            made_by("DequantizeLinear", parts, f"{name}_{d}", axis=1)(file)
    path.write_bytes(file.SerializeToString())
    inputs = random_inputs(rng, layer, T, B)
    check_results(run_model(path, inputs), run_layer(widened(layer), inputs), FLOAT)
    check_bits(from_onnx(path).state_dict(), layer.state_dict())


def test_bias_of_integers(tmp_path: Path) -> None:
    integers, scale = np.arange(24, dtype="i4").reshape(1, 24), np.float32(0.25)
    edits = [
        stored("B_q", integers),
        stored("B_s", scale),
        made_by("DequantizeLinear", ["B_q", "B_s"], "B"),
        wired("LSTM_l0", 3, "B"),
    ]
    layer = from_onnx(written(tmp_path / "layer.onnx", fastlstm.LSTM(I, H), *edits))
    assert repr(layer) == f"LSTM({I}, {H})"
    expected = our_rows("LSTM", integers[0, 12:].astype("f4") * scale)
    assert same_bits(layer.parameters["bias_hh_l0"], expected)


def negative(file: Any) -> None:
    scales = onnx.numpy_helper.to_array(tensor_of(file, "W_s"))
    stored("W_s", -scales)(file)


both = [quantized("LSTM", name, "a scale for each row") for name in "WR"]
UNFIT: dict[str, tuple[list[Edit], str]] = {
    "a scale for each column": (
        [quantized("LSTM", "W", "a scale for each column"), both[1]],
        "W is no int8 of a layer, its rows have not one scale each, finite and 0 or more",
    ),
    "R of float32": (both[:1], "R is no int8 of a layer, it is of float32"),
    "negative scales": (
        [*both, negative],
        "W is no int8 of a layer, its rows have not one scale each, finite and 0 or more",
    ),
}


@pytest.mark.parametrize(("edits", "message"), UNFIT.values(), ids=UNFIT)
def test_widened(rng: Generator, tmp_path: Path, edits: list[Edit], message: str) -> None:
    """No layer of int8 has such weights; a layer of float32 does what the file does."""
    path = written(tmp_path / "layer.onnx", fastlstm.LSTM(I, H, seed=1), *edits)
    text = f"^{path}: node 'LSTM_l0': {message}: all weights are read as float32; dtype='float32' "
    with pytest.warns(UserWarning, match=text):
        layer = from_onnx(path)
    assert repr(layer) == f"LSTM({I}, {H})"
    inputs = random_inputs(rng, layer, T, B)
    check_results(run_model(path, inputs), run_layer(layer, inputs), FLOAT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_bits(from_onnx(path, dtype="float32").state_dict(), layer.state_dict())


def test_not_followed(tmp_path: Path) -> None:
    """Blocks within rows, and damaged nodes."""
    edits = {
        "blocks": made_by("DequantizeLinear", ["q", "blocks"], "W", axis=1, block_size=4),
        "two scales for many rows": made_by("DequantizeLinear", ["q", "s"], "W", axis=1),
        "zero points of another type": made_by("DequantizeLinear", ["q", "one", "zero"], "W"),
        "scales of integers": made_by("DequantizeLinear", ["q", "q"], "W"),
        "no integers": made_by("DequantizeLinear", ["s", "one"], "W"),
    }
    parts = {"q": np.ones((1, 12, 4), "i1"), "s": np.ones((1, 12, 2), "f4"), "one": np.float32(1)}
    parts["zero"] = np.uint8(0)
    parts["blocks"] = np.ones((1, 3, 4), "f4")  # as many as there are rows
    for edit in edits.values():
        given = [*(stored(name, array) for name, array in parts.items()), edit]
        path = written(
            tmp_path / "layer.onnx", fastlstm.LSTM(I, H), *given, wired("LSTM_l0", 1, "W")
        )
        with pytest.raises(ValueError, match=r"W: expected constants .* made by DequantizeLinear"):
            from_onnx(path)


@pytest.mark.parametrize("edit", [
    made_by("Cast", ["w"], "W", to=1), made_by("DequantizeLinear", ["w", "scale"], "W"),
])  # fmt: skip
def test_one_integer_for_many(tmp_path: Path, edit: Edit) -> None:
    """It is not multiplied by the scale before the size is known to be no harm."""
    shape = (1, 4 * H, 2**22)
    one = onnx.numpy_helper.from_array(np.ones(1, "i1"))
    path = written(
        tmp_path / "layer.onnx",
        fastlstm.LSTM(I, H),
        edit,
        made_by("DequantizeLinear", ["q", "scale"], "w"),
        made_by("ConstantOfShape", ["shape"], "q", value=one),
        stored("shape", shape),
        wired("LSTM_l0", 1, "W"),
        stored("scale", np.float32(1)),
    )
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"W: expected constants .* made by "):
            from_onnx(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 21
    finally:
        tracemalloc.stop()
