"""What a value at run time depends on: the caller, or only constants of the file."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from fastlstm.onnx._model import Graph, array_of, attributes_of

Origin = Literal["caller", "shape", "zeros", "constant"]

# Operators that copy elements of their first input; of all inputs; that read only its shape.
_COPIES = {
    "Cast", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_JOINS, _SHAPES = {"Concat"}, {"Shape", "Size"}


def origins(graph: Graph, name: str) -> set[Origin]:
    """Where the elements of a value come from, each that counts for at least one of them.

    A state that an exporter makes of a stored array and the number of rows is "constant" or
    "zeros"; one that is passed in or computed from what is passed in is "caller".
    """
    found: dict[str, set[Origin]] = {value: {"caller"} for value in graph.inputs}
    for node in graph.needed_for(name):
        made = _made(graph, node, found)
        for output in node.output:
            found[output] = made
    return _of(graph, name, found)


def _made(graph: Graph, node: Any, found: dict[str, set[Origin]]) -> set[Origin]:
    if node.op_type in _SHAPES:
        return {"shape"}
    if node.op_type in ("Constant", "ConstantOfShape"):
        attributes = attributes_of(node)
        return {"zeros"} if not attributes else _stored(attributes.get("value"))
    inputs = node.input[:1] if node.op_type in _COPIES else [value for value in node.input if value]
    union = set[Origin]().union(*(_of(graph, value, found) for value in inputs))
    if node.op_type in _COPIES | _JOINS:
        return union
    return {"caller"} if "caller" in union else {"shape"} if union == {"shape"} else {"constant"}


def _of(graph: Graph, name: str, found: dict[str, set[Origin]]) -> set[Origin]:
    if name in graph.stored and name not in found:
        found[name] = _stored(graph.stored[name])
    return found.get(name, {"constant"})


def _stored(tensor: Any) -> set[Origin]:
    array = array_of(tensor)
    with np.errstate(invalid="ignore"):  # NaN is no zero
        return {"constant" if array is None or array.any() else "zeros"}
