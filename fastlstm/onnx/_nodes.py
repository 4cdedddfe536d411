"""Finding recurrent nodes, and those that are layers of one stack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.onnx import _mapping
from fastlstm.onnx._axes import Arrangement, Axis, axis
from fastlstm.onnx._mapping import (
    DYNAMIC,
    DYNAMIC_DOMAIN,
    DYNAMIC_INPUTS,
    INPUTS,
    MATRICES,
    OPERATORS,
    WEIGHTS,
    Form,
)
from fastlstm.onnx._model import Graph, attributes_of, label_of
from fastlstm.onnx._quantized import FLOATS, Quantized, of_dynamic_node
from fastlstm.onnx._values import Values

Array = NDArray[Any]


@dataclass
class Recurrent:
    """A recurrent node: what it is called, what it reads, and what it asks for."""

    graph: Graph  # that it is in
    name: str
    op: str
    inputs: dict[str, str]  # by the names of the operator's definition
    tensors: dict[str, Array | Quantized]
    form: Form | None
    error: ValueError | None  # instead of `form`
    turned: bool  # X has just been turned from rows first to time first
    lead: tuple[Axis, ...] = ()  # the first two axes of X
    states: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shapes that are known
    above: Recurrent | None = None  # the next layer of the stack
    is_above: bool = False

    @property
    def path(self) -> str:
        """Its name, and where it is."""
        return self.graph.path + self.name


def is_recurrent(node: Any) -> bool:
    return _is_dynamic(node) or (node.op_type in OPERATORS and node.domain in ("", "ai.onnx"))


def _is_dynamic(node: Any) -> bool:
    return bool((node.op_type, node.domain) == (DYNAMIC, DYNAMIC_DOMAIN))


def recurrent_nodes(graph: Graph, outer: Values | None = None) -> list[Recurrent]:
    """The recurrent nodes of a graph, and of those inside of its nodes."""
    values, found = Values(graph, outer), list[Recurrent]()
    by_output: dict[str, Recurrent] = {}
    for k, node in enumerate(graph.nodes):
        for body in graph.bodies.get(k, ()):
            found += recurrent_nodes(body, values)
        if not is_recurrent(node):
            continue
        recurrent = _recurrent(graph, values, node)
        found.append(recurrent)
        if recurrent.form is None:
            continue
        x = _followed(values, recurrent.inputs.get("X", ""), recurrent.form.input_size)
        below = by_output.get(x.source)
        if below and _stacks(below, recurrent) and x == _output(below, x.source, joined=True):
            below.above, recurrent.is_above = recurrent, True
        recurrent.lead = x.axes[:2]
        recurrent.states = _known_shapes(values, recurrent)
        if node.output and node.output[0]:
            y = node.output[0]
            by_output[y] = recurrent
            values.known[y] = _output(recurrent, y, joined=False)
    return found


def _followed(values: Values, name: str, size: int) -> Arrangement:
    """X of a node, as a beginning if what made it is not followed."""
    x = values[name]
    if not isinstance(x, Arrangement):
        x = values.known[name] = values.beginning(name)
    if x is None or len(x.axes) != 3:
        lead = (values.some_axis(f"{name} 0"), values.some_axis(f"{name} 1"))
        x = values.known[name] = Arrangement(name, (*lead, axis(f"{name} 2", size)))
    return x


def _recurrent(graph: Graph, values: Values, node: Any) -> Recurrent:
    op = "LSTM" if _is_dynamic(node) else node.op_type
    names = DYNAMIC_INPUTS if _is_dynamic(node) else INPUTS[op]
    inputs = {name: value for name, value in zip(names, node.input, strict=False) if value}
    tensors: dict[str, Array | Quantized] = {}
    form = error = None
    try:
        if len(node.input) > len(names):
            raise ValueError(f"{node.op_type} has no input {node.input[-1]!r}")
        for name in WEIGHTS:
            if name in inputs and name in MATRICES and _is_dynamic(node):
                tensors[name] = _matrix(graph, values, name, inputs)
            elif name in inputs:
                value = _constant(graph, values, name, inputs[name], few_bits=True)
                tensors[name] = _real(name, value)
        form = _mapping.read_form(op, attributes_of(node), tensors)
    except (TypeError, ValueError) as reason:
        error = ValueError(str(reason))
    maker = graph.made_by(inputs.get("X", ""))
    turned = maker is not None and maker.op_type == "Transpose"
    turned = turned and attributes_of(maker).get("perm") == [1, 0, 2]
    return Recurrent(graph, label_of(node), op, inputs, tensors, form, error, turned)


def _matrix(graph: Graph, values: Values, name: str, inputs: dict[str, str]) -> Quantized:
    """W or R of a DynamicQuantizeLSTM."""
    parts = list[Any]()
    for part in (name, f"{name}_scale", f"{name}_zero_point"):
        if part not in inputs:
            raise ValueError(f"{part}: missing, a node of {DYNAMIC} needs it")
        parts.append(_constant(graph, values, part, inputs[part], few_bits=False))
    return of_dynamic_node(name, *parts)


def _constant(
    graph: Graph, values: Values, name: str, source: str, *, few_bits: bool
) -> Array | Quantized:
    value = values[source]
    if not isinstance(value, np.ndarray | Quantized if few_bits else np.ndarray):
        maker = graph.made_by(source)
        what = "an input of the graph" if maker is None else f"made by {maker.op_type}"
        what = "of another type" if source in graph.scope_of(source).stored else what
        raise ValueError(f"{name}: expected constants stored in the file, got {source!r}, {what}")
    return value


def _real(name: str, value: Array | Quantized) -> Array | Quantized:
    if value.dtype.name not in FLOATS:
        raise ValueError(f"{name}: expected one of {', '.join(FLOATS)}, got {value.dtype.name}")
    return value


def _known_shapes(values: Values, node: Recurrent) -> dict[str, tuple[int, ...]]:
    """Shapes of initial states, as far as they can be told from the file."""
    found = {}
    for name in ("initial_h", "initial_c"):
        source = node.inputs.get(name, "")
        value = values[source]
        value = values.beginning(source) if value is None else value
        if value is not None:
            found[name] = value.shape
    return found


def _output(node: Recurrent, name: str, *, joined: bool) -> Arrangement:
    """Y of a node; or, joined, what the next layer of a stack reads."""
    assert node.form is not None
    both = axis(f"{name} directions", node.form.directions)
    features = axis(f"{name} features", node.form.hidden_size)
    if joined:
        return Arrangement(name, (*node.lead, both + features))
    if node.form.batch_first:
        return Arrangement(name, (*node.lead, both, features))
    return Arrangement(name, (node.lead[0], both, node.lead[1], features))


def _stacks(below: Recurrent, above: Recurrent) -> bool:
    """Whether two nodes, of which one reads the other, can be layers of one of ours."""
    a, b = below.form, above.form
    if a is None or b is None or below.above is not None or a.direction == "reverse":
        return False
    same = [(f.op, f.hidden_size, f.direction, f.bias, f.batch_first, f.options) for f in (a, b)]
    lengths = [node.inputs.get("sequence_lens") for node in (below, above)]
    return same[0] == same[1] and lengths[0] == lengths[1]
