"""What operators between recurrent nodes do to a sequence: which axis ends up where.

A sequence is followed without its values.  Each of its axes is a product of factors (time, rows,
directions, features); an operator moves, merges, adds or removes axes, or it is none that we
follow.  Constants are computed: weights that an exporter cuts and joins, and the small integers
that are shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from fastlstm.onnx._model import array_of
from fastlstm.onnx._quantized import Quantized, dequantize_linear

Array = NDArray[Any]

Factor = tuple[str, int]  # what it counts, and how many there are; never 1
Axis = tuple[Factor, ...]


@dataclass(frozen=True)
class Arrangement:
    """A value that holds every element of `source` once, in these axes."""

    source: str
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(size for _, size in axis) for axis in self.axes)


Value = Arrangement | Array | Quantized | None  # None: not followed
Attributes = dict[str, Any]


def axis(name: str, size: int) -> Axis:
    return ((name, size),) if size != 1 else ()


def _identity(inputs: list[Value], attributes: Attributes) -> Value:
    return inputs[0]


def _dropout(inputs: list[Value], attributes: Attributes) -> Value:
    training = inputs[2] if len(inputs) > 2 else np.array(False)
    return inputs[0] if isinstance(training, np.ndarray) and not training.any() else None


def _constant(inputs: list[Value], attributes: Attributes) -> Value:
    if "value" in attributes:
        return array_of(attributes["value"])
    for name, dtype in (("int", np.int64), ("float", np.float32)):
        for plural in ("", "s"):
            if f"value_{name}{plural}" in attributes:
                return np.array(attributes[f"value_{name}{plural}"], dtype)
    return None


def _cast(inputs: list[Value], attributes: Attributes) -> Value:
    return _array(inputs[0]).astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _shape(inputs: list[Value], attributes: Attributes) -> Value:
    shape = _shape_of(inputs[0])
    return np.array(shape[attributes.get("start", 0) : attributes.get("end")], np.int64)


def _transpose(inputs: list[Value], attributes: Attributes) -> Value:
    value = inputs[0]
    rank = len(_shape_of(value))
    perm = list(attributes.get("perm", range(rank)[::-1]))
    if sorted(perm) != list(range(rank)):
        return None
    if isinstance(value, Arrangement):
        return Arrangement(value.source, tuple(value.axes[k] for k in perm))
    return _array(value).transpose(perm)


def _reshape(inputs: list[Value], attributes: Attributes) -> Value:
    value = inputs[0]
    shape, wanted = _shape_of(value), _integers(inputs[1])
    if not attributes.get("allowzero", 0):
        wanted = [shape[k] if size == 0 else size for k, size in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = -math.prod(wanted)
        wanted[wanted.index(-1)] = math.prod(shape) // rest if rest > 0 else 0
    if isinstance(value, Arrangement):
        return _merged(value, wanted)
    return _array(value).reshape(wanted)


def _squeeze(inputs: list[Value], attributes: Attributes) -> Value:
    shape = _shape_of(inputs[0])
    ones = [k for k, size in enumerate(shape) if size == 1]
    axes = _axes(inputs, attributes, len(shape), ones)
    if any(shape[k] != 1 for k in axes):
        return None
    return _resized(inputs[0], [size for k, size in enumerate(shape) if k not in axes])


def _unsqueeze(inputs: list[Value], attributes: Attributes) -> Value:
    shape = list(_shape_of(inputs[0]))
    count = len(_integers(inputs[1])) if len(inputs) > 1 else len(attributes["axes"])
    for k in sorted(_axes(inputs, attributes, len(shape) + count, [])):
        shape.insert(k, 1)
    return _resized(inputs[0], shape)


def _concat(inputs: list[Value], attributes: Attributes) -> Value:
    return np.concatenate([_array(value) for value in inputs], axis=attributes["axis"])


def _slice(inputs: list[Value], attributes: Attributes) -> Value:
    array = _array(inputs[0])
    if "starts" in attributes:
        starts, ends = attributes["starts"], attributes["ends"]
        axes, steps = attributes.get("axes"), None
    else:
        starts, ends = (_integers(value) for value in inputs[1:3])
        axes, steps = ([*map(_optional_integers, inputs[3:5]), None, None])[:2]
    axes = axes or range(len(starts))
    cuts = zip(axes, starts, ends, steps or [1] * len(starts), strict=True)
    index = [slice(None)] * array.ndim
    for k, start, end, step in cuts:
        if step < 1:
            return None
        index[k] = slice(start, end, step)
    return array[tuple(index)]


def _split(inputs: list[Value], attributes: Attributes) -> list[Value]:
    array, k = _array(inputs[0]), attributes.get("axis", 0)
    parts = attributes.get("split") or (_integers(inputs[1]) if len(inputs) > 1 else None)
    if parts is None:
        return list(np.split(array, attributes["outputs"], axis=k))
    return list(np.split(array, np.cumsum(parts)[:-1], axis=k))


def _gather(inputs: list[Value], attributes: Attributes) -> Value:
    array, indices, k = _array(inputs[0]), _array(inputs[1]), attributes.get("axis", 0)
    return array.take(indices, axis=k) if indices.size <= array.shape[k] else None


def _filled(inputs: list[Value], attributes: Attributes) -> Value:
    value = array_of(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    return np.broadcast_to(_array(value), _integers(inputs[0]))  # a view of one element


def _expand(inputs: list[Value], attributes: Attributes) -> Value:
    array, shape = _array(inputs[0]), _integers(inputs[1])
    return np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(shape)))


def _multiply(inputs: list[Value], attributes: Attributes) -> Value:
    a, b = map(_array, inputs)
    return a * b if max(a.size, b.size) <= 16 else None  # for shapes


RULES: dict[str, Callable[[list[Value], Attributes], Value | list[Value]]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "DequantizeLinear": dequantize_linear,
    "Dropout": _dropout,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": _identity,
    "Mul": _multiply,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

# Those that copy nothing.
VIEWS = {"ConstantOfShape", "DequantizeLinear", "Expand", "Identity", "Slice", "Split", "Transpose"}


def _array(value: Value) -> Array:
    if not isinstance(value, np.ndarray):
        raise TypeError("not a constant")
    return value


def _shape_of(value: Value) -> tuple[int, ...]:
    if value is None:
        raise TypeError("not followed")
    return value.shape


def _integers(value: Value) -> list[int]:
    array = _array(value)
    if array.dtype.kind != "i" or array.ndim != 1:
        raise TypeError("not a list of integers")
    return [int(number) for number in array]


def _optional_integers(value: Value) -> list[int] | None:
    return None if value is None else _integers(value)


def _axes(inputs: list[Value], attributes: Attributes, rank: int, default: list[int]) -> list[int]:
    """Axes from an attribute or, since opset 13, from the second input."""
    given = _integers(inputs[1]) if len(inputs) > 1 else attributes.get("axes", default)
    return [range(rank)[k] for k in given]


def _resized(value: Value, shape: list[int]) -> Value:
    if isinstance(value, Arrangement):
        return _merged(value, shape)
    return _array(value).reshape(shape)


def _merged(value: Arrangement, shape: Sequence[int]) -> Arrangement | None:
    """The same elements in the same order, in axes of these sizes; none may be cut."""
    factors = [factor for axis in value.axes for factor in axis]
    axes = []
    for size in shape:
        axis: list[Factor] = []
        while factors and math.prod(count for _, count in axis) < size:
            axis.append(factors.pop(0))
        if math.prod(count for _, count in axis) != size:
            return None
        axes.append(tuple(axis))
    return None if factors else Arrangement(value.source, tuple(axes))
