"""What optimizers write to, parameters and plain arrays, and how gradients of both are read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from fastlstm._parameters import Array, Gradients, Parameters
from fastlstm._stored_weights import StoredWeights

Arrays = Mapping[str, Array] | Array  # Parameters and Gradients are such mappings
Trainable = Arrays | Sequence[Arrays]


class OfParameters:
    """One vector, written under the lock of the parameters, which get a new version."""

    def __init__(self, parameters: Parameters, name: str) -> None:
        self._parameters = parameters
        self._name = name

    @property
    def lock(self) -> AbstractContextManager[Any]:
        return self._parameters.lock

    def vectors(self) -> dict[str, Array]:
        """What is to be written, by its names in messages."""
        return {self._name: self._parameters._storage}

    def gradients(self, grads: Any, name: str) -> list[Array]:
        """As many contiguous vectors, from what `step` was given."""
        ours = self._parameters
        if isinstance(grads, Gradients) and [*grads._shapes.items()] == [*ours._shapes.items()]:
            _check_dtype(grads.flat, ours.flat.dtype, name)
            return [np.ascontiguousarray(grads.flat)]
        arrays = _gradients_of(grads, ours, name)
        flat = np.empty_like(ours.flat)
        np.concatenate([array.ravel() for array in arrays] or [flat], out=flat)
        return [flat]

    def renew(self) -> None:
        self._parameters.renew()


class OfArray:
    """A plain array."""

    lock: AbstractContextManager[Any] = nullcontext()

    def __init__(self, array: Array, name: str) -> None:
        self._array = array
        self._name = name

    def vectors(self) -> dict[str, Array]:
        return {self._name: _vector_of(self._array, self._name)}

    def gradients(self, grads: Any, name: str) -> list[Array]:
        return [_gradient_of(grads, self._array, name).ravel()]

    def renew(self) -> None:
        pass


class OfMapping:
    """Plain arrays with names."""

    lock: AbstractContextManager[Any] = nullcontext()

    def __init__(self, mapping: Mapping[str, Array], name: str) -> None:
        self._mapping = mapping
        self._arrays = dict(mapping)
        self._name = name

    def vectors(self) -> dict[str, Array]:
        vectors = {}
        for key, array in self._arrays.items():
            name = f"{self._name}[{key!r}]"
            if self._mapping.get(key) is not array:
                raise ValueError(f"{name}: expected the array that the optimizer was given, "
                                 "got another one; write into it")  # fmt: skip
            vectors[name] = _vector_of(array, name)
        return vectors

    def gradients(self, grads: Any, name: str) -> list[Array]:
        return [array.ravel() for array in _gradients_of(grads, self._arrays, name)]

    def renew(self) -> None:
        pass


Target = OfParameters | OfArray | OfMapping


def targets_of(parameters: Any) -> list[Target]:
    """What to write, checked; see `Optimizer`."""
    targets = [_target_of(item, name) for name, item in items_of(parameters, "parameters")]
    vectors = [pair for target in targets for pair in target.vectors().items()]
    if not vectors:
        raise ValueError("parameters: expected something to train, got nothing")
    refuse_shared(vectors)
    return targets


def _target_of(item: Any, name: str) -> Target:
    if isinstance(item, Parameters):
        return OfParameters(item, name)
    if isinstance(item, StoredWeights):
        raise TypeError(
            f"{name}: expected weights of float32 or float64, got {item.weights_dtype}: train the "
            "layer that was quantized"
        )
    if isinstance(item, Mapping):
        return OfMapping(item, name)
    if isinstance(item, np.ndarray):
        return OfArray(item, name)
    raise TypeError(
        f"{name}: expected Parameters, such as lstm.parameters, an array or a mapping of arrays, "
        f"got {type(item).__name__}"
    )


def items_of(given: Any, name: str) -> list[tuple[str, Any]]:
    """Those of a sequence, or what was given in place of one; by their names in messages."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        return [(f"{name}[{i}]", item) for i, item in enumerate(given)]
    return [(name, given)]


def check_writable(array: Any, name: str) -> None:
    """Refuse what is no array of float32 or float64, or read-only."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an array, got {type(array).__name__}")
    if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    if not array.flags.writeable:
        raise ValueError(f"{name}: expected an array that can be written to, got a read-only one")


def refuse_shared(arrays: Iterable[tuple[str, Array]]) -> None:
    """Each would be written to twice."""
    arrays = list(arrays)
    spans = sorted(_span(array) for _, array in arrays if array.size)
    if all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)):
        return  # the pairs would be many
    for (name, array), (other, other_array) in itertools.combinations(arrays, 2):
        if array is other_array or np.shares_memory(array, other_array):
            raise ValueError(f"{other}: expected memory of its own, got some that {name} has, too")


def _span(array: Array) -> tuple[int, int]:
    """The addresses between which its elements lie."""
    start: int = array.__array_interface__["data"][0]
    reach = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    low, high = sum(min(0, n) for n in reach), sum(max(0, n) for n in reach)
    return start + low, start + high + array.itemsize


def _vector_of(array: Any, name: str) -> Array:
    """A view of it as one vector."""
    check_writable(array, name)
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(f"{name}: expected a C-contiguous array, got strides {array.strides}")
    vector: Array = array.reshape(-1)
    return vector


def _gradients_of(grads: Any, ours: Mapping[str, Array], name: str) -> list[Array]:
    """The gradients of named arrays, in their order."""
    if not isinstance(grads, Mapping):
        expected = f"expected a mapping with {', '.join(ours)}"
        raise TypeError(f"{name}: {expected}, got {type(grads).__name__}")
    if set(grads) != set(ours):
        raise ValueError(
            f"{name}: expected those of {', '.join(ours)}, got {', '.join(map(str, grads))}"
        )
    return [_gradient_of(grads[key], array, f"{name}[{key!r}]") for key, array in ours.items()]


def _gradient_of(grad: Any, ours: Array, name: str) -> Array:
    if not isinstance(grad, np.ndarray):
        raise TypeError(f"{name}: expected an array, got {type(grad).__name__}")
    _check_dtype(grad, ours.dtype, name)
    if grad.shape != ours.shape:
        raise ValueError(f"{name}: expected {ours.shape}, got {grad.shape}")
    return grad


def _check_dtype(grad: Array, dtype: np.dtype[Any], name: str) -> None:
    if grad.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {grad.dtype}")
