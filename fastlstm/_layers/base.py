"""What all layers have in common."""

from __future__ import annotations

from typing import Any, Generic, overload

from numpy.typing import ArrayLike

from fastlstm import _validation
from fastlstm._core import memory
from fastlstm._layers.calls import Array, Calls, State, StateLike, TraceKind
from fastlstm._layers.inputs import Embedding
from fastlstm._layers.tape import CheckpointEvery, G, Tape
from fastlstm._parameters import Gradients
from fastlstm._shards import ShardGradients, Shards


class Layer(Calls[State, StateLike, TraceKind], Generic[State, StateLike, TraceKind]):
    """A stack of recurrent layers of one cell; the base of `LSTM`, `GRU`, `RNN`, `SLSTM`."""

    @overload
    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = ...,
        *,
        embedding: Embedding = ...,
        lengths: ArrayLike | None = ...,
        reset: ArrayLike | None = ...,
        checkpoint_every: CheckpointEvery = ...,
        shards: None = ...,
    ) -> tuple[Array, State, Tape[Gradients]]: ...
    @overload
    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = ...,
        *,
        embedding: Embedding = ...,
        lengths: ArrayLike | None = ...,
        reset: ArrayLike | None = ...,
        checkpoint_every: CheckpointEvery = ...,
        shards: Shards | int,
    ) -> tuple[Array, State, Tape[ShardGradients]]: ...
    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        embedding: Embedding = None,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        checkpoint_every: CheckpointEvery = None,
        shards: Shards | int | None = None,
    ) -> tuple[Array, State, Tape[Any]]:
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
        shards : int or Shards, optional
            The rows are cut into so many shards, a power of two, and `backward` returns the
            gradients of each: bits that do not depend on the other rows of the call.  Their sum in
            a fixed order, `fastlstm.distributed.Group.sum`, is then the same for any number of
            processes.  Of `fastlstm.distributed.Group.shards`: those of this process, of which `x`
            has the rows; dropout and zoneout choose as in a call of the whole batch.

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
        y, state_n, tape = self._run(
            x, state, embedding, lengths, reset, True, checkpoint_every, shards
        )
        assert tape is not None
        return y, state_n, tape

    def backward(
        self,
        tape: Tape[G],
        dy: ArrayLike,
        dstate: StateLike | None = None,
        *,
        input_gradient: bool = True,
    ) -> tuple[Array | None, State, G]:
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
            Gradient with respect to `x`; with an embedding, with respect to that, one for each
            shard if there are any.  None if it is not wanted, or if the embedding is "one-hot".
        (dh_0, dc_0), or dh_0 : arrays like the states
            Gradients with respect to the initial states.
        grads : Gradients, or ShardGradients
            Gradients with respect to the parameters, with their names and flat layout; a sequence
            of these if `forward` was given shards.

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
        shards, dx, dx_steps = tape._shards, None, None
        parts = len(shards.starts) - 1 if shards else 1
        if input_gradient and inputs.tokens is None:
            dx = memory.empty((*inputs.time_batch, self.input_size), self.dtype)
            inputs.clear_padding(dx)
            dx_steps = inputs.time_first(dx)
        elif input_gradient and inputs.x is not None:
            dx = memory.zeros((parts * len(inputs.x), self.input_size), self.dtype)
            dx_steps = dx[:, None]
            dx = dx.reshape(parts, len(inputs.x), self.input_size) if shards else dx
        flat, grads = tape._new_gradients()
        if dy.size:
            with tape._turn():
                tape._back_propagate(inputs.time_first(dy), dstates, dx_steps, flat)
        return dx, self._state_out(dstates, inputs, gradient=True), grads
