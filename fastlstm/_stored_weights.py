"""Weights of 8 and 16 bits, for inference: how they are made, kept, and handed to the kernels.

Matrices are stored in fewer bits: W, U and the projection.  Biases, peepholes and gains stay
float32.  Of int8, each row of a matrix has a scale, the largest magnitude / 127, and the integers
are the weights / scale, rounded to nearest even.  Of 16 bits, weights are rounded to nearest even.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from fastlstm._io.atomic import StrPath
from fastlstm._parameters import Versioned, in_one_line

Array = NDArray[Any]

MATRICES = ("weight_ih", "weight_hh", "weight_hr")
STORED_AS = {"int8": "int8", "bfloat16": "uint16", "float16": "float16"}
MOST_PRODUCTS = 132_000  # of bytes, that surely fit a sum of 32 bits


def is_matrix(name: str) -> bool:
    """Whether a parameter is stored in fewer bits."""
    return name.startswith(MATRICES)


def scale_name(name: str) -> str:
    """The name of the scales of a matrix of int8."""
    return f"{name}_scale"


def check_scales(path: StrPath, tensors: Mapping[str, Array]) -> None:
    """Raise ``ValueError`` where a file has scales that no weights of int8 can have."""
    for name, scales in tensors.items():
        if name.endswith(scale_name("")):
            wrong = scales[~(np.isfinite(scales) & (scales >= 0))]
            if wrong.size:
                raise ValueError(
                    f"{path}: {name}: expected finite numbers of at least 0, got {wrong[0]}"
                )


def to_int8(weights: Array) -> tuple[Array, Array]:
    """Integers from -127 to 127, and the scale of each row."""
    scales = (np.abs(weights).max(axis=1, initial=0) / np.float32(127)).astype(np.float32)
    divisors = np.where(scales > 0, scales, np.inf)[:, None]
    return np.rint(weights / divisors).clip(-127, 127).astype(np.int8), scales


def to_bfloat16(weights: Array) -> Array:
    """The upper 16 bits, rounded to nearest even; too large ones become infinite."""
    bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: Array) -> Array:
    """The float32 numbers that these are."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def widened(array: Array) -> Array:
    """A stored array in a type that NumPy has: bits of bfloat16 as float32."""
    return from_bfloat16(array) if array.dtype == np.uint16 else array


def to_float16(weights: Array) -> Array:
    """Rounded to nearest even; too large ones become infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return weights.astype(np.float16)


class StoredWeights(Mapping[str, Array], Versioned):
    """The parameters of a layer for inference: named, read-only arrays.

    Parameters
    ----------
    weights_dtype : {"int8", "bfloat16", "float16"}
    shapes : mapping of str to tuple of int
        Of the parameters of the layer.
    arrays : mapping of str to array
        Matrices of int8 with their scales beside them, `weight_ih_l0` and `weight_ih_l0_scale`; of
        float16; or the bits of bfloat16 as uint16, which read as float32.  The rest is float32.

    Examples
    --------
    >>> import fastlstm
    >>> small = fastlstm.LSTM(2, 3, seed=0).quantize("int8")
    >>> small.parameters["weight_ih_l0"].dtype.name, small.parameters["bias_ih_l0"].dtype.name
    ('int8', 'float32')
    >>> list(small.parameters)[:2]
    ['weight_ih_l0', 'weight_ih_l0_scale']
    """

    def __init__(
        self, weights_dtype: str, shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Array]
    ) -> None:
        for name, shape in shapes.items():
            if weights_dtype == "int8" and is_matrix(name) and shape[1] > MOST_PRODUCTS:
                raise ValueError(
                    f"{name}: expected at most {MOST_PRODUCTS} columns, to be int8, got {shape[1]}"
                )
        self.weights_dtype = weights_dtype
        self._shapes = dict(shapes)
        self._arrays = {name: _read_only(array) for name, array in arrays.items()}
        Versioned.__init__(self)

    def __getitem__(self, name: str) -> Array:
        return widened(self._arrays[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        shapes = {name: array.shape for name, array in self._arrays.items()}
        return in_one_line(self, f"{self.size} x {self.weights_dtype}", shapes)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.weights_dtype, self._shapes, self._arrays)

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredWeights:
        return type(self)(self.weights_dtype, self._shapes, self._arrays)

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def snapshot(self) -> Never:
        """Refuse: whoever asks needs float32 parameters."""
        raise ValueError(
            f"layer: expected weights of float32, got {self.weights_dtype}; "
            "use the layer that was quantized"
        )

    def stored(self) -> dict[str, Array]:
        """The arrays as they are kept."""
        return dict(self._arrays)

    def for_packing(self) -> tuple[Array, Array | None]:
        """The flat vector of values, or integers, and the scales of all rows of matrices."""
        flat = np.concatenate(
            [self[name].reshape(-1).astype(np.float32) for name in self._shapes], dtype=np.float32
        )
        if self.weights_dtype != "int8":
            return flat, None
        scales = [self._arrays[scale_name(name)] for name in self._shapes if is_matrix(name)]
        return flat, np.concatenate(scales)


def _read_only(array: Array) -> Array:
    """The array, or a copy of it, that nobody can write to."""
    array = np.array(array, order="C")
    return np.frombuffer(array.data.toreadonly(), array.dtype).reshape(array.shape)


def stored_layout(
    shapes: Mapping[str, tuple[int, ...]], weights_dtype: str
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Of parameters of these shapes, the type and shape of each stored array.

    Examples
    --------
    >>> stored_layout({"weight_ih_l0": (8, 2), "bias_ih_l0": (8,)}, "bfloat16")
    {'weight_ih_l0': ('uint16', (8, 2)), 'bias_ih_l0': ('float32', (8,))}
    """
    layout: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        layout[name] = (STORED_AS[weights_dtype] if is_matrix(name) else "float32", shape)
        if is_matrix(name) and weights_dtype == "int8":
            layout[scale_name(name)] = ("float32", shape[:1])
    return layout


def stored_weights(parameters: Mapping[str, Array], weights_dtype: str) -> StoredWeights:
    """Parameters of float32 in fewer bits.

    Raises
    ------
    ValueError
        If a matrix has infinity or NaN, more than 132,000 columns for int8, or numbers beyond what
        the type can hold.
    """
    arrays: dict[str, Array] = {}
    for name, array in parameters.items():
        if is_matrix(name):
            arrays |= _in_fewer_bits(name, array, weights_dtype)
        else:
            arrays[name] = array
    shapes = {name: array.shape for name, array in parameters.items()}
    return StoredWeights(weights_dtype, shapes, arrays)


def _in_fewer_bits(name: str, array: Array, weights_dtype: str) -> dict[str, Array]:
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, to be {weights_dtype}")
    if weights_dtype == "int8":
        integers, scales = to_int8(array)
        return {name: integers, scale_name(name): scales}
    convert: Callable[[Array], Array] = to_float16 if weights_dtype == "float16" else to_bfloat16
    small = convert(array)
    if not np.isfinite(widened(small)).all():
        limit = "65504" if weights_dtype == "float16" else "3.39e38"
        raise ValueError(
            f"{name}: expected magnitudes up to {limit}, to be {weights_dtype}, "
            f"got {np.abs(array).max():g}"
        )
    return {name: small}
