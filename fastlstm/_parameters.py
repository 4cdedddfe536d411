"""Named arrays over one flat vector: the parameters of a layer, and their gradients."""

from __future__ import annotations

import itertools
import math
import os
import weakref
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[Any]

_versions = itertools.count(1)  # one for all, so that exchanged parameters are seen to be others


def in_one_line(arrays: object, total: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The representation of named arrays: their kind, how many numbers, the first few shapes."""
    parts = [f"{name} {shape}" for name, shape in shapes.items()]
    if len(parts) > 5:
        parts[4:] = [f"and {len(parts) - 4} more"]
    return f"{type(arrays).__name__}({': '.join(filter(None, [total, ', '.join(parts)]))})"


class FlatMapping(Mapping[str, Array]):
    """A read-only mapping from names to arrays that are views of one flat vector.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        The arrays, in their order in the flat vector.
    flat : (N,) array
        The vector, where N is the sum of the sizes.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], flat: Array) -> None:
        self._shapes = dict(shapes)
        self._flat = flat
        self._views = self._split(flat)

    def _split(self, flat: Array) -> dict[str, Array]:
        views, start = {}, 0
        for name, shape in self._shapes.items():
            stop = start + math.prod(shape)
            views[name] = flat[start:stop].reshape(shape)
            start = stop
        return views

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    @property
    def size(self) -> int:
        """How many numbers there are in all arrays."""
        return self._flat.size

    def __repr__(self) -> str:
        shapes = {name: view.shape for name, view in self._views.items()}
        return in_one_line(self, f"{self._flat.size} x {self._flat.dtype.name}", shapes)


class Gradients(FlatMapping):
    """Gradients, with the names, shapes and order of the parameters they belong to.

    Attributes
    ----------
    flat : (N,) array
        All gradients in one vector; writing to it changes the named arrays.

    Examples
    --------
    >>> import numpy as np
    >>> grads = Gradients({"w": (2, 2), "b": (2,)}, np.arange(6.0))
    >>> grads["b"]
    array([4., 5.])
    >>> grads.flat /= 2
    >>> grads["b"]
    array([2. , 2.5])
    """

    @property
    def flat(self) -> Array:
        return self._flat

    @flat.setter
    def flat(self, value: ArrayLike) -> None:
        if value is not self._flat:
            self._flat[...] = value


class Versioned:
    """What weights of a layer have beside their values.

    Attributes
    ----------
    lock : RLock
        Held while the values are written, and while they are read to be packed or copied.
        Reentrant: a signal handler may use the layer whose call it interrupts.
    """

    def __init__(self) -> None:
        self._version = next(_versions)
        # Again in an array, because streams look at it before each step, in C.
        self._watched = np.array([self._version], np.int64)
        self.lock = RLock()
        _all[self._version] = self

    @property
    def version(self) -> int:
        """A number that grows with every write; no other parameters ever have the same one."""
        return self._version

    def renew(self) -> None:
        """Raise the version, with the lock held if something was written."""
        self._watched[0] = self._version = next(_versions)


class Parameters(FlatMapping, Versioned):
    """The parameters of a layer, or of a model of one's own: named, read-only views of one vector.

    Assigning to a name or to `flat` copies the value in and raises `version`, so that a
    layer never computes with a stale copy.  Writing *into* an array raises ``ValueError``,
    because nobody would notice such a write.  Calls of other threads see all of a write or
    nothing of it.

    Parameters
    ----------
    arrays : mapping of str to array, or to tuple of int
        Values, which are copied, or shapes, of zeros; in their order in the flat vector.
    dtype : data-type, optional
        ``float32`` or ``float64``, to which values are converted.  Default: that of the values,
        which have to be of one type then; without any, float32.

    Raises
    ------
    TypeError, ValueError
        Something is neither an array of such numbers nor a shape.

    Examples
    --------
    A model of one's own, which an optimizer can train:

    >>> import numpy as np
    >>> import fastlstm
    >>> parameters = fastlstm.Parameters({"w": np.zeros((2, 2)), "b": np.zeros(2)})
    >>> optimizer = fastlstm.optim.SGD(parameters, lr=0.5)
    >>> optimizer.step({"w": np.ones((2, 2)), "b": np.array([1.0, -2.0])})
    >>> parameters.flat
    array([-0.5, -0.5, -0.5, -0.5, -0.5,  1. ])

    Values are assigned as a whole:

    >>> parameters["b"] = [1, 2]
    >>> parameters.flat = parameters.flat - 0.5
    >>> parameters["b"]
    array([0.5, 1.5])
    >>> parameters["b"][0] = 7
    Traceback (most recent call last):
        ...
    ValueError: assignment destination is read-only
    """

    def __init__(
        self, arrays: Mapping[str, Array | tuple[int, ...]], dtype: DTypeLike | None = None
    ) -> None:
        shapes = _shapes_of(arrays)
        values = {name: value for name, value in arrays.items() if not isinstance(value, tuple)}
        storage = np.zeros(sum(math.prod(s) for s in shapes.values()), _dtype_of(values, dtype))
        # Views of a read-only buffer: NumPy refuses to make them writable again.
        readonly = np.frombuffer(storage.data.toreadonly(), storage.dtype)
        FlatMapping.__init__(self, shapes, readonly)
        Versioned.__init__(self)
        self._storage = storage
        self.assign(values)

    @property
    def flat(self) -> Array:
        """(N,) array, read-only: every parameter in one vector.  Assign to replace it."""
        return self._flat

    @flat.setter
    def flat(self, value: ArrayLike) -> None:
        array = self._checked(value, self._flat.shape, "parameters.flat")
        with self.update() as flat:
            flat[...] = array

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        if name not in self._shapes:
            raise KeyError(f"{name!r} is not a parameter; there are {', '.join(self._shapes)}")
        self.assign({name: self._checked(value, self._shapes[name], f"parameters[{name!r}]")})

    def assign(self, arrays: Mapping[str, Array]) -> None:
        """Replace some parameters by arrays of their shapes, in one write."""
        with self.update() as flat:
            views = self._split(flat)
            for name, array in arrays.items():
                views[name][...] = array

    def matching(self, mapping: Mapping[str, Any], strict: bool = True) -> dict[str, Array]:
        """The arrays of a mapping, or tensors of torch, that have names and shapes of these.

        Nothing is assigned.  Unless `strict`, names may be missing, and others are ignored.

        Raises
        ------
        TypeError, ValueError
            A name is missing or unknown, or an array has another shape or no real numbers.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"mapping: expected a mapping, got {type(mapping).__name__}")
        missing = [name for name in self if name not in mapping]
        unknown = [str(name) for name in mapping if name not in self]
        if strict and (missing or unknown):
            found = [("missing", missing), ("unknown", unknown)]
            text = "; ".join(f"{what}: {', '.join(names)}" for what, names in found if names)
            raise ValueError(f"mapping: expected exactly the names of the parameters; {text}")
        arrays = {}
        for name, current in self.items():
            if name in mapping:
                array = as_array(mapping[name], name)
                if array.shape != current.shape:
                    raise ValueError(f"{name}: expected {current.shape}, got {array.shape}")
                arrays[name] = array
        return arrays

    @contextmanager
    def update(self) -> Generator[Array, None, None]:
        """Write to the flat vector, as optimizers do.

        Nobody packs or copies the parameters meanwhile, and the version is raised at the end: a
        call that begins earlier computes with what was there before.

        Yields
        ------
        (N,) array
            Writable.  Do not keep it.

        Examples
        --------
        >>> import fastlstm
        >>> parameters = fastlstm.Parameters({"b": (2,)}, "float64")
        >>> with parameters.update() as flat:
        ...     flat += 1
        >>> parameters["b"]
        array([1., 1.])
        """
        with self.lock:
            try:
                yield self._storage
            finally:
                self.renew()

    def for_packing(self) -> tuple[Array, None]:
        """The flat vector, and no scales of its rows."""
        return self._flat, None

    def snapshot(self) -> FlatMapping:
        """A copy of all parameters, of no moment in the middle of a write."""
        with self.lock:
            return FlatMapping(self._shapes, self._storage.copy())

    @staticmethod
    def _checked(value: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
        array = np.asarray(value)
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._shapes, self.snapshot()._flat)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameters:
        return _restore(self._shapes, self.snapshot()._flat)


def _shapes_of(arrays: Mapping[str, Array | tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays: expected a mapping, got {type(arrays).__name__}")
    shapes = {}
    for name, value in arrays.items():
        if not isinstance(name, str):
            raise TypeError(f"arrays: expected names that are strings, got {name!r}")
        is_shape = isinstance(value, tuple) and all(isinstance(n, int | np.integer) for n in value)
        if not (is_shape or isinstance(value, np.ndarray)):
            raise TypeError(f"arrays[{name!r}]: expected an array or a shape, got {value!r}")
        shapes[name] = tuple(map(int, value)) if isinstance(value, tuple) else value.shape
        if min(shapes[name], default=0) < 0:
            raise ValueError(f"arrays[{name!r}]: expected sizes of at least 0, got {value!r}")
    return shapes


def _dtype_of(values: Mapping[str, Array], dtype: DTypeLike | None) -> np.dtype[Any]:
    """float32 or float64: what is asked for, or the type of all values."""
    if dtype is None:
        dtype = next((value.dtype for value in values.values()), np.float32)
        for name, value in values.items():
            if value.dtype != dtype:
                raise TypeError(f"arrays[{name!r}]: expected {dtype} as before, got {value.dtype}")
    found = np.dtype(dtype)
    if found not in (np.float32, np.float64):
        raise TypeError(f"dtype: expected float32 or float64, got {found}")
    for name, value in values.items():
        if value.dtype.kind not in "fiu":
            raise TypeError(f"arrays[{name!r}]: expected real numbers, got {value.dtype}")
    return found


def as_array(value: Any, name: str) -> Array:
    """An array of real numbers, from an array or a tensor."""
    if hasattr(value, "detach"):  # a torch tensor, perhaps one that requires gradients
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has none
            value = value.float()
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def _restore(shapes: Mapping[str, tuple[int, ...]], flat: Array) -> Parameters:
    parameters = Parameters(shapes, flat.dtype)
    parameters.flat = flat
    return parameters


# A fork waits until no other thread writes parameters, so that the child has whole ones, and finds
# no lock held by a thread that it does not have.
_all: weakref.WeakValueDictionary[int, Versioned] = weakref.WeakValueDictionary()
_held: list[Versioned] = []


def _before_fork() -> None:
    _held.extend(_all.values())
    for parameters in _held:
        parameters.lock.acquire()


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().lock.release()


def _after_fork_in_child() -> None:
    while _held:
        _held.pop().lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
