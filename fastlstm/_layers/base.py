"""What all layers have in common: conversion, calls.  All arithmetic over time is below, in C."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastlstm import _validation
from fastlstm._core import library, sequence, stream
from fastlstm._core.threads import chosen_isa, get_num_threads
from fastlstm._layers.inputs import Inputs
from fastlstm._layers.options import LSTM_OPTIONS, Options
from fastlstm._layers.states import states_of
from fastlstm._layers.tape import CheckpointEvery, Dropout, Tape
from fastlstm._layers.trace import Trace
from fastlstm._layers.weights import Weights
from fastlstm._parameters import Gradients, Parameters

Array = NDArray[Any]
State = TypeVar("State")
StateLike = TypeVar("StateLike")
TraceKind = TypeVar("TraceKind", bound=Trace)
Embedding = ArrayLike | None

_SIZES = {"input_size", "hidden_size", "num_layers", "bias", "bidirectional", "dtype"}
_RATES = {"recurrent_dropout"}  # as `dropout`, of the calls that follow

MOST_LAYERS = 1000  # a typing error in a larger number would fill the memory with names


class Layer(Weights, Generic[State, StateLike, TraceKind]):
    """A stack of recurrent layers of one cell; the base of `LSTM`, `GRU` and `RNN`."""

    _CELLS: ClassVar[list[str]] = [cell.name for cell in library.cells()]
    _gates: int
    _TRACE: type[TraceKind]
    _PLACES: ClassVar[list[int]]  # of its fields on a tape
    _cell: str  # one of _CELLS
    proj_size = 0
    recurrent_dropout = 0.0
    _OPTIONS: ClassVar[dict[str, Any]]  # of the constructor that only this cell has, and defaults

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        self.input_size = _validation.integer(input_size, "input_size", 1)
        self.hidden_size = _validation.integer(hidden_size, "hidden_size", 1)
        self.num_layers = _validation.integer(num_layers, "num_layers", 1, MOST_LAYERS)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = _validation.probability(dropout, "dropout")
        if self.dropout and self.num_layers == 1:  # told to the caller of the cell's constructor
            text = (
                f"dropout: {self.dropout} has no effect with num_layers=1, it acts between layers"
            )
            warnings.warn(text, stacklevel=3)
        self.bidirectional = bool(bidirectional)
        self.dtype = _validation.real_dtype(dtype, "dtype")
        shapes = self._parameter_shapes()
        size = sum(math.prod(shape) for shape in shapes.values())
        _validation.check_size(size, self.dtype, "input_size, hidden_size, num_layers")
        self.parameters = Parameters(shapes, self.dtype)
        if seed is not None:
            seed = _validation.integer(seed, "seed", 0)
        generator = np.random.default_rng(seed)
        bound = self.hidden_size**-0.5
        self.parameters.flat = generator.uniform(-bound, bound, self.parameters.flat.size)
        for name in shapes:
            if name.startswith("weight_ln"):
                self.parameters[name] = np.ones(shapes[name])
        self._dropout_keys = generator
        self._prepare()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            if name in _SIZES or name in self._OPTIONS.keys() - _RATES:
                kind = type(self).__name__
                raise AttributeError(f"{name}: cannot be changed; make another {kind}")
            if name in ("dropout", *_RATES):
                value = _validation.probability(value, name)
            elif name == "parameters":
                self._exchange_parameters(value)
                return
        super().__setattr__(name, value)

    def _exchange_parameters(self, parameters: Parameters) -> None:
        before = self.parameters
        if not isinstance(parameters, Parameters):
            raise TypeError(f"parameters: expected Parameters, got {type(parameters).__name__}")
        if (parameters._shapes, parameters.flat.dtype) != (before._shapes, before.flat.dtype):
            raise ValueError(f"parameters: expected {before!r}, got {parameters!r}")
        super().__setattr__("parameters", parameters)
        parameters.renew()  # versions only ever grow for those who compare them
        before.renew()  # streams and pools watch these, and then look for others

    def _prepare(self) -> None:
        """Set up what is no part of the layer's value: it is neither pickled nor copied."""
        self.isa = chosen_isa()
        self._packed: sequence.PackedWeights | None = None
        self._states = states_of(self._cell, self._output_size, self.hidden_size, self.dtype)
        self._scratch = library.BufferCache()
        self._tapes = library.BufferCache()

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
        shapes = {"weight_ih": (gates, inputs), "weight_hh": (gates, self._output_size)}
        return shapes | ({"bias_ih": (gates,), "bias_hh": (gates,)} if self.bias else {})

    def _refuse(self, options: Mapping[str, Any]) -> None:
        """Say why a cell does not take these arguments."""
        kind = type(self).__name__
        for name in options:
            if name in LSTM_OPTIONS:
                raise TypeError(f"{name}: is an option of LSTM, not of {kind}")
            raise TypeError(f"{kind}: unexpected argument {name!r}")

    def _core_options(self) -> Options | None:
        return None

    def __repr__(self) -> str:
        options = self._configuration()
        defaults = {"num_layers": 1, "bias": True, "dtype": "float32", **self._OPTIONS}
        sizes = [str(options.pop(name)) for name in ("input_size", "hidden_size")]
        extra = [f"{k}={v!r}" for k, v in options.items() if v != defaults.get(k, type(v)())]
        return f"{type(self).__name__}({', '.join(sizes + extra)})"

    def _configuration(self) -> dict[str, Any]:
        """The constructor's arguments, without the seed."""
        names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"]
        options = {n: getattr(self, n) for n in [*names, "bidirectional", *self._OPTIONS]}
        return {**options, "dtype": self.dtype.name}

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("isa", "_packed", "_states", "_scratch", "_tapes")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def _core_shape(self) -> sequence.StackConfig:
        return sequence.StackConfig(
            self._CELLS.index(self._cell),
            self.num_layers,
            self._directions,
            self.input_size,
            self.hidden_size,
            self.proj_size,
            self.bias,
            self._core_options(),
        )

    def _packed_weights(self, *, backward: bool = False) -> sequence.PackedWeights:
        """The parameters as they are now, in the kernels' layout: for forward, or both ways.

        A call keeps the object it got, so a change of the parameters by another thread cannot
        disturb it.
        """
        packed, parameters = self._packed, self.parameters
        if packed is None or not packed.is_of(parameters.version, backward):
            threads = get_num_threads()
            with parameters.lock:
                packed, version = self._packed, parameters.version
                if packed is None or not packed.is_of(version, False):
                    shape = self._core_shape()
                    packed = sequence.PackedWeights(
                        self.isa, shape, parameters.flat, version, threads
                    )
                if backward:
                    packed.add_backward(parameters.flat, threads)
                self._packed = packed
        return packed

    def _time_first(self, array: Array, lead: tuple[int, ...]) -> Array:
        """A view (T, B, ...) of a sequence whose steps and rows are as the user has them."""
        if len(lead) == 1:
            return array[:, None]
        return array.swapaxes(0, 1) if self.batch_first else array

    def _state_in(
        self, value: Any, name: str, lead: tuple[int, ...], *, gradient: bool = False
    ) -> list[Array]:
        """New arrays (L*D, B, ...) from those of the user, who has steps and rows like `lead`."""
        cells = self.num_layers * self._directions
        shape = (cells, lead[not self.batch_first]) if len(lead) == 2 else (cells,)
        arrays = self._states.to_core(value, name, shape, gradient=gradient)
        return [array[:, None] for array in arrays] if len(lead) == 1 else arrays

    def _state_out(
        self, arrays: list[Array], lead: tuple[int, ...], *, gradient: bool = False
    ) -> State:
        if len(lead) == 1:
            arrays = [array[:, 0] for array in arrays]
        state: State = self._states.from_core(arrays, gradient=gradient)
        return state

    def _inputs(
        self,
        x: ArrayLike,
        embedding: Embedding,
        lengths: ArrayLike | None,
        reset: ArrayLike | None,
    ) -> tuple[Inputs, tuple[int, ...]]:
        """The input, and its steps and rows as the user has them: (T,), (T, B) or (B, T)."""
        x_steps, tokens, lead = self._sequence(x, embedding)
        ordered = anew = None
        if lengths is not None:
            swapped = len(lead) == 2 and self.batch_first
            steps, rows = lead[::-1] if swapped else (*lead, 1)[:2]
            ordered = _validation.lengths(lengths, "lengths", steps, rows)
        if reset is not None:
            anew = self._time_first(_validation.flags(reset, "reset", lead), lead)
            anew = np.array(anew, order="C")
        return Inputs(x_steps, tokens, ordered, anew), lead

    def _sequence(
        self, x: ArrayLike, embedding: Embedding
    ) -> tuple[Array | None, Array | None, tuple[int, ...]]:
        """x and tokens, time first, and steps and rows as the user has them."""
        if embedding is None:
            x = _validation.sequence(x, "x", self.input_size, self.dtype, self.batch_first)
            lead = x.shape[:-1]
            return self._time_first(x, lead), None, lead
        table = None
        if not isinstance(embedding, str):
            table = _validation.table(embedding, "embedding", self.input_size, self.dtype)
        elif embedding != "one-hot":
            raise ValueError(f"embedding: expected an array or 'one-hot', got {embedding!r}")
        count = self.input_size if table is None else len(table)
        tokens = _validation.tokens(x, "x", count, self.batch_first)
        ordered = np.ascontiguousarray(self._time_first(tokens, tokens.shape))
        return None if table is None else table[:, None], ordered, tokens.shape

    def _run(
        self,
        x: ArrayLike,
        state: StateLike | None,
        embedding: Embedding,
        lengths: ArrayLike | None,
        reset: ArrayLike | None,
        training: bool,
        checkpoint_every: CheckpointEvery = None,
    ) -> tuple[Array, State, Tape | None]:
        inputs, lead = self._inputs(x, embedding, lengths, reset)
        states = self._state_in(state, "state", lead)
        y_shape = (*lead, self._directions * self._output_size)
        _validation.check_size(math.prod(y_shape), self.dtype, "x")
        tape = None
        if training:
            if checkpoint_every is not None and self.bidirectional:
                raise ValueError(
                    "checkpoint_every: expected a layer of one direction, got a bidirectional one"
                )
            dropout = self._draw_dropout()
            tape = Tape(self, inputs, y_shape, dropout, checkpoint_every, backward=True)
        y = np.empty(y_shape, self.dtype)
        self._clear_padding(y, inputs, lead)
        if y.size and tape:
            tape._record(self._time_first(y, lead), states)
        elif y.size:
            threads = get_num_threads()
            y_steps, packed = self._time_first(y, lead), self._packed_weights()
            sequence.forward(
                packed, self._scratch, *inputs.part(), y_steps, states, None, None, 0, threads
            )
        return y, self._state_out(states, lead), tape

    def _draw_dropout(self) -> Dropout | None:
        """What one call of `forward` leaves to chance."""
        rate = self.dropout if self.num_layers > 1 else 0.0
        options = self._core_options()
        if rate or self.recurrent_dropout or (options and any(options.zoneout)):
            return int(self._dropout_keys.integers(1 << 63)), rate, self.recurrent_dropout
        return None

    def _clear_padding(self, array: Array, inputs: Inputs, lead: tuple[int, ...]) -> None:
        if inputs.lengths is not None:
            self._time_first(array, lead)[inputs.padding()] = 0

    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        embedding: Embedding = None,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> tuple[Array, State]:
        """Run the layer over a sequence: inference.

        Parameters
        ----------
        x : (T, B, I) array, or (B, T, I) with `batch_first`, or (T, I)
            Of the layer's dtype.  T = 0 and B = 0 are legal.
        state : (h_0, c_0), or h_0 of cells that have no cell state, optional
            (L*D, B, Hout) and (L*D, B, H), or (L*D, Hout) and (L*D, H) without a batch, where Hout
            is H, or the size of a projection.  Default: zeros.
        embedding : (V, I) array or "one-hot", optional
            With it, `x` has integers from 0 to V-1, the numbers of its rows, and no last axis:
            as ``lstm(embedding[x])``, to the bit, but each row is multiplied with the weights
            once and not each time it occurs.  "one-hot" stands for the unit matrix, V = I.
        lengths : (B,) array of int, optional
            Steps of each row, 0 to T, in any order.  What lies beyond is neither read nor computed:
            `y` is 0 there, final states are those after a row's own last step, and the reverse
            direction begins there.  A row without steps keeps its initial state.
        reset : (T, B) array of bool, or (B, T) with `batch_first`, or (T,), optional
            Where it is true the state is zero before the step: step t is the first one of an
            episode, and x[t] is read into an empty state.  No state crosses the border between
            t-1 and t in the reverse direction either.

        Returns
        -------
        y : (T, B, D*Hout) array, or (B, T, D*Hout), or (T, D*Hout), as `x`
            The hidden states of the last layer.
        (h_n, c_n), or h_n : arrays like `state`
            Hidden and cell states of every layer and direction after its last step.

        Raises
        ------
        TypeError, ValueError
            If `x` or `state` have the wrong dtype or shape.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(2, 3, batch_first=True, bidirectional=True, seed=0)
        >>> y, (h_n, c_n) = lstm(np.ones((5, 7, 2), np.float32))
        >>> y.shape, h_n.shape
        ((5, 7, 6), (2, 5, 3))
        """
        y, state_n, _ = self._run(x, state, embedding, lengths, reset, training=False)
        return y, state_n

    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        embedding: Embedding = None,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        checkpoint_every: CheckpointEvery = None,
    ) -> tuple[Array, State, Tape]:
        """Run the layer over a sequence, with dropout, and keep what `backward` needs: training.

        Parameters
        ----------
        x, state, embedding, lengths, reset
            As for calling the layer.  Gradients are 0 beyond the end of a row, and do not pass
            into the episode before.
        checkpoint_every : int or "auto", optional
            Keep only the states before every so many steps, and compute the rest again in
            `backward`: a third more time, and memory that does not grow with T but with
            T / checkpoint_every + checkpoint_every; "auto" is about the square root of T.
            Rounded up to a multiple of 256 / B steps, so that gradients keep their bits.
            Layers of one direction only.

        Returns
        -------
        y, (h_n, c_n) or h_n
            As of calling the layer.
        tape : Tape
            For `backward`.

        Raises
        ------
        TypeError, ValueError
            As calling the layer does.

        Examples
        --------
        Truncated back-propagation through time: pass the state on from chunk to chunk.

        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(2, 3, seed=0)
        >>> state = None
        >>> for chunk in np.ones((4, 5, 7, 2), np.float32):
        ...     y, state, tape = lstm.forward(chunk, state)
        ...     dx, dstate, grads = lstm.backward(tape, np.ones_like(y))
        >>> dx.shape, grads["weight_hh_l0"].shape
        ((5, 7, 2), (12, 3))
        """
        y, state_n, tape = self._run(x, state, embedding, lengths, reset, True, checkpoint_every)
        assert tape is not None
        return y, state_n, tape

    def backward(
        self,
        tape: Tape,
        dy: ArrayLike,
        dstate: StateLike | None = None,
        *,
        input_gradient: bool = True,
    ) -> tuple[Array | None, State, Gradients]:
        """Back-propagate a gradient through time.

        Parameters
        ----------
        tape : Tape
            Of a call of `forward`, since which the parameters have not changed.  It may be used
            again.
        dy : array like the `y` of that call
            Gradient of the loss with respect to `y`.
        dstate : (dh_n, dc_n), or dh_n, optional
            Gradients with respect to the final states.  Default: zeros.
        input_gradient : bool, default True
            Whether to compute the gradient of the input.

        Returns
        -------
        dx : array like `x`, or None
            Gradient with respect to `x`; with an embedding, with respect to that.  None if it
            is not wanted, or if the embedding is "one-hot".
        (dh_0, dc_0), or dh_0 : arrays like the states
            Gradients with respect to the initial states.
        grads : Gradients
            Gradients with respect to the parameters, with their names and flat layout.

        Raises
        ------
        TypeError, ValueError
            If `tape` is of another layer or older than the parameters, or if `dy` or `dstate`
            have the wrong dtype or shape.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(1, 1, dtype="float64", seed=0)
        >>> x = np.ones((3, 1))
        >>> y, state, tape = lstm.forward(x)
        >>> dx, dstate, grads = lstm.backward(tape, np.ones_like(y))
        >>> step = 1e-6
        >>> slope = (lstm(x + step)[0].sum() - lstm(x - step)[0].sum()) / (2 * step)
        >>> bool(abs(dx.sum() - slope) < 1e-8)
        True
        """
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected a tape of forward, got {type(tape).__name__}")
        if tape._layer is not self:
            raise ValueError("tape: expected a tape of this layer, got one of another layer")
        if tape._packed.version != self.parameters.version:
            raise ValueError(
                "tape: expected one made with the present parameters, got an older one"
            )
        dy = _validation.like(dy, "dy", tape._y_shape, self.dtype)
        lead = tape._y_shape[:-1]
        dstates = self._state_in(dstate, "dstate", lead, gradient=True)
        dx = dx_steps = None
        inputs = tape._inputs
        if input_gradient and inputs.tokens is None:
            dx = np.empty((*lead, self.input_size), self.dtype)
            self._clear_padding(dx, inputs, lead)
            dx_steps = self._time_first(dx, lead)
        elif input_gradient and inputs.x is not None:
            dx = np.zeros((len(inputs.x), self.input_size), self.dtype)
            dx_steps = dx[:, None]
        grads = Gradients(self.parameters._shapes, np.zeros_like(self.parameters.flat))
        if dy.size:
            with tape._turn():
                tape._back_propagate(self._time_first(dy, lead), dstates, dx_steps, grads.flat)
        return dx, self._state_out(dstates, lead, gradient=True), grads

    def trace(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        embedding: Embedding = None,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> list[TraceKind]:
        """Look inside: gates and states of every layer, direction and step.

        Parameters
        ----------
        x, state, embedding, lengths, reset
            As for calling the layer.

        Returns
        -------
        list of LSTMTrace, GRUTrace or RNNTrace
            One for each layer and direction, in the order of the states: layer l, direction d
            at l*D + d.  The same bits as a call computes; 0 beyond the end of a row.

        Raises
        ------
        TypeError, ValueError
            As calling the layer does.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(2, 3, num_layers=2, seed=0)
        >>> first, second = lstm.trace(np.ones((5, 7, 2), np.float32))
        >>> second._fields
        ('input', 'forget', 'candidate', 'output', 'cell', 'hidden')
        >>> second.forget.shape
        (5, 7, 3)
        """
        inputs, lead = self._inputs(x, embedding, lengths, reset)
        states = self._state_in(state, "state", lead)
        y = np.empty((*lead, self._directions * self._output_size), self.dtype)
        tape = Tape(self, inputs, y.shape, None, None, backward=False)
        if y.size:
            tape._record(self._time_first(y, lead), states)
        return [
            self._TRACE(
                *(self._as_given(tape._read(layer, d, what), lead) for what in self._PLACES)
            )
            for layer in range(self.num_layers)
            for d in range(self._directions)
        ]

    def _as_given(self, array: Array, lead: tuple[int, ...]) -> Array:
        """A sequence (T, B, ...) as the user has it."""
        if len(lead) == 1:
            return array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first else array

    def stream(self, batch_size: int = 1, state: StateLike | None = None) -> stream.Stream:
        """Start a stream: the layer step by step, with its state kept in between.

        Parameters
        ----------
        batch_size : int, default 1
            Rows that advance together, B.
        state : (h_0, c_0), or h_0, optional
            (L, B, Hout) and (L, B, H).  Default: zeros.

        Returns
        -------
        Stream
            Any number of them may share the layer.

        Raises
        ------
        TypeError, ValueError
            If the layer is bidirectional, or an argument has the wrong type or shape.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(2, 3, seed=0)
        >>> x = np.ones((5, 2), np.float32)
        >>> stream = lstm.stream()
        >>> steps = np.stack([stream.step(x_t) for x_t in x])
        >>> bool((steps == lstm(x)[0]).all())
        True
        """
        batch = _validation.integer(batch_size, "batch_size", 1)
        _validation.check_size(batch * self.num_layers * self.hidden_size, self.dtype, "batch_size")
        return stream.Stream(self, *self._states.to_core(state, "state", (self.num_layers, batch)))
