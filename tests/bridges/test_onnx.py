"""Files of ONNX: written for ONNX Runtime, read from it and from others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.checkout import CHECKOUT
from support.compare import check_bits, same_bits
from support.onnx_models import check, model, random_inputs, random_tensors, run_layer, run_model
from support.processes import script

import fastlstm

pytestmark = pytest.mark.peer
onnx = pytest.importorskip("onnx")
from support.onnx_edits import Edit, lengths_input, made_by, stored, tensor_of, wired, written  # noqa: E402

from fastlstm.onnx import from_onnx, run_node, to_onnx  # noqa: E402

T, B, I, H = 7, 5, 4, 3  # all different, so that a mix-up shows
TOLERANCE = 2e-6
CELLS: list[Any] = [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN]
NAMES = ("y", "h_n", "c_n")

every_cell = pytest.mark.parametrize("cell", CELLS)


def round_trip(rng: Generator, path: Path, layer: Any) -> None:
    """Written, run by ONNX Runtime with two sizes, read."""
    to_onnx(layer, path)
    onnx.checker.check_model(os.fspath(path), full_check=True)
    for steps, rows in [(T, B), (1, 2)]:
        inputs = random_inputs(rng, layer, steps, rows)
        for name, got, expected in zip(
            NAMES, run_model(path, inputs), run_layer(layer, inputs), strict=False
        ):
            check(got, expected, TOLERANCE, name)
    again = from_onnx(path)
    assert repr(again) == repr(layer)
    check_bits(again.state_dict(), layer.state_dict())


# Written and read


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@every_cell
def test_round_trip(
    rng: Generator, tmp_path: Path, cell: Any, layers: int, bidirectional: bool, batch_first: bool
) -> None:
    layer = cell(I, H, layers, bidirectional=bidirectional, batch_first=batch_first, seed=1)
    round_trip(rng, tmp_path / "layer.onnx", layer)


@every_cell
def test_without_bias(rng: Generator, tmp_path: Path, cell: Any) -> None:
    layer = cell(I, H, 2, bias=False, bidirectional=True, seed=1)
    round_trip(rng, tmp_path / "layer.onnx", layer)


@every_cell
def test_one_of_everything(rng: Generator, tmp_path: Path, cell: Any) -> None:
    """Axes of one element can be taken for each other; the shapes must still be right."""
    round_trip(rng, tmp_path / "layer.onnx", cell(1, 1, 2, seed=1))
    round_trip(rng, tmp_path / "layer.onnx", cell(1, 1, 2, bidirectional=True, seed=1))


HARD = ("hard_sigmoid", 0.25, 0.4)
OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    (fastlstm.RNN, {"nonlinearity": "relu"}),
    (fastlstm.GRU, {"reset_after": False}),
    (fastlstm.LSTM, {"peephole": True}),
    (fastlstm.LSTM, {"coupled": True}),
    (fastlstm.LSTM, {"coupled": True, "peephole": True}),
    (fastlstm.LSTM, {"preact_clip": 0.3}),
    (fastlstm.LSTM, {"activations": ("hard_sigmoid", "softsign", ("elu", 0.5))}),
    (fastlstm.LSTM, {"activations": (HARD, "tanh", "tanh", "sigmoid", "relu", ("scaled_tanh", 2))}),
    (fastlstm.LSTM, {"peephole": True, "preact_clip": 0.3, "activations": (HARD, "tanh", "tanh")}),
]


@pytest.mark.parametrize(("cell", "options"), OPTIONS)
def test_options(rng: Generator, tmp_path: Path, cell: Any, options: dict[str, Any]) -> None:
    layer = cell(I, H, 2, bidirectional=True, **options, seed=1)
    path = tmp_path / "layer.onnx"
    to_onnx(layer, path)
    inputs = random_inputs(rng, layer, T, B)
    for name, got, expected in zip(
        NAMES, run_model(path, inputs), run_layer(layer, inputs), strict=False
    ):
        check(got, expected, TOLERANCE, name)
    again = from_onnx(path)
    check_bits(again.state_dict(), layer.state_dict())
    for got, expected in zip(run_layer(again, inputs), run_layer(layer, inputs), strict=True):
        assert same_bits(got, expected)


@every_cell
def test_float64(rng: Generator, tmp_path: Path, cell: Any) -> None:
    """ONNX Runtime has no such nodes; ONNX's own definition in NumPy has."""
    layer = cell(I, H, 2, bidirectional=True, dtype="float64", seed=1)
    path = tmp_path / "layer.onnx"
    to_onnx(layer, path)
    onnx.checker.check_model(os.fspath(path), full_check=True)
    inputs = random_inputs(rng, layer, T, B)
    from onnx.reference import ReferenceEvaluator

    outputs = ReferenceEvaluator(os.fspath(path)).run(None, inputs)
    for name, got, expected in zip(NAMES, outputs, run_layer(layer, inputs), strict=False):
        check(got, expected, 1e-14, name)
    again = from_onnx(path)
    assert repr(again) == repr(layer)
    check_bits(again.state_dict(), layer.state_dict())
    single = from_onnx(path, dtype="float32")
    expected_bits = {name: a.astype(np.float32) for name, a in layer.state_dict().items()}
    check_bits(single.state_dict(), expected_bits)


def test_rounded_attributes(tmp_path: Path) -> None:
    """Attributes are float32: who loses bits is told once, who loses none is not."""
    path = tmp_path / "layer.onnx"
    precise: dict[str, Any] = {
        "activations": (("hard_sigmoid", 1 / 6, 0.5), "tanh", ("elu", 0.1)),
        "preact_clip": 1 + 1e-12,
    }
    layer = fastlstm.LSTM(I, H, 2, bidirectional=True, **precise, dtype="float64", seed=1)
    with pytest.warns(UserWarning, match="attributes of ONNX are float32") as found:
        to_onnx(layer, path)
    assert [str(warning.message).split(",")[0] for warning in found] == [
        f"activation_alpha: {1 / 6!r} is written as 0.16666667",
        f"clip: {1 + 1e-12!r} is written as 1.0",
    ]
    assert found[0].filename == __file__
    again = from_onnx(path)
    assert again.activations == (("hard_sigmoid", 0.16666667, 0.5), "tanh", ("elu", 0.1))
    to_onnx(fastlstm.LSTM(I, H, **precise, seed=1), path)  # float32 computes with what is written
    exact: dict[str, Any] = {"activations": (HARD, "tanh", ("elu", 0.1)), "preact_clip": 0.3}
    exactly = fastlstm.LSTM(I, H, **exact, dtype="float64", seed=1)
    to_onnx(exactly, path)
    assert repr(from_onnx(path)) == repr(exactly)


def test_training_options_are_left_out(tmp_path: Path) -> None:
    to_onnx(fastlstm.LSTM(I, H, 2, dropout=0.5), tmp_path / "layer.onnx")
    assert from_onnx(tmp_path / "layer.onnx").dropout == 0


def test_what_a_file_says(tmp_path: Path) -> None:
    """Names and shapes, any number of steps and rows, who wrote it."""
    path = tmp_path / "layer.onnx"
    to_onnx(fastlstm.LSTM(I, H, 2, bidirectional=True, batch_first=True), path)
    file = onnx.load(path)
    assert (file.producer_name, file.producer_version) == ("fastlstm", fastlstm.__version__)
    assert file.ir_version <= 10
    assert [(opset.domain, opset.version) for opset in file.opset_import] == [("", 14)]
    shapes = {
        value.name: tuple(a.dim_param or a.dim_value for a in value.type.tensor_type.shape.dim)
        for value in [*file.graph.input, *file.graph.output]
    }
    states = (4, "B", H)
    assert shapes == {"x": ("B", "T", I), "y": ("B", "T", 2 * H)} | dict.fromkeys(
        ["h_0", "c_0", "h_n", "c_n"], states
    )


UNWRITABLE: list[tuple[dict[str, Any], str]] = [
    ({"proj_size": 2}, "proj_size: ONNX cannot express 2, only 0"),
    ({"layer_norm": True}, "layer_norm: ONNX cannot express True, only False"),
    ({"cell_clip": 1.5}, "cell_clip: ONNX cannot express 1.5, only None"),
    ({"zoneout": (0.1, 0.0)}, "zoneout: ONNX cannot express (0.1, 0.0), only (0.0, 0.0)"),
]


@pytest.mark.parametrize(("options", "message"), UNWRITABLE)
def test_options_that_cannot_be_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / "layer.onnx"
    path.write_text("before")
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        to_onnx(fastlstm.LSTM(I, H, **options), path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["layer.onnx"]


def test_writing_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"^layer: expected an LSTM, a GRU or an RNN of fast"):
        to_onnx("layer", tmp_path / "layer.onnx")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        to_onnx(fastlstm.LSTM(I, H), tmp_path / "missing" / "layer.onnx")
    from fastlstm.onnx import _write

    monkeypatch.setattr(_write, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"^layer: expected at most 100 bytes of weights"):
        to_onnx(fastlstm.LSTM(I, H), tmp_path / "layer.onnx")
    assert os.listdir(tmp_path) == []


# Written by others


def test_layout(rng: Generator, tmp_path: Path) -> None:
    inputs = random_tensors(rng, "LSTM", "bidirectional", T, B, I, H)
    inputs |= {"X": inputs["X"].swapaxes(0, 1), "initial_h": inputs["initial_h"].swapaxes(0, 1)}
    inputs["initial_c"] = inputs["initial_c"].swapaxes(0, 1)
    asked = {"direction": "bidirectional", "hidden_size": H, "layout": 1}
    file = model("LSTM", {name: inputs[name] for name in inputs}, asked)
    for name in "WRB":
        stored(name, inputs[name])(file)
    path = tmp_path / "layer.onnx"
    path.write_bytes(file.SerializeToString())
    layer = from_onnx(path)
    assert layer.batch_first
    state = tuple(inputs[name].swapaxes(0, 1) for name in ["initial_h", "initial_c"])
    y, (h_n, c_n) = layer(np.ascontiguousarray(inputs["X"]), state)
    expected = run_node("LSTM", inputs, asked)
    assert (y == expected["Y"].reshape(B, T, 2 * H)).all()
    assert (h_n == expected["Y_h"].swapaxes(0, 1)).all()
    assert (c_n == expected["Y_c"].swapaxes(0, 1)).all()


def test_states_of_zeros(tmp_path: Path) -> None:
    """Stored, missing, or made for the number of rows: what a layer begins with by default."""
    layer = fastlstm.LSTM(I, H, seed=1)
    edits: list[list[Edit]] = [
        [wired("LSTM_l0", 5, ""), wired("LSTM_l0", 6, "")],
        [stored("zeros", np.zeros((1, B, H), "f4")), wired("LSTM_l0", 5, "zeros")],
        [
            made_by("Expand", ["zero", "shape"], "zeros"),
            made_by("Shape", ["h_0"], "shape"),
            stored("zero", np.zeros((1, 1, 1), "f4")),
            wired("LSTM_l0", 5, "zeros"),
        ],
        [
            made_by("ConstantOfShape", ["shape"], "zeros"),
            made_by("Shape", ["h_0"], "shape"),
            wired("LSTM_l0", 6, "zeros"),
        ],
        [wired("LSTM_l0", 4, "lengths")],
    ]
    for some in edits:
        again = from_onnx(written(tmp_path / "layer.onnx", layer, *some[:4], lengths_input))
        check_bits(again.state_dict(), layer.state_dict())


def test_weights_by_operators(tmp_path: Path) -> None:
    """From constant nodes, turned, cut and joined."""
    layer = fastlstm.LSTM(I, H, seed=1)

    def constant_node(file: Any) -> None:
        file.graph.node.insert(
            0, onnx.helper.make_node("Constant", [], ["W"], value=tensor_of(file, "W_l0"))
        )
        tensor = onnx.numpy_helper.to_array(tensor_of(file, "R_l0"))
        stored("R_turned", tensor.transpose(2, 1, 0))(file)
        file.graph.node.insert(1, onnx.helper.make_node("Transpose", ["R_turned"], ["R"]))
        file.graph.node.insert(2, onnx.helper.make_node("Split", ["B_l0"], ["b", "c"], axis=1))
        file.graph.node.insert(3, onnx.helper.make_node("Concat", ["b", "c"], ["B"], axis=-1))

    edits = [wired("LSTM_l0", k, name) for k, name in [(1, "W"), (2, "R"), (3, "B")]]
    again = from_onnx(written(tmp_path / "layer.onnx", layer, constant_node, *edits))
    check_bits(again.state_dict(), layer.state_dict())


def test_names(tmp_path: Path) -> None:
    """Two stacks in a file, and one that begins in the middle of another."""
    layers = [fastlstm.LSTM(I, H, 3, seed=1), fastlstm.LSTM(I, H, seed=2)]
    files = [onnx.load(written(tmp_path / "layer.onnx", layer)) for layer in layers]
    both = onnx.compose.merge_models(*files, io_map=[], prefix1="a_", prefix2="b_")
    path = tmp_path / "both.onnx"
    path.write_bytes(both.SerializeToString())
    check_bits(from_onnx(path, "a_LSTM_l0").state_dict(), layers[0].state_dict())
    check_bits(from_onnx(path, "b_LSTM_l0").state_dict(), layers[1].state_dict())
    upper = from_onnx(path, "a_LSTM_l1")
    assert repr(upper) == f"LSTM({H}, {H}, num_layers=2)"
    assert same_bits(upper.parameters["bias_hh_l1"], layers[0].parameters["bias_hh_l2"])
    message = r"name: expected that of one node of LSTM, GRU or RNN, got .*; those that follow on "
    message += r"no other of their kind are 'a_LSTM_l0' \(LSTM\), 'b_LSTM_l0' \(LSTM\)"
    for name in (None, "LSTM_l0"):
        with pytest.raises(ValueError, match=message):
            from_onnx(path, name)
    with pytest.raises(TypeError, match=r"^name: expected the name of a node"):
        from_onnx(path, 0)  # type: ignore[arg-type]


def test_one_cell_only(tmp_path: Path) -> None:
    layers = {"lstm": fastlstm.LSTM(I, H, 2, seed=1), "rnn": fastlstm.RNN(I, H, seed=2)}
    files = [onnx.load(written(tmp_path / "layer.onnx", layer)) for layer in layers.values()]
    both = onnx.compose.merge_models(*files, io_map=[], prefix1="a_", prefix2="b_")
    path = tmp_path / "both.onnx"
    path.write_bytes(both.SerializeToString())
    for cell, layer in layers.items():
        check_bits(from_onnx(path, cell=cell).state_dict(), layer.state_dict())
    assert from_onnx(path, "b_RNN_l0", dtype="float64", cell="rnn").dtype == np.float64
    with pytest.raises(ValueError, match=r"name: expected that of one node of LSTM, got 'b_RNN"):
        from_onnx(path, "b_RNN_l0", cell="lstm")
    with pytest.raises(ValueError, match=r"expected a node of GRU, found none$"):
        from_onnx(path, cell="gru")
    wrong: Any
    for wrong in ("LSTM", fastlstm.LSTM, ["lstm"]):
        message = f"cell: expected 'lstm', 'gru' or 'rnn', got {wrong!r}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            from_onnx(tmp_path / "missing.onnx", cell=wrong)


def test_half_precision(tmp_path: Path) -> None:
    layer = fastlstm.GRU(I, H, seed=1)

    def halve(file: Any) -> None:
        for tensor in list(file.graph.initializer):
            if tensor.data_type == 1:
                stored(tensor.name, onnx.numpy_helper.to_array(tensor).astype("f2"))(file)

    path = written(tmp_path / "layer.onnx", layer, halve)
    with pytest.raises(ValueError, match="weights are float16: give dtype='float32' or 'float64'"):
        from_onnx(path)
    halved = {name: array.astype("f2").astype("f4") for name, array in layer.state_dict().items()}
    check_bits(from_onnx(path, dtype="float32").state_dict(), halved)


# Around


def test_without_onnx() -> None:
    code = "import sys; sys.modules['onnx'] = None\n"
    code += "try: import fastlstm.onnx\nexcept ImportError as error: print(error)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "fastlstm.onnx needs onnx: pip install 'fastlstm[onnx]'\n"


def test_example(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "kept.onnx"
    text = script("examples/onnx_round_trip.py", "--updates", "50", "--keep", str(path))
    lines = text.splitlines()
    assert all(float(line.split()[-1]) < 1e-5 for line in lines[2:4])
    assert lines[4] == "read again: GRU(1, 32, num_layers=2), the same weights"
    assert repr(from_onnx(path)) == "GRU(1, 32, num_layers=2)"


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_example_without_a_package(missing: str) -> None:
    """It says what to install, before it trains."""
    code = (
        f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['--updates', '0']\n"
    )
    example = CHECKOUT / "examples/onnx_round_trip.py"
    code += f"runpy.run_path({str(example)!r}, run_name='__main__')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert len(run.stderr.splitlines()) == 2
    assert run.stderr.endswith("This example needs two packages: pip install onnx onnxruntime\n")
