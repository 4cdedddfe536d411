"""A linear layer: what makes predictions of hidden states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastlstm import _validation
from fastlstm._core import heads, library, memory
from fastlstm._core.threads import chosen_isa, get_num_threads
from fastlstm._parameters import Array, Gradients, Parameters
from fastlstm.heads._base import Head


class Linear(Head):
    """A linear layer, ``y = x W^T + bias``, with weights and initial values as in torch.nn.Linear.

    Like those of a recurrent layer, its results have the same bits whatever other rows are in the
    call, and with any threads and instruction set; so have the gradients of its weights.

    Parameters
    ----------
    in_features, out_features : int
        At least 1.
    bias : bool, default True
    dtype : {"float32", "float64"}
        Of weights, inputs and outputs.
    seed : int, optional
        Of the initial parameters, uniform within ``1 / sqrt(in_features)``.

    Attributes
    ----------
    parameters : Parameters
        ``weight`` (out_features, in_features) and ``bias`` (out_features,).

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type, or is out of range.

    Examples
    --------
    A prediction for each step, and one update of everything:

    >>> import numpy as np
    >>> import fastlstm
    >>> lstm, linear = fastlstm.LSTM(2, 8, seed=0), fastlstm.heads.Linear(8, 3, seed=0)
    >>> optimizer = fastlstm.optim.Adam([lstm.parameters, linear.parameters])
    >>> x, classes = np.ones((5, 4, 2), np.float32), np.zeros((5, 4), int)
    >>> y, _, tape = lstm.forward(x)
    >>> logits, linear_tape = linear.forward(y)
    >>> loss, dlogits = fastlstm.heads.cross_entropy(logits, classes)
    >>> dy, linear_grads = linear.backward(linear_tape, dlogits)
    >>> _, _, grads = lstm.backward(tape, dy, input_gradient=False)
    >>> optimizer.step([grads, linear_grads])
    >>> bool(fastlstm.heads.cross_entropy(linear(lstm(x)[0]), classes)[0] < loss)
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        columns = _validation.integer(in_features, "in_features", 1)
        rows = _validation.integer(out_features, "out_features", 1)
        element = _validation.real_dtype(dtype, "dtype")
        _validation.check_size((columns + 1) * rows, element, "in_features, out_features")
        if seed is not None:
            seed = _validation.integer(seed, "seed", 0)
        shapes = {"weight": (rows, columns)} | ({"bias": (rows,)} if bias else {})
        self._parameters = Parameters(shapes, element)
        bound, size = columns**-0.5, self.parameters.size
        self.parameters.flat = np.random.default_rng(seed).uniform(-bound, bound, size)
        self._prepare()

    def _prepare(self) -> None:
        """Set up what is neither pickled nor copied."""
        self.isa = chosen_isa()
        self._scratch = library.BufferCache()
        self._copy: _Weights | None = None

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("isa", "_scratch", "_copy")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    @property
    def in_features(self) -> int:
        return int(self.parameters["weight"].shape[1])

    @property
    def out_features(self) -> int:
        return len(self.parameters["weight"])

    @property
    def bias(self) -> bool:
        """Whether there is one."""
        return "bias" in self.parameters

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.parameters.flat.dtype

    def __call__(self, x: ArrayLike) -> Array:
        """Compute y: inference.

        Parameters
        ----------
        x : (..., in_features) array
            Of the layer's dtype, such as the ``y`` or ``h_n`` of an LSTM.

        Returns
        -------
        (..., out_features) array

        Raises
        ------
        TypeError, ValueError
            If `x` has the wrong dtype or shape.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> linear = fastlstm.heads.Linear(3, 2, seed=0)
        >>> linear(np.ones((5, 7, 3), np.float32)).shape
        (5, 7, 2)
        """
        return self.forward(x)[0]

    def forward(self, x: ArrayLike) -> tuple[Array, LinearTape]:
        """Compute y, and keep what `backward` needs: training.

        Parameters
        ----------
        x : (..., in_features) array
            As for calling the layer.  It must not be changed before `backward` is called.

        Returns
        -------
        y : (..., out_features) array
        tape : LinearTape
        """
        array = self._checked(x, "x", self.in_features)
        shape = (*array.shape[:-1], self.out_features)
        _validation.check_size(math.prod(shape), self.dtype, "x")
        tape = LinearTape(self, _rows_of(array), shape, self._weights())
        y = memory.empty(shape, self.dtype)
        if y.size:
            weights, threads = tape._weights, get_num_threads()
            heads.linear(self.isa, self._scratch, tape._x, weights.weight, weights.bias,
                         _rows_of(y), threads)  # fmt: skip
        return y, tape

    def backward(
        self, tape: LinearTape, dy: ArrayLike, *, input_gradient: bool = True
    ) -> tuple[Array | None, Gradients]:
        """Return the gradients of the input and of the parameters: ``dy W``, ``dy^T x``, sums.

        Parameters
        ----------
        tape : LinearTape
            Of a call of `forward`, since which the parameters have not changed.  It may be used
            again.
        dy : array like the `y` of that call
            Gradient of the loss with respect to `y`.
        input_gradient : bool, default True
            Whether to compute the gradient of the input.

        Returns
        -------
        dx : array like `x`, or None if it is not wanted
        grads : Gradients
            With the names and layout of `parameters`.

        Raises
        ------
        TypeError, ValueError
            If `tape` is of another layer or older than the parameters, or if `dy` has the wrong
            dtype or shape.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> linear = fastlstm.heads.Linear(3, 2, seed=0)
        >>> y, tape = linear.forward(np.ones((5, 7, 3), np.float32))
        >>> dx, grads = linear.backward(tape, np.ones_like(y))
        >>> dx.shape, grads["bias"]
        ((5, 7, 3), array([35., 35.], dtype=float32))
        """
        if not isinstance(tape, LinearTape):
            raise TypeError(f"tape: expected a tape of forward, got {type(tape).__name__}")
        if tape._layer is not self:
            raise ValueError("tape: expected a tape of this layer, got one of another layer")
        if tape._weights.version != self.parameters.version:
            raise ValueError(
                "tape: expected one made with the present parameters, got an older one"
            )
        dy = _validation.like(dy, "dy", tape._y_shape, self.dtype)
        flat = memory.zeros((self.parameters.size,), self.dtype)
        grads = Gradients(self.parameters._shapes, flat)
        dx = None
        if input_gradient:
            dx = memory.empty((*dy.shape[:-1], self.in_features), self.dtype)
        if dy.size:
            heads.linear_backward(self.isa, self._scratch, tape._x, tape._weights.weight,
                                  _rows_of(dy), None if dx is None else _rows_of(dx),
                                  grads["weight"], grads.get("bias"),
                                  get_num_threads())  # fmt: skip
        return dx, grads

    def _checked(self, value: ArrayLike, name: str, features: int) -> Array:
        array = _validation.convert(value, name, self.dtype)
        if not array.ndim or array.shape[-1] != features:
            got = _validation.shape_text(array.shape)
            raise ValueError(f"{name}: expected (..., {features}), got {got}")
        return array

    def _weights(self) -> _Weights:
        """A copy of the parameters as they are now.

        Calls that have begun keep theirs, so a change of the parameters by another thread cannot
        disturb them.
        """
        copy = self._copy
        if copy is None or copy.version != self.parameters.version:
            with self.parameters.lock:
                arrays = self.parameters.snapshot()
                copy = _Weights(self.parameters.version, arrays["weight"], arrays.get("bias"))
            self._copy = copy
        return copy

    @classmethod
    def from_torch(cls, source: Any) -> Self:
        """Make a layer of a ``torch.nn.Linear``, or of its state dictionary.

        Parameters
        ----------
        source : torch.nn.Linear, or mapping of str to array or tensor
            Weights of float64 make a layer of float64, any others one of float32.

        Raises
        ------
        TypeError, ValueError
            If `source` is neither, or has other names or shapes.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> fastlstm.heads.Linear.from_torch({"weight": np.ones((2, 3))})
        Linear(3, 2, bias=False, dtype='float64')
        """
        mapping = source.state_dict() if hasattr(source, "state_dict") else source
        if not isinstance(mapping, Mapping):
            expected = "a torch.nn.Linear or a mapping"
            raise TypeError(f"source: expected {expected}, got {type(source).__name__}")
        linear = cls(**_options_of(mapping))
        linear.load_state_dict(mapping)
        return linear

    @classmethod
    def _check_file(cls, tensors: Mapping[str, Array], options: dict[str, Any]) -> None:
        if options != _options_of(tensors):
            raise ValueError(f"sizes of the weights: {_options_of(tensors)}")

    def _configuration(self) -> dict[str, Any]:
        return _options_of(self.parameters)

    def __repr__(self) -> str:
        options = self._configuration()
        parts = [str(options["in_features"]), str(options["out_features"])]
        parts += [] if options["bias"] else ["bias=False"]
        parts += [] if options["dtype"] == "float32" else [f"dtype={options['dtype']!r}"]
        return f"{type(self).__name__}({', '.join(parts)})"


class _Weights(NamedTuple):
    """Parameters of one moment."""

    version: int
    weight: Array
    bias: Array | None


class LinearTape:
    """What `Linear.backward` needs of a call of `Linear.forward`: it refers to `x`."""

    def __init__(
        self, layer: Linear, x: Array, y_shape: tuple[int, ...], weights: _Weights
    ) -> None:
        self._layer = layer
        self._x = x  # (N, in_features)
        self._y_shape = y_shape
        self._weights = weights

    def __reduce__(self) -> NoReturn:
        raise TypeError("a tape cannot be copied or pickled")  # it would be of another layer

    def __repr__(self) -> str:
        return f"LinearTape({self._layer!r}, rows={len(self._x)})"


def _rows_of(array: Array) -> Array:
    """(N, K) array, contiguous; a view of one that is."""
    return np.ascontiguousarray(array.reshape(-1, array.shape[-1]))


def _options_of(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the constructor, from the names and shapes in a state dictionary."""
    if "weight" not in mapping or len(np.shape(mapping["weight"])) != 2:
        raise ValueError(f"source: expected a matrix 'weight' among {list(mapping)}")
    weight = mapping["weight"]
    rows, columns = map(int, np.shape(weight))
    dtype = "float64" if getattr(weight, "itemsize", 4) > 4 else "float32"
    return {"in_features": columns, "out_features": rows, "bias": "bias" in mapping, "dtype": dtype}
