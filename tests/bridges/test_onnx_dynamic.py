"""`DynamicQuantizeLSTM` of ONNX Runtime: written for it, read from it and from others."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, Arrays, check_bits, same_bits
from support.onnx_low_bits import (
    BYTES,
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
from fastlstm import reference
from fastlstm.reference.low_bits import ByteMatrix

pytestmark = pytest.mark.peer
onnx = pytest.importorskip("onnx")
from support.onnx_edits import Edit, made_by, stored, wired  # noqa: E402

from fastlstm.onnx import from_onnx, to_onnx  # noqa: E402

# Written


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("options", LSTM_OPTIONS)
def test_round_trip(
    rng: Generator, tmp_path: Path, options: dict[str, Any], bidirectional: bool
) -> None:
    layer = small_layer(fastlstm.LSTM, 2, bidirectional=bidirectional, **options)
    path = tmp_path / "layer.onnx"
    to_onnx(layer, path, dynamic_quantize=True)
    onnx.checker.check_model(os.fspath(path), full_check=True)
    file = onnx.load(path)
    assert {node.op_type for node in file.graph.node} >= {"DynamicQuantizeLSTM"}
    inputs = random_inputs(rng, layer, T, B)
    check_results(run_model(path, inputs), run_layer(layer, inputs), BYTES)
    again = from_onnx(path)
    assert repr(again) == repr(layer)
    check_bits(again.state_dict(), layer.state_dict())


def test_dynamic_nodes_refused(tmp_path: Path) -> None:
    path = tmp_path / "layer.onnx"
    lstm = fastlstm.LSTM(I, H)
    layers: list[Any] = [lstm, lstm.quantize("float16"), fastlstm.GRU(I, H).quantize("int8")]
    for layer, got in zip(
        layers, ["LSTM of float32", "LSTM of float16", "GRU of int8"], strict=True
    ):
        message = f"dynamic_quantize: expected an LSTM with weights of int8, got {got}"
        with pytest.raises(ValueError, match=f"^{message}$"):
            to_onnx(layer, path, dynamic_quantize=True)
    with pytest.raises(ValueError, match="proj_size: ONNX cannot express 2, only 0"):
        to_onnx(fastlstm.LSTM(I, H, proj_size=2).quantize("int8"), path)
    assert not path.exists()


# Written by others


def dynamic_tensors(rng: Generator, D: int, per_row: bool, dtype: str, most: int = 63) -> Arrays:
    """W, R and B of a node, in its layout, zero point 0 of int8 or 128 of uint8."""
    zero = 128 if dtype == "u1" else 0
    tensors: Arrays = {"B": rng.standard_normal((D, 8 * H)).astype("f4")}
    for name, size in (("W", I), ("R", H)):
        shape = (D, 4 * H) if per_row else (D,)
        integers = rng.integers(-most, most, (D, size, 4 * H), endpoint=True)
        tensors[name] = (integers + zero).astype(dtype)
        tensors[f"{name}_scale"] = rng.uniform(0.2 / most, 0.4 / most, shape).astype("f4")
        tensors[f"{name}_zero_point"] = np.full(shape, zero, dtype)
    return tensors


def dynamic_file(path: Path, tensors: Arrays, *edits: Edit) -> Path:
    """A node of these tensors; x, h_0 and c_0 are inputs."""
    D = len(tensors["W"])
    ends = [f"{name}_{end}" for name in "WR" for end in ("scale", "zero_point")]
    inputs = ["x", "W", "R", "B", "", "h_0", "c_0", "", *ends]
    direction = "bidirectional" if D == 2 else "forward"
    helper = onnx.helper
    node = helper.make_node(
        "DynamicQuantizeLSTM", inputs, ["Y", "h_n", "c_n"], name="node", domain="com.microsoft",
        direction=direction, hidden_size=H,
    )  # fmt: skip
    shapes = {"x": ("T", "B", I), "h_0": (D, "B", H), "c_0": (D, "B", H)}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, 1, None) for name in node.output],
    )
    opsets = [helper.make_opsetid("", 14), helper.make_opsetid("com.microsoft", 1)]
    file = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    for name, array in tensors.items():
        stored(name, array)(file)
    for edit in edits:
        edit(file)
    path.write_bytes(file.SerializeToString())
    return path


def expected_of(tensors: Arrays) -> Arrays:
    """Our names, integers and scales."""
    found: Arrays = {}
    for d, suffix in enumerate(["", "_reverse"][: len(tensors["W"])]):
        for name, key in (("W", "weight_ih_l0"), ("R", "weight_hh_l0")):
            zero = 128 if tensors[name].dtype == np.uint8 else 0
            integers = (tensors[name][d].astype(int) - zero).astype("i1").T
            scales = np.broadcast_to(tensors[f"{name}_scale"][d], 4 * H)
            found[key + suffix] = our_rows("LSTM", integers)
            found[f"{key}{suffix}_scale"] = our_rows("LSTM", scales)
        for key, bias in zip(
            ["bias_ih_l0", "bias_hh_l0"], np.split(tensors["B"][d], 2), strict=True
        ):
            found[key + suffix] = our_rows("LSTM", bias)
    return found


def outputs_of(path: Path, inputs: Arrays) -> list[Array]:
    """What ONNX Runtime computes, with the directions of Y joined."""
    y, *states = run_model(path, inputs)
    return [y.swapaxes(1, 2).reshape(*inputs["x"].shape[:2], -1), *states]


@pytest.mark.parametrize("dtype", ["i1", "u1"])
@pytest.mark.parametrize("per_row", [False, True], ids=["a scale for all", "for each row"])
@pytest.mark.parametrize("D", [1, 2])
def test_dynamic_node(rng: Generator, tmp_path: Path, D: int, per_row: bool, dtype: str) -> None:
    tensors = dynamic_tensors(rng, D, per_row, dtype)
    path = dynamic_file(tmp_path / "layer.onnx", tensors)
    layer = from_onnx(path)
    options = ", bidirectional=True" if D == 2 else ""
    assert repr(layer) == f"LSTM({I}, {H}{options}, weights_dtype='int8')"
    check_bits(layer.state_dict(), expected_of(tensors))
    inputs = random_inputs(rng, layer, T, B)
    check_results(outputs_of(path, inputs), run_layer(layer, inputs), BYTES)
    single = from_onnx(path, dtype="float32")
    check_bits(single.state_dict(), widened(layer).state_dict())


@pytest.mark.parametrize("per_row", [False, True], ids=["a scale for all", "for each row"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_the_quantizer_of_onnx_runtime(
    rng: Generator, tmp_path: Path, bidirectional: bool, per_row: bool
) -> None:
    """Of a stack of float32; with `reduce_range`, sums saturate nowhere."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    layer = fastlstm.LSTM(I, H, 2, bidirectional=bidirectional, batch_first=True, seed=1)
    paths = tmp_path / "layer.onnx", tmp_path / "small.onnx"
    to_onnx(layer, paths[0])
    quantization.quantize_dynamic(*paths, per_channel=per_row, reduce_range=True)
    small = from_onnx(paths[1])
    assert repr(small) == repr(layer.quantize("int8"))
    inputs = random_inputs(rng, layer, T, B)
    results = run_layer(small, inputs)
    check_results(run_model(paths[1], inputs), results, BYTES)
    check_results(run_layer(layer, inputs), results, BYTES)


@pytest.mark.parametrize("dtype", ["i1", "u1"])
def test_the_lowest_integer(rng: Generator, tmp_path: Path, dtype: str) -> None:
    """-128, which our own quantization does not make, is kept, and right."""
    tensors = dynamic_tensors(rng, 1, True, dtype, 127)
    for name in "WR":
        lowest = 0 if dtype == "u1" else -128
        tensors[name][rng.random(tensors[name].shape) < 0.5] = lowest
    layer = from_onnx(dynamic_file(tmp_path / "layer.onnx", tensors))
    check_bits(layer.state_dict(), expected_of(tensors))
    assert layer.parameters["weight_ih_l0"].min() == -128
    twin = reference.LSTM(I, H)
    for name, array in layer.state_dict().items():
        if array.dtype == np.int8:
            matrix = array.astype(np.int64).view(ByteMatrix)
            matrix.scale = layer.parameters[f"{name}_scale"]
            twin.parameters[name] = matrix
        elif name in twin.parameters:
            twin.parameters[name] = array.astype(float)
    x = rng.standard_normal((T, B, I), dtype=np.float32)
    assert np.abs(layer(x)[0] - twin(x)[0]).max() < 1e-6


def test_other_zero_points(rng: Generator, tmp_path: Path) -> None:
    """What is left of the integers decides whether a layer can have them."""
    tensors = dynamic_tensors(rng, 1, False, "u1")
    tensors["R_zero_point"][:] = 100
    path = dynamic_file(tmp_path / "layer.onnx", tensors)
    layer = from_onnx(path)
    expected = expected_of(tensors)["weight_hh_l0"] + 28
    assert same_bits(layer.parameters["weight_hh_l0"], expected.astype("i1"))
    tensors["R"][0, 0, 0] = 228
    path = dynamic_file(tmp_path / "layer.onnx", tensors)
    message = f"{path}: node 'node': R is no int8 of a layer, its integers less the zero point are "
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}beyond -128 to 127 ") as found:
        wide = from_onnx(path)
    assert len(found) == 1
    assert found[0].filename == __file__
    assert repr(wide) == f"LSTM({I}, {H})"
    assert wide.parameters["weight_hh_l0"][0, 0] == 128 * tensors["R_scale"][0]
    assert same_bits(wide.parameters["weight_ih_l0"], widened(layer).parameters["weight_ih_l0"])
    inputs = random_inputs(rng, wide, T, B)
    check_results(outputs_of(path, inputs), run_layer(wide, inputs), BYTES)
    check_bits(from_onnx(path, dtype="float32").state_dict(), wide.state_dict())


def dequantized_scale(file: Any) -> None:
    stored("one", np.float32(1))(file)
    made_by("DequantizeLinear", ["W_zero_point", "one"], "made", axis=0)(file)
    wired("node", 8, "made")(file)


BAD_NODES: dict[str, tuple[Edit, str]] = {
    "float32": (
        stored("W", np.ones((1, I, 4 * H), "f4")),
        f"W: expected 3 axes of int8 or uint8, got float32 (1, {I}, {4 * H})",
    ),
    "a scale too few": (
        stored("R_scale", np.ones((1, 4 * H - 1), "f4")),
        f"R_scale: expected float32 (1,) or (1, {4 * H}), got float32 (1, {4 * H - 1})",
    ),
    "zero point of another type": (
        stored("W_zero_point", np.zeros(1, "u1")),
        f"W_zero_point: expected int8 (1,) or (1, {4 * H}), got uint8 (1,)",
    ),
    "the layout of LSTM": (
        stored("W", np.ones((1, 4 * H, I), "i1")),
        f"W_zero_point: expected int8 (1,) or (1, {I}), got int8 (1, {4 * H})",
    ),
    "no scale": (wired("node", 8, ""), "W_scale: missing, a node of DynamicQuantizeLSTM needs it"),
    "too many inputs": (wired("node", 12, "x"), "DynamicQuantizeLSTM has no input 'x'"),
    "scales of integers": (
        dequantized_scale,
        "W_scale: expected constants stored in the file, got 'made', made by DequantizeLinear",
    ),
    "scales of the caller": (
        wired("node", 8, "x"),
        "W_scale: expected constants stored in the file, got 'x', an input of the graph",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), BAD_NODES.values(), ids=BAD_NODES)
def test_refused_nodes(rng: Generator, tmp_path: Path, edit: Edit, message: str) -> None:
    path = dynamic_file(tmp_path / "layer.onnx", dynamic_tensors(rng, 1, True, "i1"), edit)
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        from_onnx(path)
