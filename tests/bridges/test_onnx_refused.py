"""Files of ONNX that are refused: what no layer does, what is damaged, what claims too much."""

from __future__ import annotations

import contextlib
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import same_bits

import fastlstm

pytestmark = pytest.mark.peer
onnx = pytest.importorskip("onnx")
from support.onnx_edits import (  # noqa: E402
    Edit,
    asking,
    lengths_input,
    made_by,
    stored,
    tensor_of,
    wired,
    written,
)

from fastlstm.onnx import from_onnx, to_onnx  # noqa: E402

T, B, I, H = 7, 5, 4, 3  # all different, so that a mix-up shows


# What is between two nodes


TURNED, JOINED = "Y_l0_turned", "Y_l0_joined"
NO_STACK: dict[str, tuple[Edit, ...]] = {
    "rows and steps exchanged": (asking(TURNED, perm=[2, 0, 1, 3]),),
    "directions within features": (asking(TURNED, perm=[0, 2, 3, 1]),),
    "not turned": (wired(JOINED, 0, "Y_l0"),),
    "fixed rows": (stored("joined", [0, 5, 2 * H]),),
    "another operator": (
        lambda file: file.graph.node.insert(3, onnx.helper.make_node("Tanh", ["y_l0"], ["z"])),
        wired("LSTM_l1", 0, "z"),
    ),
    "its own lengths": (wired("LSTM_l1", 4, "lengths"), lengths_input),
    "another clip": (asking("LSTM_l1", clip=0.5),),
    "another bias": (wired("LSTM_l1", 3, ""),),
    "another activation": (asking("LSTM_l1", activations=["Relu"] * 6),),
}


@pytest.mark.parametrize("case", NO_STACK)
def test_no_stack(tmp_path: Path, case: str) -> None:
    """Nodes that are not the layers of one LSTM are found, but one has to be chosen."""
    layer = fastlstm.LSTM(I, H, 2, bidirectional=True, seed=1)
    path = written(tmp_path / "layer.onnx", layer, *NO_STACK[case])
    with pytest.raises(ValueError, match=r"name: expected .* 'LSTM_l0' \(LSTM\), 'LSTM_l1'"):
        from_onnx(path)
    lower = from_onnx(path, "LSTM_l0")
    assert lower.num_layers == 1
    assert same_bits(lower.parameters["weight_hh_l0"], layer.parameters["weight_hh_l0"])


# What is refused


def claim(name: str, *shape: int) -> Edit:
    """An edit that makes a tensor claim a shape."""

    def edit(file: Any) -> None:
        tensor_of(file, name).dims[:] = shape

    return edit


def run_time_weights(file: Any) -> None:
    tensor = tensor_of(file, "W_l0")
    file.graph.initializer.remove(tensor)
    file.graph.input.append(onnx.helper.make_tensor_value_info("W_l0", 1, tensor.dims))


NODES: dict[str, tuple[tuple[Edit, ...], str]] = {
    "reverse": (
        (asking("LSTM_l0", direction="reverse"),),
        "direction: fastlstm has no layer of the reverse direction alone",
    ),
    "unknown attribute": (
        (asking("LSTM_l0", output_sequence=1),),
        "attributes: LSTM has no 'output_sequence'",
    ),
    "unknown function": (
        (asking("LSTM_l0", activations=["Gelu", "Tanh", "Tanh"]),),
        "activations: expected names out of Sigmoid, ",
    ),
    "hidden size": (
        (asking("LSTM_l0", hidden_size=4),),
        "hidden_size: 4 does not agree with R, which is (1, 12, 3)",
    ),
    "type of attribute": (
        (asking("LSTM_l0", hidden_size="3"),),
        "hidden_size: expected an integer, got str",
    ),
    "gate count": (
        (stored("W_l0", np.ones((1, 9, I), "f4")),),
        "W: expected (1, 12, 4), got (1, 9, 4)",
    ),
    "bias": ((stored("B_l0", np.ones((1, 12), "f4")),), "B: expected (1, 24), got (1, 12)"),
    "integers": (
        (stored("W_l0", np.ones((1, 12, I), "i8")),),
        "W: expected one of float32, float64, float16, bfloat16, got int64",
    ),
    "bytes": (
        (stored("W_l0", np.ones((1, 12, I), "u1")),),
        "W: expected one of float32, float64, float16, bfloat16, got uint8",
    ),
    "16-bit integers": (
        (stored("W_l0", np.ones((1, 12, I), "i2")),),
        "W: expected constants stored in the file, got 'W_l0', of another type",
    ),
    "no W": ((wired("LSTM_l0", 1, ""),), "W: missing, a node of LSTM needs it"),
    "too many inputs": ((wired("LSTM_l0", 8, "x"),), "LSTM has no input 'x'"),
    "weights at run time": (
        (run_time_weights,),
        "W: expected constants stored in the file, got 'W_l0', an input of the graph",
    ),
    "computed weights": (
        (wired("LSTM_l0", 1, "w"), made_by("Exp", ["W_l0"], "w")),
        "W: expected constants stored in the file, got 'w', made by Exp",
    ),
    "weights that grow": (
        (
            *(made_by("Concat", [f"w{k}"] * 2, f"w{k + 1}", axis=0) for k in reversed(range(60))),
            made_by("Identity", ["W_l0"], "w0"),
            wired("LSTM_l0", 1, "w60"),
        ),
        "W: expected constants stored in the file, got 'w60', made by Concat",
    ),
    "stored state": (
        (stored("h", np.ones((1, B, H), "f4")), wired("LSTM_l0", 5, "h")),
        "initial_h: expected an input of the graph, or a state of zeros: a layer takes",
    ),
    "learned state": (
        (
            made_by("Expand", ["c", "shape"], "c_all"),
            made_by("Shape", ["h_0"], "shape"),
            stored("c", np.ones((1, 1, H), "f4")),
            wired("LSTM_l0", 6, "c_all"),
        ),
        "initial_c: expected an input of the graph, or a state of zeros: a layer takes",
    ),
    "partly stored state": (
        (
            made_by("Concat", ["h_0", "h"], "both", axis=1),
            stored("h", np.ones((1, B, H), "f4")),
            wired("LSTM_l0", 5, "both"),
        ),
        "initial_h: expected an input of the graph, or a state of zeros: a layer takes",
    ),
    "stored lengths": (
        (stored("lengths", np.ones(B, "i4")), wired("LSTM_l0", 4, "lengths")),
        "sequence_lens: expected an input of the graph",
    ),
}


@pytest.mark.parametrize("case", NODES)
def test_refused_nodes(tmp_path: Path, case: str) -> None:
    edits, message = NODES[case]
    path = written(tmp_path / "layer.onnx", fastlstm.LSTM(I, H, seed=1), *edits)
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: node 'LSTM_l0': {message}")):
        from_onnx(path)


@pytest.mark.parametrize(
    "shape", [(1, 12, 5), (2**40, 12, I), (2**62, 2**62, 2**62), (1, -12, -I), (1, 12), (0, 12, I)]
)
def test_tensors_that_claim_more_or_less(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = written(tmp_path / "layer.onnx", fastlstm.LSTM(I, H), claim("W_l0", *shape))
    with pytest.raises(ValueError, match=r"tensor 'W_l0': claims the shape .*, has 48 values"):
        from_onnx(path)


def test_other_claims(tmp_path: Path) -> None:
    """A state of a size that no memory holds is not made; nor is a layer of that hidden size."""
    huge = stored("shape", [1, 2**40, 2**20])
    zeros = made_by("ConstantOfShape", ["shape"], "zeros")
    path = written(
        tmp_path / "layer.onnx", fastlstm.GRU(I, H), huge, zeros, wired("GRU_l0", 5, "zeros")
    )
    assert from_onnx(path).hidden_size == H
    path = written(path, fastlstm.GRU(I, H), asking("GRU_l0", hidden_size=2**40))
    with pytest.raises(ValueError, match="hidden_size: 1099511627776 does not agree with R"):
        from_onnx(path)


# Files that are much smaller than what they ask for


def one_element(name: str, *shape: int) -> Edit:
    """An edit that makes a tensor of one element."""

    def edit(file: Any) -> None:
        file.graph.initializer.remove(tensor_of(file, name))
        stored(f"{name}_shape", shape)(file)
        stored(f"{name}_one", np.ones((1, 1, 1), "f4"))(file)
        made_by("Expand", [f"{name}_one", f"{name}_shape"], name)(file)

    return edit


def zeros(name: str, *shape: int) -> Edit:
    def edit(file: Any) -> None:
        file.graph.initializer.remove(tensor_of(file, name))
        stored(f"{name}_shape", shape)(file)
        made_by("ConstantOfShape", [f"{name}_shape"], name)(file)

    return edit


def one_byte(name: str, *shape: int) -> Edit:
    """An edit that makes a tensor of one integer, and of one scale for each row."""

    def edit(file: Any) -> None:
        file.graph.initializer.remove(tensor_of(file, name))
        stored(f"{name}_shape", shape)(file)
        stored(f"{name}_rows", shape[1:2])(file)
        scale, integer = (onnx.numpy_helper.from_array(np.ones(1, dtype)) for dtype in ("f4", "i1"))
        parts = [f"{name}_int8", f"{name}_scale"]
        made_by("DequantizeLinear", parts, name, axis=1)(file)
        made_by("ConstantOfShape", [f"{name}_rows"], parts[1], value=scale)(file)
        made_by("ConstantOfShape", [f"{name}_shape"], parts[0], value=integer)(file)

    return edit


@pytest.mark.parametrize("made", [one_element, zeros, one_byte])
@pytest.mark.parametrize(("inputs", "hidden"), [(1, 4096), (1, 2**16), (2**33, 1), (2**23, 1)])
def test_small_files_that_ask_for_large_layers(
    tmp_path: Path, made: Any, inputs: int, hidden: int
) -> None:
    """Refused before a layer is made; without bias, a few hundred bytes."""
    edits = [made("W_l0", 1, 4 * hidden, inputs), made("R_l0", 1, 4 * hidden, hidden)]
    edits += [
        asking("LSTM_l0", hidden_size=hidden),
        wired("LSTM_l0", 5, ""),
        wired("LSTM_l0", 6, ""),
    ]
    path = written(tmp_path / "layer.onnx", fastlstm.LSTM(1, 1, bias=False), *edits)
    got = 16 * hidden * (inputs + hidden)
    message = rf"weights: expected at most 67\d{{6}} bytes, .* bytes of constants, got {got}, which"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            from_onnx(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("made", [one_element, zeros])
def test_small_files_that_ask_for_small_layers(tmp_path: Path, made: Any) -> None:
    """Models without trained weights, of a size that does no harm."""
    edits = [made("W_l0", 1, 2048, 256), made("R_l0", 1, 2048, 512)]
    path = written(
        tmp_path / "layer.onnx",
        fastlstm.LSTM(1, 1, bias=False),
        *edits,
        asking("LSTM_l0", hidden_size=512),
        wired("LSTM_l0", 5, ""),
        wired("LSTM_l0", 6, ""),
    )
    layer = from_onnx(path)
    assert repr(layer) == "LSTM(256, 512, bias=False)"
    assert (layer.parameters.flat == (made is one_element)).all()


def test_room_for_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision that is widened to float64, or weights that two layers share, are no trick."""
    monkeypatch.setattr("fastlstm.onnx._read.ROOM", 0)

    def halve(file: Any) -> None:
        for tensor in list(file.graph.initializer):
            if tensor.data_type == 1:
                stored(tensor.name, onnx.numpy_helper.to_array(tensor).astype("f2"))(file)

    shared = [wired("GRU_l1", k, f"{name}_l0") for k, name in [(1, "W"), (2, "R"), (3, "B")]]
    layer = fastlstm.GRU(64, 64, 2, seed=1)
    path = written(tmp_path / "layer.onnx", layer, halve, *shared)
    assert from_onnx(path, dtype="float64").dtype == np.float64


def twice(name: str) -> Edit:
    """An edit that defines a stored tensor a second time."""

    def edit(file: Any) -> None:
        file.graph.initializer.append(tensor_of(file, name))

    return edit


@pytest.mark.parametrize(
    "edit", [twice("W_l0"), made_by("Identity", ["R_l0"], "W_l0"), made_by("Relu", ["x"], "W_l0")]
)
def test_two_definitions(tmp_path: Path, edit: Edit) -> None:
    path = written(tmp_path / "layer.onnx", fastlstm.LSTM(I, H), edit)
    message = f"{path}: expected one definition of each value, got two of 'W_l0'"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        from_onnx(path)


def test_other_operators_of_these_names(tmp_path: Path) -> None:
    """They are named, so that nobody looks for them in vain."""
    other = onnx.helper.make_node(
        "DynamicQuantizeGRU", ["x"], ["q"], name="quantized", domain="com.microsoft"
    )
    note = re.escape("; not read: 'quantized' (com.microsoft.DynamicQuantizeGRU)") + "$"
    model = onnx.helper.make_model(onnx.helper.make_graph([other], "g", [], []))
    path = tmp_path / "layer.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="expected a node of LSTM, GRU or RNN, found none" + note):
        from_onnx(path)
    path = written(path, fastlstm.LSTM(I, H), lambda file: file.graph.node.append(other))
    assert repr(from_onnx(path)) == f"LSTM({I}, {H})"
    with pytest.raises(ValueError, match=r"got 'quantized'; .* 'LSTM_l0' \(LSTM\)" + note):
        from_onnx(path, "quantized")


# Files that are no models, or damaged ones


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "layer.onnx"
    with pytest.raises(FileNotFoundError):
        from_onnx(path)
    for content in (b"", b"\0", b"layer", bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a model of ONNX, or not all of one"):
            from_onnx(path)
    other = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    path.write_bytes(onnx.helper.make_model(other).SerializeToString())
    with pytest.raises(ValueError, match="expected a node of LSTM, GRU or RNN, found none"):
        from_onnx(path)


def test_old_opsets(tmp_path: Path) -> None:
    def old(file: Any) -> None:
        file.opset_import[0].version = 6

    path = written(tmp_path / "layer.onnx", fastlstm.LSTM(I, H), old)
    with pytest.raises(ValueError, match="expected opset 7 or later, got 6"):
        from_onnx(path)


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "layer.onnx"
    to_onnx(fastlstm.LSTM(2, 1, 2, bidirectional=True, seed=1), path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            from_onnx(path)


def test_damaged(rng: Generator, tmp_path: Path) -> None:
    """Any byte may be wrong: a layer, or one clear error."""
    path = tmp_path / "layer.onnx"
    to_onnx(fastlstm.LSTM(2, 1, 2, bidirectional=True, seed=1), path)
    whole, accepted = path.read_bytes(), 0
    for _ in range(500):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            from_onnx(path)
            accepted += 1
    assert 0 < accepted < 400


def test_circle(tmp_path: Path) -> None:
    edits = [wired("LSTM_l0", 0, "b"), made_by("Identity", ["b"], "a")]
    edits += [made_by("Identity", ["a"], "b")]
    path = written(tmp_path / "layer.onnx", fastlstm.LSTM(I, H, seed=1), *edits)
    assert repr(from_onnx(path)) == f"LSTM({I}, {H})"  # what X is does not matter to the layer
    path = written(path, fastlstm.LSTM(I, H), *edits[1:], wired("LSTM_l0", 1, "b"))
    with pytest.raises(ValueError, match="W: expected constants stored in the file, got 'b'"):
        from_onnx(path)
