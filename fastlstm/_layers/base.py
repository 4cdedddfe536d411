"""What all layers have in common: conversion, calls.  All arithmetic over time is below, in C."""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation
from fastlstm._core import memory, sequence, stream
from fastlstm._layers.config import Arguments
from fastlstm._layers.inputs import Embedding, Inputs, read_inputs
from fastlstm._layers.tape import CheckpointEvery, Dropout, Tape
from fastlstm._layers.trace import Trace, tape_fields
from fastlstm._layers.weights import Weights
from fastlstm._parameters import Gradients

Array = NDArray[Any]
State = TypeVar("State")
StateLike = TypeVar("StateLike")
TraceKind = TypeVar("TraceKind", bound=Trace)


class Layer(Weights, Generic[State, StateLike, TraceKind]):
    """A stack of recurrent layers of one cell; the base of `LSTM`, `GRU` and `RNN`."""

    _TRACE: type[TraceKind]

    def _set_up(self, arguments: Arguments) -> None:
        """What is left to do for the constructor of a cell that has set its own options."""
        self._configure(arguments)
        seed = arguments.seed
        if seed is not None:
            seed = _validation.integer(seed, "seed", 0)
        self._dropout_keys = np.random.default_rng(seed)
        self._initialize(self._dropout_keys)
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
    ) -> tuple[Array, State, Tape | None]:
        inputs = read_inputs(self, x, embedding, lengths, reset)
        states = self._state_in(state, "state", inputs)
        y_shape = (*inputs.time_batch, self._directions * self._output_size)
        _validation.check_size(math.prod(y_shape), self.dtype, "x")
        tape = None
        if training:
            if checkpoint_every is not None and self.bidirectional:
                raise ValueError(
                    "checkpoint_every: expected a layer of one direction, got a bidirectional one"
                )
            dropout = self._draw_dropout()
            tape = Tape(self, inputs, y_shape, dropout, checkpoint_every, backward=True)
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

    def _draw_dropout(self) -> Dropout | None:
        """The random choices of one call of `forward`."""
        rates = self._dropout_rates()
        return (int(self._dropout_keys.integers(1 << 63)), *rates) if rates else None

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
        self._check_trainable("forward")
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
        self._check_trainable("backward")
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected a tape of forward, got {type(tape).__name__}")
        if tape._layer is not self:
            raise ValueError("tape: expected a tape of this layer, got one of another layer")
        if tape._packed.version != self.parameters.version:
            raise ValueError(
                "tape: expected one made with the present parameters, got an older one"
            )
        dy = _validation.like(dy, "dy", tape._y_shape, self.dtype)
        inputs = tape._inputs
        dstates = self._state_in(dstate, "dstate", inputs, gradient=True)
        dx = dx_steps = None
        if input_gradient and inputs.tokens is None:
            dx = memory.empty((*inputs.time_batch, self.input_size), self.dtype)
            inputs.clear_padding(dx)
            dx_steps = inputs.time_first(dx)
        elif input_gradient and inputs.x is not None:
            dx = memory.zeros((len(inputs.x), self.input_size), self.dtype)
            dx_steps = dx[:, None]
        flat = memory.zeros(self.parameters.flat.shape, self.dtype)
        grads = Gradients(self.parameters._shapes, flat)
        if dy.size:
            with tape._turn():
                tape._back_propagate(inputs.time_first(dy), dstates, dx_steps, grads.flat)
        return dx, self._state_out(dstates, inputs, gradient=True), grads

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
        inputs = read_inputs(self, x, embedding, lengths, reset)
        states = self._state_in(state, "state", inputs)
        y = memory.empty((*inputs.time_batch, self._directions * self._output_size), self.dtype)
        tape = Tape(self, inputs, y.shape, None, None, backward=False)
        if y.size:
            tape._record(inputs.time_first(y), states)
        fields = tape_fields(self._TRACE)
        return [
            self._TRACE(*(inputs.sequence_out(tape._read(layer, d, field)) for field in fields))
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
