"""What a training run needs of what it trains: batches, their gradients, where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm._parameters import Array, Parameters
from fastlstm.training._history import History

if TYPE_CHECKING:
    from fastlstm.distributed import Group


class Task:
    """Base of what is trained, and of what it is trained on.

    Attributes
    ----------
    trainable : sequence of Parameters or array
        What the optimizer updates.
    generators : sequence of Generator
        What draws random choices, but for those of processes that begin differently.
    advice : str
        What to do about a loss that is not finite.
    size : int
        How many examples the last batch had, in all processes.
    read : int
        Where in the data it stands; for checkpoints.
    """

    trainable: Sequence[Parameters | Array]
    generators: Sequence[np.random.Generator] = ()
    advice = "try a smaller learning rate"
    size = 1
    read = 0

    def gradients(self, step: int) -> tuple[Any, Any]:
        """Losses and gradients of the next batch, after so many steps: of this process."""
        raise NotImplementedError

    def join(self, group: Group, loss: Any, grads: Any) -> tuple[float, Any]:
        """The loss and the gradients of the whole batch, from those of all processes."""
        return loss, grads

    def progress(self, step: int) -> int:
        """What a record says of the data: whole epochs, or characters."""
        raise NotImplementedError

    def new_history(self) -> History:
        """What the run returns."""
        return History()

    def first_state(self) -> tuple[Array, ...]:
        """Arrays like `whole_state`, for comparison."""
        return self.whole_state(None)

    def whole_state(self, group: Group | None) -> tuple[Array, ...]:
        """What a checkpoint has to know beside weights and `read`, of all processes."""
        return ()

    def go_on(self, read: int, state: tuple[Array, ...]) -> None:
        """Stand where a checkpoint was written."""
        self.read = read

    def weights(self) -> list[Array]:
        """A vector for each of `trainable`."""
        return [
            item.flat if isinstance(item, Parameters) else item.ravel() for item in self.trainable
        ]

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Write vectors like those of `weights`."""
        for item, flat in zip(self.trainable, weights, strict=True):
            if isinstance(item, Parameters):
                item.flat = flat
            else:
                item[...] = flat.reshape(item.shape)
