"""A language model as the training loop sees it: chunks of a text, whose rows go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._parameters import Array, Gradients, Parameters
from fastlstm._shards import ShardGradients, Shards
from fastlstm.distributed import Group
from fastlstm.models._history import History
from fastlstm.training._batches import Codes, TrainingRows
from fastlstm.training._task import Task


class Model(Protocol):
    """What is needed of a language model."""

    @property
    def trainable(self) -> list[Parameters]:
        """What the optimizer updates."""

    @property
    def _generators(self) -> Sequence[np.random.Generator]:
        """What draws random choices in `gradients` and `shard_gradients`."""

    def _zero_state(self, rows: int) -> tuple[Array, ...]:
        """The state before a text, [L, rows, H] each."""

    def gradients(
        self, inputs: Any, targets: Any, state: Any
    ) -> tuple[float, list[Gradients], Any]:
        """The loss of a chunk, gradients in the order of `trainable`, and the state after it."""

    def shard_gradients(
        self, inputs: Any, targets: Any, state: Any, shards: Shards
    ) -> tuple[Array, list[ShardGradients], Any]:
        """The same of each shard of this process; the losses are sums over its characters."""


@dataclass(frozen=True)
class Reading:
    """How a text is read: rows, steps of a chunk, and when rows begin anew."""

    batch_size: int
    chunk: int
    reset_every: int | None

    @classmethod
    def of(cls, batch_size: int, chunk: int, reset_every: int | None) -> Self:
        """As arguments of `fit` ask for.

        Raises
        ------
        TypeError, ValueError
            An argument cannot be meant.
        """
        batch_size = _validation.integer(batch_size, "batch_size", 1)
        chunk = _validation.integer(chunk, "chunk", 1)
        _validation.check_size(batch_size * chunk, np.dtype(np.intp), "batch_size, chunk")
        if reset_every is not None:
            reset_every = _validation.integer(reset_every, "reset_every", 1)
        return cls(batch_size, chunk, reset_every)

    @property
    def characters(self) -> int:
        """Read in a step."""
        return self.batch_size * self.chunk

    def resets(self, step: int) -> NDArray[np.bool_]:
        """Rows of the batch whose state is zero before this step: each in its turn."""
        if self.reset_every is None:
            return np.zeros(self.batch_size, np.bool_)
        rows = np.arange(self.batch_size) % self.reset_every
        return np.asarray(rows == step % self.reset_every)


class TextTask(Task):
    """Truncated BPTT: the state of each row is carried from chunk to chunk, gradients are not.

    Parameters
    ----------
    model : LanguageModel
    codes : (n,) array
        The text.
    reading : Reading
    shards : Shards or None
        Those of this process.
    """

    def __init__(self, model: Model, codes: Codes, reading: Reading, shards: Shards | None) -> None:
        self.trainable, self.generators = model.trainable, model._generators
        self.size = reading.characters
        self._model, self._reading, self._shards = model, reading, shards
        self._own = slice(None) if shards is None else shards.rows
        self._rows = TrainingRows(codes, reading.batch_size, reading.chunk, self._own)
        self._state: Any = None  # of the own rows

    def gradients(self, step: int) -> tuple[Any, Any]:
        rows = self._rows.next()
        for state in self._state or ():
            state[:, self._reading.resets(step)[self._own]] = 0
        if self._shards is None:
            loss, grads, self._state = self._model.gradients(*rows, self._state)
            return loss, grads
        model, shards = self._model, self._shards
        losses, parts, self._state = model.shard_gradients(*rows, self._state, shards)
        return losses, parts

    def join(self, group: Group, loss: Any, grads: Any) -> tuple[float, Any]:
        if self._shards is None:
            return loss, grads
        return group.total(loss) / self.size, group.sum(grads)

    def progress(self, step: int) -> int:
        return step * self.size

    def new_history(self) -> History:
        return History()

    @property
    def read(self) -> int:  # type: ignore[override]
        return self._rows.read

    def first_state(self) -> tuple[Array, ...]:
        return self._model._zero_state(self._reading.batch_size)

    def whole_state(self, group: Group | None) -> tuple[Array, ...]:
        if group is None or group.size == 1:
            state: tuple[Array, ...] = self._state
            return state
        parts = zip(*group.gather(self._state), strict=True)
        return tuple(np.concatenate(arrays, axis=1) for arrays in parts)

    def go_on(self, read: int, state: tuple[Array, ...]) -> None:
        self._rows.read = read
        self._state = tuple(array[:, self._own] for array in state)
