"""Weights of 8 and 16 bits: what `quantize` means, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm.reference.stack import Stack

FLOAT = np.float32
LEAST = FLOAT(2.0**-100)  # rows below count as zeros


def quantize_rows(a: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Integers [..., K] from -127 to 127 and scales [...] of rows, as at each step of a layer.

    Examples
    --------
    >>> q, scale = quantize_rows([[1.0, -0.5, 0.0], [0.0, 0.0, 0.0]])
    >>> q.tolist(), [round(float(s), 6) for s in scale]
    ([[127, -64, 0], [0, 0, 0]], [0.007874, 0.0])
    """
    a = np.asarray(a, FLOAT)
    most = np.abs(a).max(axis=-1, keepdims=True, initial=0)
    finite, zero = np.isfinite(most), most < LEAST
    used = np.where(finite & ~zero, most, FLOAT(1))
    q = np.rint(np.where(finite & ~zero, a, 0) * (FLOAT(127) / used))
    scale = np.where(zero, 0, np.where(finite, most / FLOAT(127), np.nan)).astype(FLOAT)
    return q.astype(np.int64), scale[..., 0]


def quantize_weights(w: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Integers [N, K] from -127 to 127 and scales [N] of a matrix of weights."""
    w = np.asarray(w, FLOAT)
    scale = np.abs(w).max(axis=1, initial=0) / FLOAT(127)
    divisor = np.where(scale > 0, scale, FLOAT(1))[:, None]
    return np.rint(np.where(scale[:, None] > 0, w, 0) / divisor).astype(np.int64), scale


class _Transposed:
    """The right-hand side of ``x @ w.T``."""

    __array_ufunc__ = None  # so that x @ this asks __rmatmul__

    def __init__(self, q: NDArray[Any], scale: NDArray[Any]) -> None:
        self.q, self.scale = q, scale

    def __rmatmul__(self, x: ArrayLike) -> NDArray[np.float64]:
        q, scale = quantize_rows(x)
        sums = (q @ self.q.T).astype(FLOAT)  # exact integers, rounded once
        product: NDArray[np.float64] = sums.astype(np.float64) * (scale[..., None] * self.scale)
        return product


class ByteMatrix(np.ndarray):
    """Integers [N, K] with the scales of their rows, for ``x @ w.T`` and for parts of the rows.

    Examples
    --------
    >>> w = byte_matrix([[1.0, 2.0], [0.0, 0.0]])
    >>> (np.array([[1.0, 1.0]]) @ w.T).round(2).tolist()
    [[3.01, 0.0]]
    """

    scale: NDArray[np.float32]

    def __array_finalize__(self, of: Any) -> None:
        self.scale = getattr(of, "scale", np.empty(0, FLOAT))

    def __getitem__(self, rows: Any) -> Any:
        part = super().__getitem__(rows)
        part.scale = self.scale[rows]
        return part

    @property
    def T(self) -> Any:  # as NumPy calls it
        """For a product: the rows of the left-hand side are quantized."""
        return _Transposed(np.asarray(self), self.scale)


def byte_matrix(w: ArrayLike) -> ByteMatrix:
    """A matrix of weights, quantized."""
    q, scale = quantize_weights(w)
    matrix = q.view(ByteMatrix)
    matrix.scale = scale
    return matrix


def _bfloat16(w: NDArray[Any]) -> NDArray[np.float64]:
    bits = w.astype(FLOAT).view(np.uint32).astype(np.int64)
    kept, rest = bits >> 16, bits & 0xFFFF
    kept += (rest > 0x8000) | ((rest == 0x8000) & (kept % 2 == 1))
    return (kept << 16).astype(np.uint32).view(FLOAT).astype(np.float64)


def _float16(w: NDArray[Any]) -> NDArray[np.float64]:
    return w.astype(np.float16).astype(np.float64)


def quantize(layer: Stack, weights_dtype: str) -> None:
    """Store the matrices of a layer of this package in fewer bits, in place.

    Examples
    --------
    >>> from fastlstm import reference
    >>> lstm = reference.LSTM(3, 2, seed=1)
    >>> quantize(lstm, "int8")
    >>> lstm(np.ones((5, 4, 3)))[0].shape
    (5, 4, 2)
    """
    change: dict[str, Callable[[NDArray[Any]], NDArray[Any]]]
    change = {"int8": byte_matrix, "bfloat16": _bfloat16, "float16": _float16}
    parameters: dict[str, Any] = layer.parameters
    for name, value in parameters.items():
        if name.startswith(("weight_ih", "weight_hh", "weight_hr")):
            parameters[name] = change[weights_dtype](value.astype(FLOAT))
