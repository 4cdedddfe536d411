"""Models of ONNX for tests: one node with random tensors, ONNX Runtime, what the core can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

import fastlstm

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
INPUTS = {
    "LSTM": ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"],
    "GRU": ["X", "W", "R", "B", "sequence_lens", "initial_h"],
    "RNN": ["X", "W", "R", "B", "sequence_lens", "initial_h"],
}
OUTPUTS = {"LSTM": ["Y", "Y_h", "Y_c"], "GRU": ["Y", "Y_h"], "RNN": ["Y", "Y_h"]}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def random_tensors(
    rng: Generator, op: str, direction: str, T: int, B: int, I: int, H: int, **options: bool
) -> Arrays:
    """All inputs but the lengths, and P only if asked for; values are of order one and more."""
    D, G = DIRECTIONS[direction], GATES[op]
    shapes = {"X": (T, B, I), "W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H)}
    shapes |= {"initial_h": (D, B, H)}
    if op == "LSTM":
        shapes |= {"initial_c": (D, B, H)}
    if options.get("peephole"):
        shapes |= {"P": (D, 3 * H)}
    tensors = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    return tensors | {n: 2 * tensors[n] for n in ["initial_c"] if n in tensors}


def model(op: str, inputs: Arrays, attributes: Mapping[str, Any], opset: int = 14) -> Any:
    """One node; all its inputs are inputs of the graph."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    names = [name if name in inputs else "" for name in INPUTS[op]]
    node = helper.make_node(op, names, OUTPUTS[op], **attributes)
    graph = helper.make_graph(
        [node],
        op,
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ],
        [helper.make_tensor_value_info(name, 1, None) for name in OUTPUTS[op]],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run_model(source: Any, inputs: Arrays) -> list[Array]:
    """The outputs of a model, or of a file, by ONNX Runtime."""
    runtime = pytest.importorskip("onnxruntime")
    source = source.SerializeToString() if hasattr(source, "SerializeToString") else str(source)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, inputs)
    return outputs


def run_layer(layer: Any, inputs: Arrays) -> list[Array]:
    """The outputs of a layer, from inputs by the names of a file that it wrote."""
    if isinstance(layer, fastlstm.LSTM):
        y, (h_n, c_n) = layer(inputs["x"], (inputs["h_0"], inputs["c_0"]))
        return [y, h_n, c_n]
    return list(layer(inputs["x"], inputs["h_0"]))


def random_inputs(rng: Generator, layer: Any, T: int, B: int) -> Arrays:
    """Of a file that a layer wrote."""
    lead = (B, T) if layer.batch_first else (T, B)
    states = (layer.num_layers * (1 + layer.bidirectional), B, layer.hidden_size)
    shapes = {"x": (*lead, layer.input_size), "h_0": states}
    if isinstance(layer, fastlstm.LSTM):
        shapes |= {"c_0": states}
    return {name: rng.standard_normal(shape).astype(layer.dtype) for name, shape in shapes.items()}


def check(got: Array, expected: Array, tolerance: float, what: str) -> None:
    """Relative to the largest value or to one, whichever is larger."""
    assert got.shape == expected.shape, what
    assert got.dtype == expected.dtype, what
    scale = max(1.0, float(np.max(np.abs(expected), initial=0)))
    error = float(np.max(np.abs(got - expected), initial=0)) / scale
    assert error <= tolerance, f"{what}: error {error:.2e}, allowed {tolerance:.0e}"
