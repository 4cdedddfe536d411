"""Recurrent nodes in the branches of If, and in the bodies of Loop and Scan."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import check_bits
from support.onnx_models import check, random_inputs, run_layer, run_model

import fastlstm

pytestmark = pytest.mark.peer
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fastlstm.onnx import from_onnx, to_onnx  # noqa: E402

T, B, I, H = 7, 5, 4, 3  # all different, so that a mix-up shows
TOLERANCE = 2e-6
STATES = ["h_0", "c_0"]
THEN, ELSE = "If_0.then_branch/", "If_0.else_branch/"


def floats(*names: str) -> list[Any]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]


def flag(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.BOOL, [])


def body_of(layer: Any, path: Path, inputs: list[Any] | None = None) -> Any:
    """What `to_onnx` writes, as a graph inside of a node: it reads its inputs from around it."""
    to_onnx(layer, path)
    written = onnx.load(path).graph
    return helper.make_graph(written.node, "body", inputs or [], floats("y"), written.initializer)


def conditional(then: Any, otherwise: Any, name: str = "If_0", cond: str = "cond") -> Any:
    return helper.make_node(
        "If", [cond], ["out"], name=name, then_branch=then, else_branch=otherwise
    )


def save(path: Path, nodes: list[Any], inputs: list[Any], tensors: Any = ()) -> Path:
    graph = helper.make_graph(nodes, "main", inputs, floats("out"), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def layers() -> list[Any]:
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    return [fastlstm.LSTM(I, H, **options, seed=seed) for seed in (1, 2)]


@pytest.fixture
def path(tmp_path: Path, layers: list[Any]) -> Path:
    """A file with two stacks of the same names."""
    bodies = [body_of(layer, tmp_path / "body.onnx") for layer in layers]
    inputs = [flag("cond"), *floats("x", *STATES)]
    return save(tmp_path / "model.onnx", [conditional(*bodies)], inputs)


# Found by name


def test_branches(rng: Generator, path: Path, layers: list[Any]) -> None:
    inputs = random_inputs(rng, layers[0], T, B)
    for layer, place, cond in zip(layers, (THEN, ELSE), (True, False), strict=True):
        again = from_onnx(path, f"{place}LSTM_l0")
        assert repr(again) == repr(layer)
        check_bits(again.state_dict(), layer.state_dict())
        [out] = run_model(path, {**inputs, "cond": np.array(cond)})
        check(out, run_layer(again, inputs)[0], TOLERANCE, place)
    upper = from_onnx(path, f"{ELSE}LSTM_l1")
    assert repr(upper) == f"LSTM({2 * H}, {H}, bidirectional=True)"


def test_names(path: Path) -> None:
    there = f"'{ELSE}LSTM_l0' (LSTM), '{THEN}LSTM_l0' (LSTM)"
    message = "name: expected that of a node of LSTM, GRU or RNN within another node, as the main "
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}graph has none; there are ")):
        from_onnx(path)
    with pytest.raises(ValueError, match=re.escape(there) + "$"):
        from_onnx(path)
    for name in ("LSTM_l0", "LSTM", "If_0", THEN):
        message = f"name: expected that of one node of LSTM, GRU or RNN, got {name!r}; "
        with pytest.raises(ValueError, match=re.escape(message) + ".*" + re.escape(there)):
            from_onnx(path, name)
    with pytest.raises(ValueError, match=r"expected a node of GRU, found none$"):
        from_onnx(path, cell="gru")


def test_names_alone(tmp_path: Path) -> None:
    """Of a node that is the only one of its name; the main graph's comes first."""
    outside, inside = fastlstm.LSTM(I, H, seed=1), fastlstm.LSTM(I, H, seed=2)
    gru = fastlstm.GRU(I, H, seed=3)
    bodies = [body_of(layer, tmp_path / "body.onnx") for layer in (inside, gru)]
    around = body_of(outside, tmp_path / "body.onnx")
    path = save(
        tmp_path / "model.onnx",
        [*around.node, conditional(*bodies)],
        [flag("cond"), *floats("x", *STATES)],
        around.initializer,
    )
    for name, layer in {
        None: outside,
        "LSTM_l0": outside,
        f"{THEN}LSTM_l0": inside,
        "GRU_l0": gru,
    }.items():
        check_bits(from_onnx(path, name).state_dict(), layer.state_dict())
    check_bits(from_onnx(path).state_dict(), outside.state_dict())


def test_nodes_without_names(tmp_path: Path) -> None:
    """They are called after their first outputs."""
    bodies = [body_of(fastlstm.GRU(I, H, seed=s), tmp_path / "body.onnx") for s in (1, 2)]
    for node in (node for body in bodies for node in body.node):
        node.name = ""
    inputs = [flag("cond"), *floats("x", "h_0")]
    path = save(tmp_path / "model.onnx", [conditional(*bodies, name="")], inputs)
    again = from_onnx(path, "out.else_branch/Y_l0")
    check_bits(again.state_dict(), fastlstm.GRU(I, H, seed=2).state_dict())


# Where weights are


def constants(body: Any, outside: list[Any]) -> None:
    """Weights become nodes of the body."""
    made = [
        helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in body.initializer
    ]
    nodes = [*made, *body.node]
    del body.initializer[:], body.node[:]
    body.node.extend(nodes)


def outer(body: Any, outside: list[Any]) -> None:
    """Weights become initializers of the main graph."""
    outside += body.initializer
    del body.initializer[:]


def turned(body: Any, outside: list[Any]) -> None:
    """W comes from the main graph, and a node of the body turns it."""
    [weight] = [tensor for tensor in body.initializer if tensor.name == "W_l0"]
    array = numpy_helper.to_array(weight).transpose(0, 2, 1)
    body.initializer.remove(weight)
    body.node.insert(0, helper.make_node("Transpose", ["W_t"], ["W_l0"], perm=[0, 2, 1]))
    outside.append(numpy_helper.from_array(np.ascontiguousarray(array), "W_t"))


def hidden(body: Any, outside: list[Any]) -> None:
    """The main graph has another value of the same name."""
    outside.append(numpy_helper.from_array(np.ones((1, 12, I), "f4"), "W_l0"))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("edit", [constants, outer, turned, hidden])
def test_weights(
    rng: Generator, tmp_path: Path, edit: Callable[[Any, list[Any]], None], depth: int
) -> None:
    layer, outside = fastlstm.LSTM(I, H, seed=1), list[Any]()
    body = body_of(layer, tmp_path / "body.onnx")
    edit(body, outside)
    for level in range(depth):
        nothing = helper.make_node("Identity", ["x"], ["y"])
        other = helper.make_graph([nothing], "other", [], floats("y"))
        node = conditional(body, other, name=f"If_{level}")
        body = helper.make_graph([node], "body", [], floats("out"))
    inputs = [flag("cond"), *floats("x", *STATES)]
    path = save(tmp_path / "model.onnx", list(body.node), inputs, outside)
    place = "".join(f"If_{level}.then_branch/" for level in reversed(range(depth)))
    for name in ("LSTM_l0", f"{place}LSTM_l0"):
        check_bits(from_onnx(path, name).state_dict(), layer.state_dict())
    x = random_inputs(rng, layer, T, B)
    [out] = run_model(path, {**x, "cond": np.array(True)})
    check(out, run_layer(layer, x)[0], TOLERANCE, "y")


# Loops


def test_loop(tmp_path: Path) -> None:
    """A layer that reads its own output, whose weights are outside of the loop."""
    layer = fastlstm.RNN(H, H, seed=1)
    body = body_of(layer, tmp_path / "body.onnx")
    again = helper.make_node("Identity", ["cond_in"], ["cond_out"])
    carried = [helper.make_tensor_value_info("i", TensorProto.INT64, []), flag("cond_in")]
    inside = helper.make_graph(
        [again, *body.node], "body", [*carried, *floats("x")], [flag("cond_out"), *floats("y")]
    )
    node = helper.make_node("Loop", ["count", "", "x_0"], ["out"], name="Loop_0", body=inside)
    count = numpy_helper.from_array(np.array(3), "count")
    path = save(tmp_path / "model.onnx", [node], floats("x_0", "h_0"), [count, *body.initializer])
    found = from_onnx(path, "Loop_0.body/RNN_l0")
    check_bits(found.state_dict(), layer.state_dict())
    x, h = np.ones((T, B, H), "f4"), np.ones((1, B, H), "f4")
    [out] = run_model(path, {"x_0": x, "h_0": h})
    for _ in range(3):
        x, _ = found(x, h)
    check(out, x, TOLERANCE, "y")


def test_scan(rng: Generator, tmp_path: Path) -> None:
    """Step by step, with the state passed on."""
    layer = fastlstm.GRU(I, H, seed=1)
    body = body_of(layer, tmp_path / "body.onnx")
    axis = numpy_helper.from_array(np.array([0]), "axis")
    one = helper.make_node("Unsqueeze", ["x_t", "axis"], ["x"])
    back = helper.make_node("Squeeze", ["y", "axis"], ["y_t"])
    inside = helper.make_graph(
        [one, *body.node, back],
        "body",
        floats("h_0", "x_t"),
        floats("h_n", "y_t"),
        [axis, *body.initializer],
    )
    node = helper.make_node(
        "Scan", ["h", "xs"], ["h_end", "out"], name="Scan_0", body=inside, num_scan_inputs=1
    )
    inputs = [
        helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, B, H]),
        helper.make_tensor_value_info("xs", TensorProto.FLOAT, [T, B, I]),
    ]
    path = save(tmp_path / "model.onnx", [node], inputs)
    found = from_onnx(path, "Scan_0.body/GRU_l0")
    check_bits(found.state_dict(), layer.state_dict())
    x = random_inputs(rng, layer, T, B)
    [out] = run_model(path, {"h": x["h_0"], "xs": x["x"]})
    check(out, run_layer(found, x)[0], TOLERANCE, "y")


# States


def chosen_state(tensor: Any | None) -> list[Any]:
    """Nodes that make h_0 by an If, of `state` from around it and, perhaps, of a stored one."""
    given = helper.make_graph(
        [helper.make_node("Identity", ["state"], ["s"])], "given", [], floats("s")
    )
    other = given
    if tensor is not None:
        stored = numpy_helper.from_array(tensor, "s")
        other = helper.make_graph([], "stored", [], floats("s"), [stored])
    return [
        helper.make_node("If", ["cond"], ["h_0"], name="If_h", then_branch=given, else_branch=other)
    ]


@pytest.mark.parametrize("within", [False, True])
def test_states_by_branches(tmp_path: Path, within: bool) -> None:
    """As torch exports squeeze, outside of the branch with the layer or in it."""
    layer = fastlstm.GRU(I, H, seed=1)

    def file(tensor: Any) -> Path:
        body = body_of(layer, tmp_path / "body.onnx")
        nodes = chosen_state(tensor)
        if within:
            nodes, inside = [], [*nodes, *body.node]
            del body.node[:]
            body.node.extend(inside)
        inputs = [flag("cond"), *floats("x", "state")]
        return save(tmp_path / "model.onnx", [*nodes, conditional(body, body)], inputs)

    for tensor in (None, np.zeros((1, B, H), "f4")):
        check_bits(from_onnx(file(tensor), f"{THEN}GRU_l0").state_dict(), layer.state_dict())
    path = file(np.ones((1, B, H), "f4"))
    message = f"{path}: node '{THEN}GRU_l0': initial_h: expected an input of the graph, or a state"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        from_onnx(path, f"{THEN}GRU_l0")


def test_many_branches_one_after_the_other(tmp_path: Path) -> None:
    """Each state is chosen from the one before: no more work than there are nodes."""
    layer, count = fastlstm.GRU(I, H, seed=1), 300
    body = body_of(layer, tmp_path / "body.onnx")
    nodes = []
    for k in range(count):
        source, target = f"s{k}", "h_0" if k == count - 1 else f"s{k + 1}"
        branch = helper.make_graph(
            [helper.make_node("Identity", [source], ["s"])], "branch", [], floats("s")
        )
        nodes.append(
            helper.make_node("If", ["cond"], [target], then_branch=branch, else_branch=branch)
        )
    inputs = [flag("cond"), *floats("x", "s0")]
    path = save(tmp_path / "model.onnx", [*nodes, conditional(body, body)], inputs)
    check_bits(from_onnx(path, f"{ELSE}GRU_l0").state_dict(), layer.state_dict())


# Refused


def test_circle_through_a_branch(tmp_path: Path) -> None:
    """A branch that reads what its node makes: no runtime runs it, but reading it ends."""
    layer = fastlstm.GRU(I, H, seed=1)
    body = body_of(layer, tmp_path / "body.onnx")
    for node in body.node:
        node.input[:] = ["out" if name == "h_0" else name for name in node.input]
    path = save(tmp_path / "model.onnx", [conditional(body, body)], [flag("cond"), *floats("x")])
    check_bits(from_onnx(path, f"{THEN}GRU_l0").state_dict(), layer.state_dict())


def test_weights_at_run_time(tmp_path: Path) -> None:
    """Of a loop's body: passed on from round to round."""
    body = body_of(fastlstm.RNN(H, H, seed=1), tmp_path / "body.onnx")
    [weight] = [tensor for tensor in body.initializer if tensor.name == "W_l0"]
    body.initializer.remove(weight)
    body.input.extend(floats("W_l0"))
    node = helper.make_node("Loop", ["", "", "x_0"], ["out"], name="Loop_0", body=body)
    path = save(tmp_path / "model.onnx", [node], floats("x_0", "x", "h_0"))
    with pytest.raises(ValueError, match=r"W: expected constants .* 'W_l0', an input of the graph"):
        from_onnx(path, "RNN_l0")


def test_damaged(rng: Generator, path: Path) -> None:
    """Any byte may be wrong: a layer, or one clear error."""
    whole, accepted = path.read_bytes(), 0
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            from_onnx(path, f"{THEN}LSTM_l0")
            accepted += 1
    assert 0 < accepted < 300
