"""What tests of ONNX and weights of few bits share: layers of int8, and their twins of float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm._layers.weights import checked_weights
from support.compare import Array
from support.onnx_models import check

T, B, I, H = 7, 5, 4, 3  # all different, so that a mix-up shows
NAMES = ("y", "h_n", "c_n")
FLOAT = 2e-6  # of float32 arithmetic with the same weights

# Both round x and h to 8 bits, here with a scale for each row, there with one for all.  A value of
# x up to 3 is off by at most 3/254 here and 6/510 there; four of them times weights of order 0.3
# and a function of slope 1 or less give up to 0.015, and what h adds is less.
BYTES = 0.015

LSTM_OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False, "batch_first": True},
    {"peephole": True, "preact_clip": 1.5},
    {"coupled": True},
]

GATES = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}  # ours, of the blocks of ONNX


def our_rows(op: str, blocks: Array) -> Array:
    """The rows of a matrix, or numbers of rows, of ONNX in our order of gates."""
    parts = blocks.reshape(len(GATES[op]), H, *blocks.shape[1:])
    ours: Array = parts[GATES[op]].reshape(blocks.shape)
    return ours


def small_layer(cell: Any, *args: Any, **options: Any) -> Any:
    """A layer of int8 with integers up to 63: sums of ONNX Runtime saturate nowhere."""
    layer = cell(I, H, *args, **options, seed=1)
    arrays = layer.quantize("int8").state_dict()
    for name, array in arrays.items():
        if array.dtype == np.int8:
            arrays[name] = (array / 2).astype(np.int8)
        elif name.endswith("_scale"):
            arrays[name] = 2 * array
    return layer._with_weights(checked_weights(layer, arrays, "int8"))


def widened(layer: Any) -> Any:
    """The layer of float32 with the weights that these integers are."""
    arrays = layer.state_dict()
    for name in [name for name in arrays if f"{name}_scale" in arrays]:
        arrays[name] = arrays[name] * arrays.pop(f"{name}_scale")[:, None]
    options = {n: v for n, v in layer._configuration().items() if n != "weights_dtype"}
    other = type(layer)(**options)
    other.load_state_dict(arrays)
    return other


def check_results(got: Any, expected: Any, tolerance: float) -> None:
    for name, a, b in zip(NAMES, got, expected, strict=False):
        check(a, b, tolerance, name)
