"""What backward needs of a forward call: kept, or recomputed from states kept now and then."""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager
from threading import RLock
from typing import Any, Generic, Literal, NamedTuple, NoReturn, TypeVar

from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._core import library, memory, sequence
from fastlstm._layers.executor import Executor
from fastlstm._layers.inputs import Inputs
from fastlstm._layers.trace import STATES
from fastlstm._parameters import Gradients
from fastlstm._shards import ShardGradients, Shards

Array = NDArray[Any]
G = TypeVar("G")  # Gradients, or ShardGradients
CheckpointEvery = int | Literal["auto"] | None


class Dropout(NamedTuple):
    """What a call draws at random; its rows may be a part of a batch, from `first_row` on."""

    key: int
    rate: float  # between layers
    recurrent: float
    batch: int = 0
    first_row: int = 0


class Tape(Generic[G]):
    """What `LSTM.backward` needs of a call of `LSTM.forward`.

    It holds the gates, the cell states and the hidden states of every step, or only of the steps
    of a segment: those of others are computed again, from the states before each segment.  It
    refers to `x` and `embedding`, which must not be changed before `backward` is called.

    Attributes
    ----------
    nbytes : int
        Memory it holds beside `x`: six values per step, row, layer, direction and hidden unit
        (four gates, cell state, hidden state; twice the hidden state under dropout), hidden
        units of the gates rounded up to whole vectors.  With `checkpoint_every`, so much for
        the steps of a segment, and two values per segment, row, layer and hidden unit, four of
        an `SLSTM`.  Functions other than the usual ones, `preact_clip` and `layer_norm` need four
        values more per step, row and hidden unit, projections and GRUs with
        ``reset_after=False`` one, an `SLSTM` three (two more states, and a slope).
    """

    def __init__(
        self,
        executor: Executor,
        inputs: Inputs,
        y_shape: tuple[int, ...],
        dropout: Dropout | None,
        checkpoint_every: CheckpointEvery,
        shards: Shards | None = None,
        *,
        backward: bool,
    ) -> None:
        self._layer: Any = executor  # for those who have only the tape: the layer it is of
        self._executor = executor
        self._inputs = inputs
        self._y_shape = y_shape
        self._dropout = dropout
        self._shards = shards
        self._packed = executor._packed_weights(backward=backward)
        steps, batch = inputs.size
        rows = max(shards.most_rows if shards else batch, 1)
        length = _segment_length(checkpoint_every, steps, self._packed.segment(rows))
        self._segments = [slice(a, min(a + length, steps)) for a in range(0, steps, length)]
        self._taped: int | None = None  # the segment whose steps the buffer holds
        self._fillings = 0  # of the buffer
        self._locks: dict[int, AbstractContextManager[Any]] = {}
        tape_nbytes = self._packed.tape_nbytes(min(length, steps), batch, dropout)
        kept = len(self._segments) if len(self._segments) > 1 else 0
        shape = (kept, executor.num_layers, batch)
        # Before each segment:
        self._states = [
            memory.empty((*shape, units), executor.dtype) for units in executor._states.units
        ]
        self.nbytes: int = tape_nbytes + sum([states.nbytes for states in self._states])
        self._buffer = library.Buffer(tape_nbytes)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a tape cannot be copied or pickled")  # each owns its buffer

    def __repr__(self) -> str:
        steps, rows = self._inputs.size
        parts = [f"steps={steps}", *([f"rows={rows}"] if self._inputs.is_batch else [])]
        if len(self._segments) > 1:
            parts.append(f"checkpoint_every={self._segments[0].stop}")
        if self._shards:
            parts.append(f"shards={len(self._shards.starts) - 1}")
        return f"Tape({self._layer!r}, {', '.join(parts)}, {self.nbytes / 1e6:.3g} MB)"

    def _turn(self) -> AbstractContextManager[Any]:
        """The lock of those who use the buffer, free in a forked child.

        Reentrant, so that a signal handler never waits for the call that it interrupts.
        """
        return self._locks.setdefault(os.getpid(), RLock())

    def _record(self, y: Array, states: list[Array]) -> None:
        """Run the layer: y and states are written, states hold the initial ones before."""
        last = len(self._segments) - 1
        for i in range(last + 1):
            if last:
                for kept, state in zip(self._states, states, strict=True):
                    kept[i] = state
            # Inference is faster, but draws nothing at random.
            taped = i == last or self._dropout is not None
            self._run(i, y[self._segments[i]], states, taped=taped)

    def _read(self, layer: int, direction: int, field: int) -> Array:
        """A slot of the gates or a state, as in `STATES`: (T, B, H), or (T, B, Hout) of h."""
        hidden = field == STATES["hidden"]
        size = self._executor._output_size if hidden else self._executor.hidden_size
        out = memory.zeros((*self._inputs.size, size), self._executor.dtype)
        rows = self._inputs.part()[2]
        sequence.read_tape(self._packed, self._buffer, rows, layer, direction, field, out)
        return out

    def _run(self, i: int, y: Array, states: list[Array], *, taped: bool) -> None:
        steps = self._segments[i]
        if taped:
            self._taped = None  # until all of it is there
            self._fillings += 1
        filling = self._fillings
        sequence.forward(
            self._packed,
            self._executor._scratch,
            *self._inputs.part(steps),
            y,
            states,
            self._buffer if taped else None,
            self._dropout,
            steps.start,
            self._executor._num_threads(),
        )
        self._check_filling(filling)
        if taped:
            self._taped = i

    def _check_filling(self, filling: int) -> None:
        if filling != self._fillings:
            raise RuntimeError("tape: a signal handler has used it in the middle of this call")

    def _back_propagate(
        self, dy: Array, dstates: list[Array], dx: Array | None, grads: Array
    ) -> None:
        """All segments, the last first.

        dstates hold the gradients of the final state, and of the initial one afterwards; dx is
        written, and gradients are added to grads.
        """
        last = len(self._segments) - 1
        units = 4 * self._executor.hidden_size
        boundary_dz = memory.empty((*dstates[0].shape[:2], units), dy.dtype) if last else None
        sums = self._zero_sums()
        for i in range(last, -1, -1):
            steps = self._segments[i]
            if self._taped != i:
                states = [kept[i].copy() for kept in self._states]
                y = memory.empty(dy[steps].shape, dy.dtype)
                self._run(i, y, states, taped=True)
            filling = self._fillings
            sequence.backward(
                self._packed,
                self._executor._scratch,
                *self._inputs.part(steps),
                self._buffer,
                self._dropout,
                steps.start,
                dy[steps],
                dstates,
                dx if dx is None or self._inputs.tokens is not None else dx[steps],
                grads,
                sums,
                boundary_dz,
                i > 0,
                i < last,
                self._executor._num_threads(),
                self._shards,
            )
            self._check_filling(filling)
        if sums is not None:
            self._executor._scratch.give(sums)

    def _new_gradients(self) -> tuple[Array, G]:
        """A flat vector of zeros, and the gradients that are views of it."""
        parameters = self._executor.parameters
        parts = len(self._shards.starts) - 1 if self._shards else 1
        flat = memory.zeros((parts * parameters.size,), self._executor.dtype)
        grads: Any = (
            Gradients(parameters._shapes, flat)
            if not self._shards
            else ShardGradients(
                parameters._shapes, flat.reshape(parts, parameters.size), self._shards
            )
        )
        return flat, grads

    def _zero_sums(self) -> library.Buffer | None:
        if self._inputs.tokens is None:
            return None
        x = self._inputs.x
        count = self._executor.input_size if x is None else len(x)
        parts = len(self._shards.starts) - 1 if self._shards else 1
        size = parts * self._packed.sums_nbytes(count)
        sums = self._executor._scratch.take(size)
        sums.clear(size)
        return sums


def check_segments(every: CheckpointEvery, is_bidirectional: bool) -> None:
    """Refuse what `forward` cannot be asked for."""
    if every is None:
        return
    if is_bidirectional:
        raise ValueError(
            "checkpoint_every: expected a layer of one direction, got a bidirectional one"
        )
    if not isinstance(every, str):
        _validation.integer(every, "checkpoint_every", 1)
    elif every != "auto":
        raise ValueError(f"checkpoint_every: expected an integer or 'auto', got {every!r}")


def _segment_length(every: CheckpointEvery, steps: int, unit: int) -> int:
    """Steps that are taped at a time: a whole number of units, so that sums do not change."""
    if every is None:
        return max(steps, 1)
    length = math.isqrt(max(steps - 1, 0)) + 1 if every == "auto" else int(every)
    return -(-length // unit) * unit
