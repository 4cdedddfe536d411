"""What a value at run time depends on: the caller, or only constants of the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from fastlstm.onnx._model import Graph, array_of, attributes_of

Origin = Literal["caller", "shape", "zeros", "constant"]
Of = Callable[[str], set[Origin]]

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

    def around(value: str) -> set[Origin]:
        return {"constant"} if graph.outer is None else origins(graph.outer, value)

    return _followed(graph, [name], around)(name)


def _followed(graph: Graph, names: Sequence[str], around: Of) -> Of:
    """Origins of these values of a graph; `around` has those of the graphs it is inside of."""
    found: dict[str, set[Origin]] = {value: {"caller"} for value in graph.inputs}

    def of(name: str) -> set[Origin]:
        if name not in found:
            if name in graph.stored:
                found[name] = _stored(graph.stored[name])
            else:  # behind itself, in a damaged file, if it is of this graph
                found[name] = {"constant"} if name in graph else around(name)
        return found[name]

    for k in graph.needed_for(names):
        node, made = graph.nodes[k], dict[str, set[Origin]]()
        if node.op_type == "If":
            for branch in graph.bodies.get(k, ()):
                inside = _followed(branch, branch.outputs, of)
                for output, name in zip(node.output, branch.outputs, strict=False):
                    made[output] = made.get(output, set()) | inside(name)
        else:
            made = dict.fromkeys(node.output, _made(node, graph.reads[k], of))
        found.update(made)
    return of


def _made(node: Any, reads: Sequence[str], of: Of) -> set[Origin]:
    if node.op_type in _SHAPES:
        return {"shape"}
    if node.op_type in ("Constant", "ConstantOfShape"):
        attributes = attributes_of(node)
        return {"zeros"} if not attributes else _stored(attributes.get("value"))
    inputs = node.input[:1] if node.op_type in _COPIES else [value for value in reads if value]
    union = set[Origin]().union(*map(of, inputs))
    if node.op_type in _COPIES | _JOINS:
        return union
    return {"caller"} if "caller" in union else {"shape"} if union == {"shape"} else {"constant"}


def _stored(tensor: Any) -> set[Origin]:
    array = array_of(tensor)
    with np.errstate(invalid="ignore"):  # NaN is no zero
        return {"constant" if array is None or array.any() else "zeros"}
