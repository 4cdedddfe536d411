"""One node of ONNX, run by a layer that is made for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation
from fastlstm.onnx import _mapping
from fastlstm.onnx._mapping import INPUTS, OPERATORS, OUTPUTS, WEIGHTS, AnyLayer, Form

Array = NDArray[Any]


def run(
    op_type: str, inputs: Mapping[str, ArrayLike], attributes: Mapping[str, Any]
) -> dict[str, Array]:
    """See `fastlstm.onnx.run_node`."""
    if op_type not in OPERATORS:
        raise ValueError(f"op_type: expected one of {', '.join(OPERATORS)}, got {op_type!r}")
    unknown = [name for name in inputs if name not in INPUTS[op_type]]
    if unknown:
        raise ValueError(f"inputs: {op_type} has no {', '.join(map(repr, unknown))}")
    if "X" not in inputs:
        raise ValueError(f"X: missing, a node of {op_type} needs it")
    x = np.asarray(inputs["X"])
    dtype = _validation.real_dtype(x.dtype, "dtype of X")
    weights = {n: _validation.convert(inputs[n], n, dtype) for n in WEIGHTS if n in inputs}
    form = _mapping.read_form(op_type, {k: _text(v) for k, v in attributes.items()}, weights)
    rows, size = 0 if form.batch_first else 1, form.input_size
    if x.ndim != 3 or x.shape[2] != size:
        axes = "B, T" if form.batch_first else "T, B"
        raise ValueError(f"X: expected ({axes}, {size}), got {_validation.shape_text(x.shape)}")
    states = _states(form, inputs, x.shape[rows], dtype)
    lengths = None
    if "sequence_lens" in inputs:
        steps, batch = x.shape[1 - rows], x.shape[rows]
        lengths = _validation.lengths(inputs["sequence_lens"], "sequence_lens", steps, batch)
    layer: AnyLayer = OPERATORS[op_type](
        **form.constructor_arguments(), batch_first=form.batch_first, dtype=dtype
    )
    layer.load_state_dict(_mapping.parameters(form, weights, 0))
    return _called(layer, form, x, states, lengths)


def _states(
    form: Form, inputs: Mapping[str, ArrayLike], batch: int, dtype: np.dtype[Any]
) -> list[Array]:
    """h, and c of an LSTM: (D, B, H)."""
    names = ["initial_h", "initial_c"][: len(OUTPUTS[form.op]) - 1]
    shape = (form.directions, batch, form.hidden_size)
    given = (batch, form.directions, form.hidden_size) if form.batch_first else shape
    states = []
    for name in names:
        state = np.zeros(given, dtype)
        if name in inputs:
            state = _validation.like(inputs[name], name, given, dtype)
        states.append(state.swapaxes(0, 1) if form.batch_first else state)
    return states


def _called(
    layer: AnyLayer, form: Form, x: Array, states: list[Array], lengths: Array | None
) -> dict[str, Array]:
    """Run the layer, and arrange what it returns as ONNX does."""
    if form.direction == "reverse":
        x = _reversed(x, lengths, form.batch_first)
    y, after = layer(x, tuple(states) if form.op == "LSTM" else states[0], lengths=lengths)
    if form.direction == "reverse":
        y = _reversed(y, lengths, form.batch_first)
    y = y.reshape(*y.shape[:2], form.directions, form.hidden_size)
    last = [np.array(state) for state in (after if form.op == "LSTM" else [after])]
    if lengths is not None:
        for state in last:
            state[:, lengths == 0] = 0  # as ONNX Runtime does; the definition is silent
    arrays = [y if form.batch_first else y.swapaxes(1, 2)]
    arrays += [state.swapaxes(0, 1) if form.batch_first else state for state in last]
    return dict(zip(OUTPUTS[form.op], map(np.ascontiguousarray, arrays), strict=True))


def _reversed(sequence: Array, lengths: Array | None, batch_first: bool) -> Array:
    """Each row with its own steps in the opposite order, and what lies beyond where it is."""
    rows_first = sequence if batch_first else sequence.swapaxes(0, 1)
    batch, steps = rows_first.shape[:2]
    ends = np.full(batch, steps) if lengths is None else lengths
    step = np.arange(steps)
    order = np.where(step < ends[:, None], ends[:, None] - 1 - step, step)
    turned = np.take_along_axis(rows_first, order[:, :, None], axis=1)
    return np.ascontiguousarray(turned if batch_first else turned.swapaxes(0, 1))


def _text(value: Any) -> Any:
    """Text as str: ONNX stores bytes."""
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
