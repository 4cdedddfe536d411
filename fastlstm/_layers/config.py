"""What a layer is made of: sizes, options, and the shapes of its parameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastlstm import _validation
from fastlstm._core import library, packed_weights
from fastlstm._layers.forget_bias import ForgetBias
from fastlstm._layers.options import LSTM_OPTIONS, Options

CELLS = {cell.name: cell for cell in library.cells()}
"""The rows of src/cells.h by their names, in the order of their numbers."""

WEIGHT_TYPES = ("", "bfloat16", "float16", "int8")
"""Those of src/weight_types.h, in the order of their numbers; "": the dtype of the layer."""

MOST_LAYERS = 1000  # a typing error in a larger number would fill the memory with names

_FIXED = {"input_size", "hidden_size", "num_layers", "bias", "bidirectional", "dtype"}
_RATES = {"recurrent_dropout"}  # as `dropout`, of the calls that follow


class Arguments(NamedTuple):
    """The arguments that the constructors of all cells have, as the user gave them."""

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    dtype: DTypeLike
    seed: int | None
    forget_bias: ForgetBias | None = None


class Config:
    """The sizes and options of a layer."""

    _cell: str  # one of CELLS
    _OPTIONS: ClassVar[dict[str, Any]]  # of the constructor that only this cell has, and defaults
    proj_size = 0
    num_heads = 1
    recurrent_dropout = 0.0
    _weights_dtype = ""  # of weights in fewer bits

    @property
    def weights_dtype(self) -> str:
        """How the weights are stored: the dtype of the layer, or what `quantize` was asked for."""
        return self._weights_dtype or self.dtype.name

    def _configure(self, arguments: Arguments) -> None:
        self.input_size = _validation.integer(arguments.input_size, "input_size", 1)
        self.hidden_size = _validation.integer(arguments.hidden_size, "hidden_size", 1)
        self.num_layers = _validation.integer(arguments.num_layers, "num_layers", 1, MOST_LAYERS)
        self.bias = bool(arguments.bias)
        self.batch_first = bool(arguments.batch_first)
        self.dropout = _validation.probability(arguments.dropout, "dropout")
        if self.dropout and self.num_layers == 1:  # told to the caller of the cell's constructor
            text = (
                f"dropout: {self.dropout} has no effect with num_layers=1, it acts between layers"
            )
            warnings.warn(text, stacklevel=4)
        self.bidirectional = bool(arguments.bidirectional)
        self.dtype: np.dtype[Any] = _validation.real_dtype(arguments.dtype, "dtype")
        size = sum(math.prod(shape) for shape in self._parameter_shapes().values())
        _validation.check_size(size, self.dtype, "input_size, hidden_size, num_layers")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            if name in _FIXED or name in self._OPTIONS.keys() - _RATES:
                kind = type(self).__name__
                raise AttributeError(f"{name}: cannot be changed; make another {kind}")
            if name in ("dropout", *_RATES):
                value = _validation.probability(value, name)
        super().__setattr__(name, value)

    def _check_trainable(self, method: str, whole: str = "layer") -> None:
        """Refuse what only weights of all bits can do; `whole` is what `method` belongs to."""
        if self._weights_dtype:
            raise ValueError(
                f"{method}: expected weights of {self.dtype}, got {self._weights_dtype}: "
                f"train the {whole} that was quantized"
            )

    @property
    def _gates(self) -> int:
        return len(CELLS[self._cell].gates)

    def _keeping_gates(self, is_drawn: bool) -> dict[int, int]:
        """Which gates a forget bias is for, by their numbers; -1 for those it shuts."""
        raise NotImplementedError

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _output_size(self) -> int:
        """Units of a hidden state, and of one direction of the output: Hout."""
        return self.proj_size or self.hidden_size

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            inputs = self.input_size if layer == 0 else self._directions * self._output_size
            for suffix in ("", "_reverse")[: self._directions]:
                for name, shape in self._cell_shapes(inputs).items():
                    shapes[f"{name}_l{layer}{suffix}"] = shape
        return shapes

    def _cell_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """The parameters of one layer and direction."""
        gates = self._gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]]
        recurrent = self._output_size // self.num_heads
        shapes = {"weight_ih": (gates, inputs), "weight_hh": (gates, recurrent)}
        biases = ("bias_ih", "bias_hh")[: CELLS[self._cell].biases if self.bias else 0]
        return shapes | dict.fromkeys(biases, (gates,))

    def _core_options(self) -> Options | None:
        return None

    def _core_config(self) -> packed_weights.StackConfig:
        return packed_weights.StackConfig(
            list(CELLS).index(self._cell),
            self.num_layers,
            self._directions,
            self.input_size,
            self.hidden_size,
            self.proj_size,
            self.bias,
            self._core_options(),
            WEIGHT_TYPES.index(self._weights_dtype),
            self.num_heads,
        )

    def _configuration(self) -> dict[str, Any]:
        """The constructor's arguments, without the seed."""
        names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"]
        options = {n: getattr(self, n) for n in [*names, "bidirectional", *self._OPTIONS]}
        options["dtype"] = self.dtype.name
        return options | ({"weights_dtype": self._weights_dtype} if self._weights_dtype else {})

    def __repr__(self) -> str:
        options = self._configuration()
        defaults = {"num_layers": 1, "bias": True, "dtype": "float32", **self._OPTIONS}
        sizes = [str(options.pop(name)) for name in ("input_size", "hidden_size")]
        extra = [f"{k}={v!r}" for k, v in options.items() if v != defaults.get(k, type(v)())]
        return f"{type(self).__name__}({', '.join(sizes + extra)})"

    def _refuse(self, options: Mapping[str, Any]) -> None:
        """Say why the constructor of a cell does not take these arguments."""
        kind = type(self).__name__
        for name in options:
            if name in ("forget_bias", "max_lag"):
                raise TypeError(f"{name}: is an option of LSTM and GRU, not of {kind}")
            if name in LSTM_OPTIONS:
                raise TypeError(f"{name}: is an option of LSTM, not of {kind}")
            raise TypeError(f"{kind}: unexpected argument {name!r}")
