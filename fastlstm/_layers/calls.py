"""Calls of a layer, and streams and traces.  All arithmetic over time is below, in C."""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation
from fastlstm._core import memory, sequence, stream
from fastlstm._layers.config import Arguments
from fastlstm._layers.inputs import Embedding, Inputs, read_inputs
from fastlstm._layers.tape import CheckpointEvery, Dropout, Tape, check_segments
from fastlstm._layers.trace import Trace, tape_fields
from fastlstm._layers.weights import Weights
from fastlstm._shards import Shards

Array = NDArray[Any]
State = TypeVar("State")
StateLike = TypeVar("StateLike")
TraceKind = TypeVar("TraceKind", bound=Trace)


class Calls(Weights, Generic[State, StateLike, TraceKind]):
    """A layer for inference, and what training has in common with it."""

    _TRACE: type[TraceKind]

    def _set_up(self, arguments: Arguments) -> None:
        """What is left to do for the constructor of a cell that has set its own options."""
        self._configure(arguments)
        seed = arguments.seed
        if seed is not None:
            seed = _validation.integer(seed, "seed", 0)
        self._dropout_keys = np.random.default_rng(seed)
        self._initialize(self._dropout_keys, arguments.forget_bias)
        self._prepare()

    def _state_in(
        self, value: Any, name: str, inputs: Inputs, *, gradient: bool = False
    ) -> list[Array]:
        """New arrays (L*D, B, units) from a state as the user has it, like the input of a call."""
        cells = self.num_layers * self._directions
        if inputs.is_batch:
            return self._states.to_core(value, name, (cells, inputs.size[1]), gradient=gradient)
        arrays = self._states.to_core(value, name, (cells,), gradient=gradient)
        return [array[:, None] for array in arrays]

    def _state_out(self, arrays: list[Array], inputs: Inputs, *, gradient: bool = False) -> State:
        if not inputs.is_batch:
            arrays = [array[:, 0] for array in arrays]
        state: State = self._states.from_core(arrays, gradient=gradient)
        return state

    def _run(
        self,
        x: ArrayLike,
        state: StateLike | None,
        embedding: Embedding,
        lengths: ArrayLike | None,
        reset: ArrayLike | None,
        training: bool,
        checkpoint_every: CheckpointEvery = None,
        shards: Shards | int | None = None,
    ) -> tuple[Array, State, Tape[Any] | None]:
        inputs = read_inputs(self, x, embedding, lengths, reset)
        own = _shards_of(shards, inputs)
        states = self._state_in(state, "state", inputs)
        y_shape = (*inputs.time_batch, self._directions * self._output_size)
        _validation.check_size(math.prod(y_shape), self.dtype, "x")
        tape: Tape[Any] | None = None
        if training:
            check_segments(checkpoint_every, self.bidirectional)  # before anything is drawn
            dropout = self._draw_dropout(own)
            tape = Tape(self, inputs, y_shape, dropout, checkpoint_every, own, backward=True)
        y = memory.empty(y_shape, self.dtype)
        inputs.clear_padding(y)
        if y.size and tape:
            tape._record(inputs.time_first(y), states)
        elif y.size:
            threads = self._num_threads()
            y_steps, packed = inputs.time_first(y), self._packed_weights()
            sequence.forward(
                packed, self._scratch, *inputs.part(), y_steps, states, None, None, 0, threads
            )
        return y, self._state_out(states, inputs), tape

    def _draw_dropout(self, shards: Shards | None) -> Dropout | None:
        """The random choices of one call of `forward`."""
        rates = self._dropout_rates()
        if rates is None:
            return None
        part = (shards.batch, shards.rows.start) if shards else (0, 0)
        return Dropout(int(self._dropout_keys.integers(1 << 63)), *rates, *part)

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
        state : (h_0, c_0), or h_0 of cells that have no cell state, or four of an `SLSTM`, optional
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
        list of LSTMTrace, GRUTrace, RNNTrace or SLSTMTrace
            One for each layer and direction, in the order of the states: layer l, direction d
            at l*D + d.  The same bits as a call computes; 0 beyond the end of a row.  Its arrays
            are laid out like `y`, and its `batch_first` tells how.

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
        >>> second
        LSTMTrace(steps=5, rows=7, units=3, float32)
        """
        inputs = read_inputs(self, x, embedding, lengths, reset)
        states = self._state_in(state, "state", inputs)
        y = memory.empty((*inputs.time_batch, self._directions * self._output_size), self.dtype)
        tape: Tape[Any] = Tape(self, inputs, y.shape, None, None, backward=False)
        if y.size:
            tape._record(inputs.time_first(y), states)
        fields = tape_fields(self._TRACE)
        return [
            self._TRACE(
                *(inputs.sequence_out(tape._read(layer, d, field)) for field in fields)
            )._laid_out(inputs.is_batch and inputs.batch_first)
            for layer in range(self.num_layers)
            for d in range(self._directions)
        ]

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


def _shards_of(value: Shards | int | None, inputs: Inputs) -> Shards | None:
    """Those of the rows of a call."""
    if value is None:
        return None
    if not inputs.is_batch:
        raise ValueError("shards: expected x with an axis of rows, got none")
    rows = inputs.size[1]
    shards = value if isinstance(value, Shards) else Shards(rows, value)
    own = shards.rows.stop - shards.rows.start
    if own != rows:
        raise ValueError(f"shards: expected those of {rows} rows, got {shards!r} with {own}")
    return shards
