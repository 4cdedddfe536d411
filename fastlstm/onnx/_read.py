"""From a file to a layer: the nodes that are asked for, and what they ask for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastlstm import _validation
from fastlstm._layers.cells import check_cell
from fastlstm._layers.weights import checked_weights
from fastlstm.onnx import _mapping
from fastlstm.onnx._constants import origins
from fastlstm.onnx._mapping import MATRICES, OPERATORS, AnyLayer
from fastlstm.onnx._model import Graph, label_of, load
from fastlstm.onnx._nodes import Recurrent, is_recurrent, recurrent_nodes
from fastlstm.onnx._quantized import Quantized
from fastlstm.onnx._values import SOME_SIZE

Array = NDArray[Any]

# Bytes of a layer: some, and more for each byte of constants in its file.  float16 that becomes
# float64 takes 4; layers may share weights; but a file must not fill the memory by operators that
# repeat one element.
ROOM, ROOM_PER_BYTE = 2**26, 8


class _Unfit(Exception):
    """Weights that a layer of int8 cannot have; it says why."""


def read(
    path: str | os.PathLike[str], name: str | None, dtype: DTypeLike | None, cell: str | None
) -> AnyLayer:
    """See `fastlstm.onnx.from_onnx`."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name: expected the name of a node, got {type(name).__name__}")
    wanted = None if dtype is None else _validation.real_dtype(dtype, "dtype")
    if cell is not None:
        check_cell(cell)
    op = None if cell is None else cell.upper()
    graph = load(path)
    try:
        stack = _chosen(graph, name, op)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for node in stack:
        try:
            _check(node)
        except ValueError as error:
            raise ValueError(f"{path}: node {node.path!r}: {error}") from None
    try:
        dtype = _dtype(stack, wanted)
        _check_size(stack, dtype, graph.nbytes)
        if wanted is None and any(_has_few_bits(node) for node in stack):
            try:
                return _layer(stack, dtype, "int8")
            except _Unfit as reason:
                text = (
                    f"{path}: {reason}: all weights are read as float32; dtype='float32' asks for"
                )
                warnings.warn(f"{text} that without this warning", UserWarning, stacklevel=3)
        return _layer(stack, dtype)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _chosen(graph: Graph, name: str | None, op: str | None) -> list[Recurrent]:
    """The stack that begins with the node of this name, or the only one of the main graph."""
    wanted = f"node of {op or 'LSTM, GRU or RNN'}"
    nodes = [node for node in recurrent_nodes(graph) if op in (None, node.op)]
    if not nodes:
        raise ValueError(f"expected a {wanted}, found none{_relatives(graph)}")
    firsts = [node for node in nodes if not node.is_above]
    names = ", ".join(f"{node.path!r} ({node.op})" for node in firsts)
    if name is None:
        found = [node for node in firsts if node.graph is graph]
    else:
        paths = [node for node in nodes if node.path == name]
        found = paths or [node for node in nodes if node.name == name]
    if name is None and not found:
        raise ValueError(
            f"name: expected that of a {wanted} within another node, "
            f"as the main graph has none; there are {names}"
        )
    if len(found) != 1:
        raise ValueError(
            f"name: expected that of one {wanted}, got {name!r}; those that follow on no other "
            f"of their kind are {names}{_relatives(graph)}"
        )
    stack: list[Recurrent] = []
    node: Recurrent | None = found[0]
    while node is not None:
        stack.append(node)
        node = node.above
    return stack


def _relatives(graph: Graph) -> str:
    """Nodes of other operators that are called LSTM, GRU or RNN too, for a message."""
    names = [
        f"{scope.path + label_of(node)!r} ({node.domain}.{node.op_type})"
        for scope, node in graph.all_nodes()
        if str(node.op_type).endswith(tuple(OPERATORS)) and not is_recurrent(node)
    ]
    return f"; not read: {', '.join(names)}" if names else ""


def _check(node: Recurrent) -> None:
    """Refuse what a layer would not do."""
    if node.error is not None:
        raise node.error
    assert node.form is not None
    if node.form.direction == "reverse":
        raise ValueError("direction: fastlstm has no layer of the reverse direction alone")
    for name, shape in node.states.items():
        if len(shape) != 3 or node.form.hidden_size != shape[2] < SOME_SIZE:
            expected = f"(..., {node.form.hidden_size})"
            raise ValueError(f"{name}: expected 3 axes, {expected}, got {shape}")
    for name in ("initial_h", "initial_c", "sequence_lens"):
        if name in node.inputs:
            kinds = origins(node.graph, node.inputs[name])
            if "constant" in kinds or (name == "sequence_lens" and "zeros" in kinds):
                raise ValueError(
                    f"{name}: expected an input of the graph, or a state of zeros: "
                    "a layer takes them when it is called; got constants"
                )


def _dtype(stack: Sequence[Recurrent], wanted: np.dtype[Any] | None) -> np.dtype[Any]:
    """Of the layer."""
    if wanted is not None:
        return wanted
    dtypes = sorted({array.dtype.name for node in stack for array in node.tensors.values()})
    if dtypes not in (["float32"], ["float64"]):
        names = ", ".join(dtypes)
        raise ValueError(f"weights are {names}: give dtype='float32' or 'float64' to convert them")
    return np.dtype(dtypes[0])


def _check_size(stack: Sequence[Recurrent], dtype: np.dtype[Any], stored: int) -> None:
    """Refuse a layer that is much larger than the constants of its file."""
    count = sum(array.size for node in stack for array in node.tensors.values())
    most = ROOM + ROOM_PER_BYTE * stored
    if count * dtype.itemsize > most:
        raise ValueError(
            f"weights: expected at most {most} bytes, as the file has {stored} bytes of constants, "
            f"got {count * dtype.itemsize}, which operators make of fewer"
        )


def _layer(stack: Sequence[Recurrent], dtype: np.dtype[Any], weights_dtype: str = "") -> AnyLayer:
    first = stack[0]
    assert first.form is not None
    mapping = {}
    for index, node in enumerate(stack):
        assert node.form is not None
        tensors = (
            _in_bytes(node)
            if weights_dtype
            else {name: _values(tensor) for name, tensor in node.tensors.items()}
        )
        mapping.update(_mapping.parameters(node.form, tensors, index))
    layer = OPERATORS[first.op](
        **first.form.constructor_arguments(),
        num_layers=len(stack),
        batch_first=first.form.batch_first or first.turned,
        dtype=dtype,
    )
    if weights_dtype:
        return layer._with_weights(checked_weights(layer, mapping, weights_dtype))
    layer.load_state_dict({name: array.astype(layer.dtype) for name, array in mapping.items()})
    return layer


def _has_few_bits(node: Recurrent) -> bool:
    return any(isinstance(node.tensors[name], Quantized) for name in MATRICES)


def _values(tensor: Array | Quantized) -> Array:
    return tensor.values() if isinstance(tensor, Quantized) else tensor


def _in_bytes(node: Recurrent) -> dict[str, Array]:
    """The tensors of a node, with W and R of int8 and the scales of their rows."""
    found = {}
    for name, tensor in node.tensors.items():
        if name not in MATRICES:
            found[name] = _values(tensor)
            continue
        try:
            if not isinstance(tensor, Quantized):
                raise ValueError(f"it is of {tensor.dtype}")
            found[name], found[f"{name}_scale"] = tensor.rows()
        except ValueError as reason:
            raise _Unfit(f"node {node.path!r}: {name} is no int8 of a layer, {reason}") from None
    return found
