"""Graphs of ONNX: reading the file, who makes which value, what is constant."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

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
    TensorProto.INT8: (1, "int32_data"),
    TensorProto.UINT8: (1, "int32_data"),
    TensorProto.BOOL: (1, "int32_data"),
}


class Graph:
    """A graph of a file: the main one, a branch of an If, the body of a Loop or Scan.

    Parameters
    ----------
    graph : GraphProto
    outer : Graph, optional
        The one that it is inside of, whose values it can read.
    path : str
        Where it is, in front of the names of its nodes: "If_0.then_branch/".

    Attributes
    ----------
    nodes : list of NodeProto
        In the order of the file; an operator reads only what those before it have made.
    bodies : dict of int to list of Graph
        Those inside of a node.
    reads : list of list of str
        What each node reads, within its bodies too.
    maker : dict of str to int
        The node that makes a value.
    stored : dict of str to TensorProto
        Initializers.
    inputs : set of str
        What the caller passes in.
    outputs : list of str
    declared : dict of str to list
        Shapes of values, if they are declared: an int, a name or None for each axis.
    nbytes : int
        Of all constants, as they are stored, within bodies too.

    Raises
    ------
    ValueError
        If a value has two definitions.
    """

    def __init__(self, graph: Any, outer: Graph | None = None, path: str = "") -> None:
        self.outer, self.path = outer, path
        self.nodes = list(graph.node)
        self.maker = {name: k for k, node in enumerate(self.nodes) for name in node.output if name}
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = {value.name for value in graph.input} - set(self.stored)
        self.outputs = [value.name for value in graph.output]
        self.declared = {
            value.name: _declared_shape(value)
            for value in [*graph.input, *graph.value_info]
            if value.type.tensor_type.HasField("shape")
        }
        _check_unique(graph)
        self.bodies = {k: found for k, node in enumerate(self.nodes) if (found := self._in(node))}
        self.reads = [
            [*node.input, *(name for body in self.bodies.get(k, ()) for name in body._free())]
            for k, node in enumerate(self.nodes)
        ]
        constants = [node for node in self.nodes if node.op_type == "Constant"]
        self.nbytes = sum(item.ByteSize() for item in [*self.stored.values(), *constants])
        self.nbytes += sum(body.nbytes for bodies in self.bodies.values() for body in bodies)

    def __contains__(self, name: str) -> bool:
        """Whether a value is of this graph, not of one around it."""
        return name in self.maker or name in self.stored or name in self.inputs

    def scope_of(self, name: str) -> Graph:
        """The graph that a value is of: this one, or one around it; this one if there is none."""
        scope: Graph | None = self
        while scope is not None and name not in scope:
            scope = scope.outer
        return scope or self

    def made_by(self, name: str) -> Any:
        """The node that makes a value, or None."""
        scope = self.scope_of(name)
        return scope.nodes[scope.maker[name]] if name in scope.maker else None

    def needed_for(self, names: Iterable[str], known: Container[str] = ()) -> list[int]:
        """The nodes behind values and not behind known ones, in the order of the file."""
        found: set[int] = set()
        waiting = list(names)
        while waiting:
            value = waiting.pop()
            k = self.maker.get(value)
            if k is not None and k not in found and value not in known:
                found.add(k)
                waiting += self.reads[k]
        return sorted(found)

    def all_nodes(self) -> Iterator[tuple[Graph, Any]]:
        """Nodes and the graphs they are in, within bodies too."""
        for k, node in enumerate(self.nodes):
            for body in self.bodies.get(k, ()):
                yield from body.all_nodes()
            yield self, node

    def _in(self, node: Any) -> list[Graph]:
        """The graphs inside of a node."""
        return [
            Graph(attribute.g, self, f"{self.path}{label_of(node)}.{attribute.name}/")
            for attribute in node.attribute
            if attribute.type == AttributeProto.GRAPH
        ]

    def _free(self) -> set[str]:
        """What it reads of the graphs around it."""
        read = {name for names in [*self.reads, self.outputs] for name in names}
        return {name for name in read if name not in self}


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
    try:
        return Graph(model.graph)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def label_of(node: Any) -> str:
    """A node's name or, if it has none, that of its first output."""
    return str(node.name or next((output for output in node.output if output), node.op_type))


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


def _check_unique(graph: Any) -> None:
    """Refuse a graph in which a name is that of two values: which one is meant?"""
    names = [tensor.name for tensor in graph.initializer]
    names += [name for node in graph.node for name in node.output if name]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"expected one definition of each value, got two of {twice!r}")


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _declared_shape(value: Any) -> list[int | str | None]:
    shape = value.type.tensor_type.shape
    return [axis.dim_param or (axis.dim_value or None) for axis in shape.dim]
