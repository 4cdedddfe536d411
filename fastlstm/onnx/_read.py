"""From a file to a layer: finding recurrent nodes, and those that are layers of one stack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastlstm import _arrays
from fastlstm.onnx import _mapping
from fastlstm.onnx._mapping import CELLS, INPUTS, WEIGHTS, AnyLayer, Form
from fastlstm.onnx._model import Graph, attributes_of, load
from fastlstm.onnx._origins import origins
from fastlstm.onnx._plumbing import SOME_SIZE, Arrangement, Axis, Values, axis

Array = NDArray[Any]
FLOATS = ("float32", "float64", "float16", "bfloat16")


@dataclass
class Recurrent:
    """A recurrent node: what it is called, what it reads, and what it asks for."""

    name: str
    op: str
    inputs: dict[str, str]  # by the names of the operator's definition
    tensors: dict[str, Array]
    form: Form | None
    error: ValueError | None  # instead of `form`
    turned: bool  # X has just been turned from rows first to time first
    lead: tuple[Axis, ...] = ()  # the first two axes of X
    states: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shapes that are known
    above: Recurrent | None = None  # the next layer of the stack
    is_above: bool = False


def read(
    path: str | os.PathLike[str], name: str | None, dtype: DTypeLike | None, cell: type[Any] | None
) -> Any:
    """The layer of a file; of `cell`, if it is given.  See `fastlstm.onnx.from_onnx`."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name: expected the name of a node, got {type(name).__name__}")
    wanted = None if dtype is None else _arrays.real_dtype(dtype, "dtype")
    op = None if cell is None else _mapping.op_of(cell)
    graph = load(path)
    try:
        nodes = _recurrent_nodes(graph)
        stack = _chosen([node for node in nodes if op in (None, node.op)], name, op)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for node in stack:
        try:
            _check(graph, node)
        except ValueError as error:
            raise ValueError(f"{path}: node {node.name!r}: {error}") from None
    try:
        return _layer(stack, wanted, cell or CELLS[stack[0].op])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _recurrent_nodes(graph: Graph) -> list[Recurrent]:
    values, found = Values(graph), list[Recurrent]()
    by_output: dict[str, Recurrent] = {}
    for node in graph.nodes:
        if node.op_type not in CELLS or node.domain not in ("", "ai.onnx"):
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
    label = node.name or next((output for output in node.output if output), "")
    inputs = dict(zip(INPUTS[node.op_type], node.input, strict=False))
    inputs = {name: value for name, value in inputs.items() if value}
    tensors: dict[str, Array] = {}
    form = error = None
    try:
        if len(node.input) > len(INPUTS[node.op_type]):
            raise ValueError(f"{node.op_type} has no input {node.input[-1]!r}")
        for name in WEIGHTS:
            if name in inputs:
                tensors[name] = _constant(graph, values, name, inputs[name])
        form = _mapping.read_form(node.op_type, attributes_of(node), tensors)
    except (TypeError, ValueError) as reason:
        error = ValueError(str(reason))
    maker = graph.made_by(inputs.get("X", ""))
    turned = maker is not None and maker.op_type == "Transpose"
    turned = turned and attributes_of(maker).get("perm") == [1, 0, 2]
    return Recurrent(label, node.op_type, inputs, tensors, form, error, turned)


def _constant(graph: Graph, values: Values, name: str, source: str) -> Array:
    value = values[source]
    if not isinstance(value, np.ndarray):
        maker = graph.made_by(source)
        what = "an input of the graph" if maker is None else f"made by {maker.op_type}"
        what = "of another type" if source in graph.stored else what
        raise ValueError(f"{name}: expected constants stored in the file, got {source!r}, {what}")
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


def _chosen(nodes: Sequence[Recurrent], name: str | None, op: str | None) -> list[Recurrent]:
    """The stack that begins with the node of this name, or the only one."""
    wanted = f"node of {op or 'LSTM, GRU or RNN'}"
    if not nodes:
        raise ValueError(f"expected a {wanted}, found none in the main graph")
    firsts = [node for node in nodes if not node.is_above]
    found = [node for node in nodes if node.name == name] if name is not None else firsts
    if len(found) != 1:
        names = ", ".join(f"{node.name!r} ({node.op})" for node in firsts)
        raise ValueError(
            f"name: expected that of one {wanted}, got {name!r}; those that follow on no other "
            f"of their kind are {names}"
        )
    stack: list[Recurrent] = []
    node: Recurrent | None = found[0]
    while node is not None:
        stack.append(node)
        node = node.above
    return stack


def _check(graph: Graph, node: Recurrent) -> None:
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
            kinds = origins(graph, node.inputs[name])
            if "constant" in kinds or (name == "sequence_lens" and "zeros" in kinds):
                raise ValueError(
                    f"{name}: expected an input of the graph, or a state of zeros: "
                    "a layer takes them when it is called; got constants"
                )


def _layer(stack: Sequence[Recurrent], wanted: np.dtype[Any] | None, cell: type[Any]) -> AnyLayer:
    first = stack[0]
    assert first.form is not None
    dtypes = {array.dtype.name for node in stack for array in node.tensors.values()}
    if wanted is None and (len(dtypes) > 1 or not dtypes <= {"float32", "float64"}):
        names = ", ".join(sorted(dtypes))
        raise ValueError(f"weights are {names}: give dtype='float32' or 'float64' to convert them")
    layer: AnyLayer = cell(
        **first.form.constructor_arguments(),
        num_layers=len(stack),
        batch_first=first.form.batch_first or first.turned,
        dtype=dtypes.pop() if wanted is None else wanted,
    )
    mapping = {}
    for index, node in enumerate(stack):
        assert node.form is not None
        mapping.update(_mapping.parameters(node.form, node.tensors, index))
    layer.load_state_dict({name: array.astype(layer.dtype) for name, array in mapping.items()})
    return layer
