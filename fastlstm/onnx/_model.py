"""A graph of ONNX: reading the file, who makes which value, what is constant."""

from __future__ import annotations

import math
import os
from collections.abc import Container
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

OLDEST_OPSET = 7  # before it, recurrent nodes were others

# Bytes of a value as a tensor stores it, and the field it is in if not in raw_data.
_STORED: dict[int, tuple[int, str]] = {
    TensorProto.FLOAT: (4, "float_data"),
    TensorProto.DOUBLE: (8, "double_data"),
    TensorProto.FLOAT16: (2, "int32_data"),
    TensorProto.BFLOAT16: (2, "int32_data"),
    TensorProto.INT64: (8, "int64_data"),
    TensorProto.INT32: (4, "int32_data"),
    TensorProto.BOOL: (1, "int32_data"),
}


class Graph:
    """The main graph of a file.

    Attributes
    ----------
    nodes : list of NodeProto
        In the order of the file; an operator reads only what those before it have made.
    maker : dict of str to int
        The node that makes a value.
    stored : dict of str to TensorProto
        Initializers.
    inputs : set of str
        What the caller passes in.
    declared : dict of str to list
        Shapes of values, if they are declared: an int, a name or None for each axis.
    nbytes : int
        Of all constants, as they are stored.
    """

    def __init__(self, model: Any) -> None:
        self.nodes = list(model.graph.node)
        self.maker = {name: k for k, node in enumerate(self.nodes) for name in node.output if name}
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name for value in model.graph.input} - set(self.stored)
        self.declared = {
            value.name: _declared_shape(value)
            for value in [*model.graph.input, *model.graph.value_info]
            if value.type.tensor_type.HasField("shape")
        }
        constants = [node for node in self.nodes if node.op_type == "Constant"]
        self.nbytes = sum(item.ByteSize() for item in [*self.stored.values(), *constants])

    def made_by(self, name: str) -> Any:
        """The node that makes a value, or None."""
        return self.nodes[self.maker[name]] if name in self.maker else None

    def needed_for(self, name: str, known: Container[str] = ()) -> list[Any]:
        """The nodes behind a value and not behind known ones, in the order of the file."""
        found: set[int] = set()
        waiting = [name]
        while waiting:
            value = waiting.pop()
            k = self.maker.get(value)
            if k is not None and k not in found and value not in known:
                found.add(k)
                waiting += self.nodes[k].input
        return [self.nodes[k] for k in sorted(found)]


def load(path: str | os.PathLike[str]) -> Graph:
    """Read a file, and tensors that are stored beside it.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is not a model of ONNX, or not all of one.
    """
    with open(path, "rb"):
        pass  # onnx has less to say about a file that cannot be opened
    try:
        model = onnx.load(os.fspath(path), format="protobuf")
    except Exception as error:  # of protobuf, of onnx, or of a file of tensors that is missing
        raise ValueError(f"{path}: not a model of ONNX, or not all of one ({error})") from None
    opsets = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    if not model.graph.node or not opsets:
        raise ValueError(f"{path}: not a model of ONNX, or not all of one (no nodes or no opset)")
    if min(opsets) < OLDEST_OPSET:
        raise ValueError(f"{path}: expected opset {OLDEST_OPSET} or later, got {min(opsets)}")
    return Graph(model)


def attributes_of(node: Any) -> dict[str, Any]:
    """Attributes by name, with text as str."""
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, list | tuple):
            value = [_text(item) for item in value]
        found[attribute.name] = _text(value)
    return found


def array_of(tensor: Any) -> Array | None:
    """The values of a tensor; None if it is of a type that is not read here.

    Raises
    ------
    ValueError
        If it has not as many as it claims.
    """
    if not isinstance(tensor, TensorProto) or tensor.data_type not in _STORED:
        return None
    nbytes, field = _STORED[tensor.data_type]
    shape = tuple(tensor.dims)
    raw = tensor.HasField("raw_data")
    there = len(tensor.raw_data) / nbytes if raw else len(getattr(tensor, field))
    if min(shape, default=0) < 0 or math.prod(shape) != there or not np.isfinite(there):
        raise ValueError(f"tensor {tensor.name!r}: claims the shape {shape}, has {there:g} values")
    return np.asarray(numpy_helper.to_array(tensor))


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _declared_shape(value: Any) -> list[int | str | None]:
    shape = value.type.tensor_type.shape
    return [axis.dim_param or (axis.dim_value or None) for axis in shape.dim]
