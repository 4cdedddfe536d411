"""The weights of an sLSTM layer or cell of the package xlstm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._parameters import as_array

Array = NDArray[Any]

_CELL = "slstm_cell."  # what the names of a layer's cell begin with
_KERNEL, _BIAS = "_recurrent_kernel_", "_bias_"

# Of a layer, in the order i, f, z, o of its cell: xlstm has the names of the first two exchanged,
# and keeps them so for the weights that there are.
_PROJECTIONS = ("fgate.weight", "igate.weight", "zgate.weight", "ogate.weight")

_NOT_OF_THE_CELL = "group_norm.weight"


def weights_of(source: Any) -> dict[str, Array]:
    """Those of a module or its state dictionary, under the names of `fastlstm.SLSTM`."""
    mapping = _mapping_of(source)
    if any(str(name).startswith("conv1d.") for name in mapping):
        raise ValueError(
            "source: expected a layer without a convolution, conv1d_kernel_size=0, got one with "
            "it; give its slstm_cell, which reads what follows the convolution"
        )
    is_layer = _CELL + _KERNEL in mapping
    prefix = _CELL if is_layer else ""
    names = [prefix + _KERNEL, prefix + _BIAS, *(_PROJECTIONS if is_layer else ())]
    missing = [name for name in names if name not in mapping]
    unknown = [str(name) for name in mapping if name not in (*names, _NOT_OF_THE_CELL)]
    if missing or unknown:
        found = [("missing", missing), ("unknown", unknown)]
        text = "; ".join(f"{what}: {', '.join(names)}" for what, names in found if names)
        raise ValueError(f"source: expected the names of xlstm's sLSTMLayer or sLSTMCell; {text}")
    arrays = {name: as_array(mapping[name], name) for name in names}
    recurrent, bias = _of_cell(arrays[names[0]], arrays[names[1]], names)
    if is_layer:
        blocks = [(name, arrays[name]) for name in _PROJECTIONS]
        weight = np.concatenate([_dense(name, block, recurrent.shape) for name, block in blocks])
    else:
        weight = np.eye(len(recurrent), dtype=recurrent.dtype)
    return {"weight_ih_l0": weight, "weight_hh_l0": recurrent, "bias_ih_l0": bias}


def _mapping_of(source: Any) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    config = getattr(source, "config", None)
    function = getattr(config, "function", None)
    if function is None or not hasattr(source, "state_dict"):
        got = type(source).__name__
        raise TypeError(
            f"source: expected an sLSTMLayer or sLSTMCell of xlstm or a mapping, got {got}"
        )
    if function != "slstm":
        raise ValueError(f"source: expected a cell whose function is 'slstm', got {function!r}")
    mapping: Mapping[str, Any] = source.state_dict()
    return mapping


def _of_cell(kernel: Array, bias: Array, names: list[str]) -> tuple[Array, Array]:
    """U [4H, H/heads] and b [4H] of a cell.

    The backends of xlstm keep them in different orders: "vanilla" [heads, gate, unit, from] and
    [gate, head, unit], "cuda" [heads, from, gate, unit] and [head, gate, unit].
    """
    heads, rows, columns = kernel.shape if kernel.ndim == 3 else (0, 0, 0)
    size = min(rows, columns)
    if not heads * size or max(rows, columns) != 4 * size:
        raise ValueError(
            f"{names[0]}: expected (heads, 4 * size, size) or (heads, size, 4 * size), "
            f"got {kernel.shape}"
        )
    if bias.shape != (4 * heads * size,):
        raise ValueError(f"{names[1]}: expected {(4 * heads * size,)}, got {bias.shape}")
    if rows > columns:
        return kernel.reshape(heads, 4, size, size).swapaxes(0, 1).reshape(-1, size), bias
    of_gates = kernel.reshape(heads, size, 4, size).transpose(2, 0, 3, 1)
    return of_gates.reshape(-1, size), bias.reshape(heads, 4, size).swapaxes(0, 1).reshape(-1)


def _dense(name: str, blocks: Array, recurrent: tuple[int, ...]) -> Array:
    """A matrix [H, H] with the blocks [heads, size, size] on its diagonal."""
    units, size = recurrent[0] // 4, recurrent[1]
    heads = units // size
    if blocks.shape != (heads, size, size):
        raise ValueError(f"{name}: expected {(heads, size, size)}, got {blocks.shape}")
    dense = np.zeros((heads, size, heads, size), blocks.dtype)
    dense[np.arange(heads), :, np.arange(heads)] = blocks
    return dense.reshape(units, units)
