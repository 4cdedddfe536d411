"""What the optimizers share: checks, steps, saved state."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm import _validation
from fastlstm._core.threads import get_num_threads
from fastlstm._parameters import Array
from fastlstm._validation import non_negative
from fastlstm.optim._targets import Target, Trainable, items_of, targets_of


class Optimizer:
    """Base of the optimizers.

    A subclass names its state vectors, and updates them and the weights in `_update`.
    """

    def __init__(
        self,
        parameters: Trainable,
        lr: float,
        weight_decay: float,
        options: Mapping[str, Any],
        vectors: Sequence[str],
    ) -> None:
        self._parameters = parameters
        self._targets = targets_of(parameters)
        self.lr = lr
        self._weight_decay = non_negative("weight_decay", weight_decay)
        self._options = {**options, "weight_decay": self._weight_decay}
        self._steps = 0
        weights = [vector for target in self._targets for vector in target.vectors().values()]
        self._size = sum(vector.size for vector in weights)
        self._state = [{name: np.zeros_like(vector) for name in vectors} for vector in weights]

    @property
    def lr(self) -> float:
        """The learning rate of the next step.  Assign to it to follow a schedule."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = non_negative("lr", value)

    def step(self, grads: Trainable) -> None:
        """Update the parameters in place.

        Parameters
        ----------
        grads : Gradients, mapping of str to array, array, or sequence of these
            The gradients of what was given to the constructor, in the same order: of
            `Parameters` and of mappings with their names, in any order.  They are not changed.

        Raises
        ------
        TypeError, ValueError
            The gradients are not those of the parameters, in names, shapes or dtype; or an array
            is read-only by now, or was replaced in its mapping: nothing has been changed then.
        """
        work = self._checked(grads)
        threads = get_num_threads()
        states = iter(self._state)
        self._steps += 1
        for target, vectors, flats in work:
            with target.lock:  # as `Parameters.update` does, which takes a microsecond more
                try:
                    for vector, flat in zip(vectors, flats, strict=True):
                        self._update(vector, flat, next(states), threads)
                finally:
                    target.renew()

    def _update(self, p: Array, g: Array, state: dict[str, Array], threads: int) -> None:
        """Update the weights `p` and the state, in place; `_steps` counts this step."""
        raise NotImplementedError

    def _checked(self, grads: Trainable) -> list[tuple[Target, Iterable[Array], list[Array]]]:
        """Targets, the vectors to be written, and their gradients."""
        given = items_of(grads, "grads")
        if len(given) != len(self._targets):
            raise ValueError(
                f"grads: expected those of {len(self._targets)} parameters, got {len(given)}"
            )
        return [
            (target, target.vectors().values(), target.gradients(item, name))
            for target, (name, item) in zip(self._targets, given, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, copied.

        Returns
        -------
        dict
            ``optimizer``: the name of the class, ``steps``, ``lr``, ``options``: the other
            arguments of the constructor, ``vectors``: per `Parameters` or plain array, a dict of
            vectors.
        """
        return {
            "optimizer": type(self).__name__,
            "steps": self._steps,
            "lr": self._lr,
            "options": dict(self._options),
            "vectors": [{k: v.copy() for k, v in state.items()} for state in self._state],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`, of the same kind of optimizer for the same sizes.

        The learning rate and the options are taken from it too, as in torch.

        Raises
        ------
        ValueError
            It does not fit this optimizer: nothing has been changed then.
        """
        expected = {"optimizer", "steps", "lr", "options", "vectors"}
        if set(state) != expected:
            raise ValueError(f"state: expected the keys {sorted(expected)}, got {sorted(state)}")
        if state["optimizer"] != type(self).__name__:
            raise ValueError(
                f"state: expected that of {type(self).__name__}, got {state['optimizer']}"
            )
        # A new optimizer checks the options; this one is left alone until all of it is good.
        make: Any = type(self)
        loaded = make(self._parameters, state["lr"], **state["options"])
        if len(state["vectors"]) != len(loaded._state):
            raise ValueError(
                f"state: expected vectors of {len(loaded._state)} parameters, "
                f"got {len(state['vectors'])}"
            )
        for ours, theirs in zip(loaded._state, state["vectors"], strict=True):
            if set(ours) != set(theirs):
                raise ValueError(f"state: expected vectors {sorted(ours)}, got {sorted(theirs)}")
            for name, vector in ours.items():
                if np.shape(theirs[name]) != vector.shape:
                    raise ValueError(
                        f"state: {name}: expected shape {vector.shape}, "
                        f"got {np.shape(theirs[name])}"
                    )
                vector[...] = theirs[name]
        try:
            loaded._steps = _validation.integer(state["steps"], "state: steps", 0)
        except TypeError as error:
            raise ValueError(str(error)) from None
        self.__dict__.update(loaded.__dict__)

    @property
    def _chosen(self) -> list[str]:
        """The options that are not the defaults, as they are written in a call."""
        defaults = inspect.signature(type(self)).parameters
        return [f"{k}={v!r}" for k, v in self._options.items() if v != defaults[k].default]

    def __repr__(self) -> str:
        parts = [f"{self._size} weights", f"lr={self._lr!r}", *self._chosen, f"steps={self._steps}"]
        return f"{type(self).__name__}({', '.join(parts)})"
