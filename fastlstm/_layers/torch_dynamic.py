"""Weights of the modules that torch's `quantize_dynamic` makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._stored_weights import scale_name

Array = NDArray[Any]


def is_dynamic(source: Any) -> bool:
    """Whether this is such a module; its state dictionary has packed objects, not tensors."""
    return all(hasattr(source, name) for name in ("_weight_bias", "hidden_size"))


def tensors_of(module: Any) -> dict[str, Any]:
    """Weights, quantized or of float32 that float16 holds, and biases, by torch's names."""
    found = module._weight_bias()
    return {**found["weight"], **found["bias"]}


def is_int8(tensors: Mapping[str, Any]) -> bool:
    return any(tensor.is_quantized for tensor in tensors.values())


def widened(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {n: t.dequantize() if t.is_quantized else t for n, t in tensors.items()}


def in_bytes(tensors: Mapping[str, Any]) -> dict[str, Array]:
    """Integers of int8 with the scales of their rows beside them, and biases.

    Raises
    ------
    ValueError
        If a matrix has zero points, or scales of something else than rows.
    """
    found: dict[str, Array] = {}
    for name, tensor in tensors.items():
        if tensor.is_quantized:
            found[name] = tensor.int_repr().numpy()
            found[scale_name(name)] = _scales(name, tensor)
        else:
            found[name] = tensor.detach().numpy()
    return found


def _scales(name: str, tensor: Any) -> Array:
    """One for each row: of a scale for all, the same."""
    if str(tensor.qscheme()).startswith("torch.per_tensor"):
        axis, scale, zero_point = 0, tensor.q_scale(), tensor.q_zero_point()
    else:
        axis, scale = tensor.q_per_channel_axis(), tensor.q_per_channel_scales().numpy()
        zero_point = tensor.q_per_channel_zero_points().numpy()
    if str(tensor.dtype) != "torch.qint8" or axis != 0 or np.any(zero_point):
        raise ValueError(
            f"{name}: expected qint8 with zero points of 0 and scales along axis 0, got "
            f"{str(tensor.dtype).removeprefix('torch.')}, {np.unique(zero_point).tolist()} and "
            f"axis {axis}; give dtype='float32' to widen them"
        )
    return np.full(tensor.shape[0], scale, np.float32)
