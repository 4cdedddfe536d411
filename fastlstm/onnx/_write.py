"""From a layer to a file: a chain of nodes, one for each layer."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastlstm._config import __version__
from fastlstm._io.atomic import replacing
from fastlstm.onnx import _mapping
from fastlstm.onnx._mapping import (
    DYNAMIC,
    DYNAMIC_DOMAIN,
    DYNAMIC_INPUTS,
    INPUTS,
    MATRICES,
    AnyLayer,
)

Array = NDArray[Any]

OPSET, IR_VERSION = 14, 8  # the oldest in which these nodes are what they are today
MOST_BYTES = 2**31 - 2**20  # of weights: a message of protobuf ends at 2 GiB
TURN, TIME_ROWS_DIRECTIONS = [1, 0, 2], [0, 2, 1, 3]


class Builder:
    """Nodes and constants of a graph that grows from its inputs to its outputs."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, inputs: list[str], outputs: list[str], name: str, **attrs: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attrs))

    def constant(self, name: str, array: Array) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def dequantized(self, name: str, integers: Array, scales: Array) -> str:
        """W or R (D, rows, K) from int8: the operator has scales along one axis."""
        rows, shape = integers.reshape(scales.size, -1), np.array(integers.shape)
        inputs = [
            self.constant(f"{name}_int8", rows),
            self.constant(f"{name}_scale", scales.reshape(-1)),
        ]
        self.add("DequantizeLinear", inputs, [f"{name}_rows"], f"{name}_rows", axis=0)
        inputs = [f"{name}_rows", self.constant(f"{name}_shape", shape)]
        self.add("Reshape", inputs, [name], name)
        return name


def write(layer: Any, path: str | os.PathLike[str], dynamic_quantize: bool) -> None:
    """See `fastlstm.onnx.to_onnx`."""
    op = _mapping.op_of(type(layer))
    few_bits = layer.weights_dtype == "int8"
    if dynamic_quantize and (op, few_bits) != ("LSTM", True):
        got = f"{op} of {layer.weights_dtype}"
        raise ValueError(f"dynamic_quantize: expected an LSTM with weights of int8, got {got}")
    weights = layer.parameters
    nbytes = weights.nbytes if few_bits else weights.size * layer.dtype.itemsize
    if nbytes > MOST_BYTES:
        raise ValueError(
            f"layer: expected at most {MOST_BYTES} bytes of weights, as many as a file can hold, "
            f"got {nbytes}"
        )
    with weights.lock:  # weights of one moment
        model = _model(layer, DYNAMIC if dynamic_quantize else op)
    for name, value, written in _mapping.rounded(layer):
        text = f"{name}: {value!r} is written as {written!r}, attributes of ONNX are float32"
        warnings.warn(text, UserWarning, stacklevel=3)  # of the caller of to_onnx
    data = model.SerializeToString()
    with replacing(path) as file:
        file.write(data)


def _model(layer: AnyLayer, op: str) -> Any:
    builder = Builder()
    _chain(builder, layer, op)
    states = _states(op)
    lead = ["B", "T"] if layer.batch_first else ["T", "B"]
    directions = 2 if layer.bidirectional else 1
    inputs = {"x": [*lead, layer.input_size]}
    outputs = {"y": [*lead, directions * layer.hidden_size]}
    for state in states:
        shape = [layer.num_layers * directions, "B", layer.hidden_size]
        inputs[f"{state}_0"] = outputs[f"{state}_n"] = shape
    element = TensorProto.DOUBLE if layer.dtype == np.float64 else TensorProto.FLOAT

    def declared(shapes: dict[str, list[Any]]) -> list[Any]:
        return [helper.make_tensor_value_info(n, element, shape) for n, shape in shapes.items()]

    graph = helper.make_graph(
        builder.nodes, f"fastlstm_{op}", declared(inputs), declared(outputs), builder.constants
    )
    own = [helper.make_opsetid(DYNAMIC_DOMAIN, 1)] if op == DYNAMIC else []
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), *own],
        ir_version=IR_VERSION,
        producer_name="fastlstm",
        producer_version=__version__,
    )


def _chain(builder: Builder, layer: AnyLayer, op: str) -> None:
    """x, h_0 (and c_0) to y, h_n (and c_n)."""
    layers, states = range(layer.num_layers), _states(op)
    before = {s: _split(builder, f"{s}_0", layer.num_layers) for s in states}
    after = {s: [f"{s}_n_l{k}" for k in layers] if len(layers) > 1 else [f"{s}_n"] for s in states}
    x = "x"
    if layer.batch_first:
        builder.add("Transpose", [x], ["x_time_first"], "x_time_first", perm=TURN)
        x = "x_time_first"
    if layer.bidirectional:
        builder.constant("joined", np.array([0, 0, 2 * layer.hidden_size]))  # 0: as it is
    else:
        builder.constant("directions_axis", np.array([1]))
    for k in layers:
        attributes, tensors = _mapping.write_node(layer, k)
        inputs = _constants(builder, tensors, f"_l{k}", op)
        inputs |= {"X": x} | {f"initial_{s}": before[s][k] for s in states}
        names = [inputs.get(name, "") for name in (DYNAMIC_INPUTS if op == DYNAMIC else INPUTS[op])]
        while not names[-1]:
            names.pop()
        outputs = [f"Y_l{k}", *(after[s][k] for s in states)]
        domain = DYNAMIC_DOMAIN if op == DYNAMIC else ""
        builder.add(op, names, outputs, f"{op}_l{k}", domain=domain, **attributes)
        x = "y" if k == layers[-1] and not layer.batch_first else f"y_l{k}"
        _join_directions(builder, layer, f"Y_l{k}", x)
    if layer.batch_first:
        builder.add("Transpose", [x], ["y"], "y_rows_first", perm=TURN)
    for s in states:
        if len(layers) > 1:
            builder.add("Concat", after[s], [f"{s}_n"], f"{s}_n", axis=0)


def _constants(builder: Builder, tensors: dict[str, Array], end: str, op: str) -> dict[str, str]:
    """What a node reads of its weights, by the names of its inputs."""
    if op == DYNAMIC:
        for name in MATRICES:
            tensors[name] = tensors[name].swapaxes(1, 2)
            tensors[f"{name}_zero_point"] = np.zeros_like(tensors[f"{name}_scale"], np.int8)
        return {name: builder.constant(name + end, array) for name, array in tensors.items()}
    scales = {name: tensors.pop(f"{name}_scale", None) for name in MATRICES}
    found = {}
    for name, array in tensors.items():
        scale = scales.get(name)
        if scale is None:
            found[name] = builder.constant(name + end, array)
        else:
            found[name] = builder.dequantized(name + end, array, scale)
    return found


def _states(op: str) -> tuple[str, ...]:
    return ("h", "c") if op in ("LSTM", DYNAMIC) else ("h",)


def _split(builder: Builder, state: str, count: int) -> list[str]:
    """One state for each layer."""
    if count == 1:
        return [state]
    parts = [f"{state}_l{k}" for k in range(count)]
    builder.add("Split", [state], parts, f"{state}_split", axis=0)
    return parts


def _join_directions(builder: Builder, layer: AnyLayer, source: str, target: str) -> None:
    """(T, D, B, H) to (T, B, D*H)."""
    if not layer.bidirectional:
        builder.add("Squeeze", [source, "directions_axis"], [target], f"{source}_squeezed")
        return
    turned = f"{source}_turned"
    builder.add("Transpose", [source], [turned], turned, perm=TIME_ROWS_DIRECTIONS)
    builder.add("Reshape", [turned, "joined"], [target], f"{source}_joined")
