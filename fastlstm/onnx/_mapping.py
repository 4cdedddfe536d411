"""One ONNX node and one layer: attributes and options, tensors and parameters.

ONNX stacks the gates of an LSTM as i, o, f, c, its peepholes as i, o, f, and the gates of a GRU
as z, r, h; here they are i, f, g, o (g is ONNX's c) and r, z, n (n is its h).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._layers.base import Layer
from fastlstm._layers.cells import CELLS, COMMON
from fastlstm._stored_weights import scale_name
from fastlstm.onnx import _activations
from fastlstm.onnx._activations import Entry
from fastlstm.onnx._quantized import Quantized

Array = NDArray[Any]
AnyLayer = Layer[Any, Any, Any]

INPUTS = {
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
# An LSTM of ONNX Runtime whose W and R are int8 or uint8, with their last two axes exchanged.
DYNAMIC, DYNAMIC_DOMAIN = "DynamicQuantizeLSTM", "com.microsoft"
DYNAMIC_INPUTS = (*INPUTS["LSTM"], "W_scale", "W_zero_point", "R_scale", "R_zero_point")
# ONNX calls its operators as our classes are called.
OPERATORS: dict[str, type[AnyLayer]]
OPERATORS = {CELLS[cell].__name__: CELLS[cell] for cell in COMMON}
OUTPUTS = {"LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h"), "RNN": ("Y", "Y_h")}
WEIGHTS = ("W", "R", "B", "P")
MATRICES = {"W": "weight_ih", "R": "weight_hh"}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}

_GATES = {"LSTM": "iofc", "GRU": "zrh", "RNN": "h"}
_OUR_GATES = {"LSTM": "ifco", "GRU": "rzh", "RNN": "h"}
_COUPLED, _PEEPHOLES, _OUR_PEEPHOLES, _COUPLED_PEEPHOLES = "ico", "iof", "ifo", "io"

_ATTRIBUTES = {"activation_alpha", "activation_beta", "activations", "clip", "direction"}
_ATTRIBUTES |= {"hidden_size", "layout"}
_OWN_ATTRIBUTE = {"LSTM": {"input_forget"}, "GRU": {"linear_before_reset"}, "RNN": set()}
_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}

# Options of layers that a node can express, and those that act in training only.
_EXPRESSED = {"peephole", "coupled", "preact_clip", "activations", "reset_after", "nonlinearity"}
_TRAINING = {"recurrent_dropout"}


@dataclass(frozen=True)
class Form:
    """What a node asks for, in our words."""

    op: str
    input_size: int
    hidden_size: int
    direction: str
    bias: bool
    batch_first: bool
    options: dict[str, Any]  # those that only this cell has, unless they are the default

    @property
    def directions(self) -> int:
        return DIRECTIONS[self.direction]

    def constructor_arguments(self) -> dict[str, Any]:
        """Of one layer; of "reverse" too, which is up to the caller."""
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "bias": self.bias,
            "bidirectional": self.direction == "bidirectional",
            **self.options,
        }


def read_form(
    op: str, attributes: Mapping[str, Any], tensors: Mapping[str, Array | Quantized]
) -> Form:
    """Check the attributes of a node and the shapes of its W, R, B and P.

    Raises
    ------
    TypeError, ValueError
        If they do not fit together, or ask for what our layers cannot do.
    """
    unknown = sorted(set(attributes) - _ATTRIBUTES - _OWN_ATTRIBUTE[op])
    if unknown:
        raise ValueError(f"attributes: {op} has no {', '.join(map(repr, unknown))}")
    direction = attributes.get("direction", "forward")
    if not isinstance(direction, str) or direction not in DIRECTIONS:
        raise ValueError(f"direction: expected {', '.join(DIRECTIONS)}, got {direction!r}")
    input_size, hidden_size = _sizes(op, DIRECTIONS[direction], attributes, tensors)
    return Form(
        op,
        input_size,
        hidden_size,
        direction,
        "B" in tensors,
        _flag(attributes, "layout"),
        _options(op, DIRECTIONS[direction], attributes, "P" in tensors),
    )


def parameters(form: Form, tensors: Mapping[str, Array], layer: int) -> dict[str, Array]:
    """Our parameters of one layer, from W, R, B and P, and from W_scale and R_scale (D, rows)."""
    given, wanted = _GATES[form.op], _our_gates(form.op, form.options.get("coupled", False))
    found = dict[str, Array]()
    for direction, suffix in enumerate(("", "_reverse")[: form.directions]):
        end, parts = f"_l{layer}{suffix}", dict[str, Array]()
        for matrix, name in MATRICES.items():
            parts[name + end] = tensors[matrix][direction]
            if f"{matrix}_scale" in tensors:
                parts[scale_name(name + end)] = tensors[f"{matrix}_scale"][direction]
        if form.bias:
            parts["bias_ih" + end], parts["bias_hh" + end] = np.split(tensors["B"][direction], 2)
        found |= {name: _reordered(array, given, wanted) for name, array in parts.items()}
        if "P" in tensors:
            kept = _COUPLED_PEEPHOLES if form.options.get("coupled") else _OUR_PEEPHOLES
            found["weight_ch" + end] = _reordered(tensors["P"][direction], _PEEPHOLES, kept)
    return found


def write_node(layer: AnyLayer, index: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """Attributes and tensors of the node for one layer of a stack.

    W and R of int8 have W_scale and R_scale (D, rows) beside them; those of 16 bits are widened.

    Raises
    ------
    ValueError
        If the layer has an option that a node cannot express.
    """
    op, options = op_of(type(layer)), layer._configuration()
    for name, default in type(layer)._OPTIONS.items():
        if name not in _EXPRESSED | _TRAINING and options[name] != default:
            raise ValueError(f"{name}: ONNX cannot express {options[name]!r}, only {default!r}")
    coupled = options.get("coupled", False)
    given, wanted = _our_gates(op, coupled), _GATES[op]
    suffixes = [f"_l{index}", f"_l{index}_reverse"][: 1 + layer.bidirectional]

    def stacked(names: Sequence[str], given: str, wanted: str) -> Array:
        arrays = [layer.parameters[name] for name in names]
        return np.stack([_reordered(array, given, wanted) for array in arrays])

    def named(name: str) -> list[str]:
        return [name + suffix for suffix in suffixes]

    tensors = {}
    for matrix, name in MATRICES.items():
        tensors[matrix] = stacked(named(name), given, wanted)
        if layer.weights_dtype == "int8":
            scales = [scale_name(full) for full in named(name)]
            tensors[f"{matrix}_scale"] = stacked(scales, given, wanted)
        else:
            tensors[matrix] = tensors[matrix].astype(layer.dtype)
    if layer.bias:
        biases = [stacked(named(name), given, wanted) for name in ("bias_ih", "bias_hh")]
        tensors["B"] = np.concatenate(biases, axis=1)
    if options.get("peephole"):
        kept = _COUPLED_PEEPHOLES if coupled else _OUR_PEEPHOLES
        tensors["P"] = stacked(named("weight_ch"), kept, _PEEPHOLES)
    return _attributes(layer, op, options), tensors


def rounded(layer: AnyLayer) -> list[tuple[str, float, float]]:
    """Attributes that are other numbers when they are read again, with the old and the new one.

    ONNX has float32.  A float32 layer computes with these same numbers, and 0.1 comes back as 0.1.
    """
    if layer.dtype == np.float32:
        return []
    found = []
    for name, value in _attributes(layer, op_of(type(layer)), layer._configuration()).items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and _activations.decimal(number) != number:
                found.append((name, number, _activations.decimal(number)))
    return list(dict.fromkeys(found))


def op_of(cell: type[Any]) -> str:
    """The operator that a class of layers corresponds to."""
    for op, base in OPERATORS.items():
        if issubclass(cell, base):
            return op
    raise TypeError(f"layer: expected an LSTM, a GRU or an RNN of fastlstm, got {cell.__name__}")


def _sizes(
    op: str,
    directions: int,
    attributes: Mapping[str, Any],
    tensors: Mapping[str, Array | Quantized],
) -> tuple[int, int]:
    for name in ("W", "R"):
        if name not in tensors:
            raise ValueError(f"{name}: missing, a node of {op} needs it")
        if tensors[name].ndim != 3:
            shape = _validation.shape_text(tensors[name].shape)
            raise ValueError(f"{name}: expected 3 axes, got {shape}")
    inputs, hidden = tensors["W"].shape[2], tensors["R"].shape[2]
    named = attributes.get("hidden_size", hidden)
    if _validation.integer(named, "hidden_size", 1) != hidden or inputs < 1:
        shape = _validation.shape_text(tensors["R"].shape)
        raise ValueError(f"hidden_size: {named} does not agree with R, which is {shape}")
    rows = len(_GATES[op]) * hidden
    shapes = {"W": (rows, inputs), "R": (rows, hidden), "B": (2 * rows,), "P": (3 * hidden,)}
    for name, tensor in tensors.items():
        if tensor.shape != (directions, *shapes[name]):
            expected, got = (directions, *shapes[name]), _validation.shape_text(tensor.shape)
            raise ValueError(f"{name}: expected {expected}, got {got}")
    return inputs, hidden


def _options(
    op: str, directions: int, attributes: Mapping[str, Any], peephole: bool
) -> dict[str, Any]:
    """The options of our layer that are not the default."""
    options: dict[str, Any] = {}
    entries = _entries(op, directions, attributes)
    clip = attributes.get("clip")
    if clip is not None and not _numbers([clip], "clip")[0] > 0:
        raise ValueError(f"clip: expected a positive number, got {clip!r}")
    if op == "LSTM":
        chosen = {"peephole": peephole, "coupled": _flag(attributes, "input_forget")}
        options = {name: True for name, flag in chosen.items() if flag}
        if clip is not None:
            options["preact_clip"] = _activations.decimal(clip)
        if entries != _ACTIVATIONS[op]:
            options["activations"] = tuple(entries)
        return options
    if clip is not None:
        raise ValueError(f"clip: fastlstm has none for {op}, got {clip!r}")
    if op == "GRU":
        if entries != _ACTIVATIONS[op]:
            got = list(attributes["activations"])
            raise ValueError(f"activations: expected Sigmoid and Tanh for GRU, got {got}")
        return options if _flag(attributes, "linear_before_reset") else {"reset_after": False}
    if entries not in (["tanh"], ["relu"]):
        got = list(attributes["activations"])
        raise ValueError(f"activations: expected Tanh or Relu for RNN, got {got}")
    return options if entries == ["tanh"] else {"nonlinearity": "relu"}


def _entries(op: str, directions: int, attributes: Mapping[str, Any]) -> list[Entry]:
    """Activation functions, once if both directions have the same."""
    count = len(_ACTIVATIONS[op])
    default = [_activations.ONNX_NAMES[name] for name in _ACTIVATIONS[op]] * directions
    names = attributes.get("activations", default)
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"activations: expected a list of names, got {names!r}")
    if len(names) != count * directions:
        raise ValueError(
            f"activations: expected {count * directions} names, {count} for each direction, "
            f"got {len(names)}"
        )
    values = [_numbers(attributes.get(f"activation_{x}", []), f"activation_{x}")
              for x in ("alpha", "beta")]  # fmt: skip
    entries = _activations.read(names, *values)
    return entries[:count] if entries[:count] == entries[-count:] else entries


def _attributes(layer: AnyLayer, op: str, options: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"hidden_size": layer.hidden_size}
    directions = 2 if layer.bidirectional else 1
    if layer.bidirectional:
        found["direction"] = "bidirectional"
    if op == "GRU":
        found["linear_before_reset"] = int(options["reset_after"])
        return found
    default = _ACTIVATIONS[op]
    entries = [options["nonlinearity"]] if op == "RNN" else options.get("activations", default)
    if list(entries) != default:
        entries = list(entries) * (directions if len(entries) == len(default) else 1)
        found.update(_activations.write(entries))
    if options.get("coupled"):
        found["input_forget"] = 1
    if options.get("preact_clip") is not None:
        found["clip"] = float(options["preact_clip"])
    return found


def _our_gates(op: str, coupled: bool) -> str:
    return _COUPLED if coupled else _OUR_GATES[op]


def _reordered(blocks: Array, given: str, wanted: str) -> Array:
    """Stacked gates in another order; one that is not given is zero, one not wanted left out."""
    parts = dict(zip(given, np.split(blocks, len(given)), strict=True))
    nothing = np.zeros_like(parts[given[0]])
    return np.concatenate([parts.get(gate, nothing) for gate in wanted])


def _flag(attributes: Mapping[str, Any], name: str) -> bool:
    return bool(_validation.integer(attributes.get(name, 0), name, 0, 1))


def _numbers(values: Any, name: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected numbers, got {values!r}") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}: expected finite numbers, got {values!r}")
    return numbers
