"""What the optimizers share: checks, steps, saved state."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm import _validation
from fastlstm._core.threads import get_num_threads
from fastlstm._parameters import Array, Gradients, Parameters
from fastlstm._validation import non_negative


class Optimizer:
    """Base of the optimizers.

    A subclass names its state vectors, and updates them and the weights in `_update`.
    """

    def __init__(
        self,
        parameters: Parameters | Sequence[Parameters],
        lr: float,
        weight_decay: float,
        options: Mapping[str, Any],
        vectors: Sequence[str],
    ) -> None:
        self._parameters = _as_parameters(parameters)
        self.lr = lr
        self._weight_decay = non_negative("weight_decay", weight_decay)
        self._options = {**options, "weight_decay": self._weight_decay}
        self._steps = 0
        self._state = [{name: np.zeros_like(p.flat) for name in vectors} for p in self._parameters]

    @property
    def lr(self) -> float:
        """The learning rate of the next step.  Assign to it to follow a schedule."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = non_negative("lr", value)

    def step(self, grads: Gradients | Sequence[Gradients]) -> None:
        """Update the parameters in place.

        Parameters
        ----------
        grads : Gradients or sequence of Gradients
            The gradients of the parameters given to the constructor, in the same order.
            They are not changed.

        Raises
        ------
        TypeError, ValueError
            The gradients are not those of the parameters: nothing has been changed then.
        """
        flats = self._check(grads)
        threads = get_num_threads()
        self._steps += 1
        for parameters, grad, state in zip(self._parameters, flats, self._state, strict=True):
            with parameters.lock:  # as `update` does, which takes a microsecond more
                try:
                    self._update(parameters._storage, grad, state, threads)
                finally:
                    parameters.renew()

    def _update(self, p: Array, g: Array, state: dict[str, Array], threads: int) -> None:
        """Update the weights `p` and the state, in place; `_steps` counts this step."""
        raise NotImplementedError

    def _check(self, grads: Gradients | Sequence[Gradients]) -> list[Array]:
        given = [grads] if isinstance(grads, Gradients) else list(grads)
        if len(given) != len(self._parameters):
            raise ValueError(f"grads: expected {len(self._parameters)} Gradients, got {len(given)}")
        for grad, parameters in zip(given, self._parameters, strict=True):
            if not isinstance(grad, Gradients):
                raise TypeError(f"grads: expected Gradients, got {type(grad).__name__}")
            ours = [(name, parameters[name].shape) for name in parameters]
            theirs = [(name, grad[name].shape) for name in grad]
            if ours != theirs:
                raise ValueError(
                    "grads: expected the gradients of the parameters given to the constructor, "
                    f"{_difference(ours, theirs)}"
                )
            if grad.flat.dtype != parameters.flat.dtype:
                raise TypeError(f"grads: expected {parameters.flat.dtype}, got {grad.flat.dtype}")
        return [np.ascontiguousarray(grad.flat) for grad in given]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, copied.

        Returns
        -------
        dict
            ``optimizer``: the name of the class, ``steps``, ``lr``, ``options``: the other
            arguments of the constructor, ``vectors``: per `Parameters`, a dict of arrays.
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
                f"state: expected vectors of {len(loaded._state)} Parameters, "
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

    def __repr__(self) -> str:
        weights = sum(parameters.size for parameters in self._parameters)
        defaults = inspect.signature(type(self)).parameters
        chosen = [f"{k}={v!r}" for k, v in self._options.items() if v != defaults[k].default]
        parts = [f"{weights} weights", f"lr={self._lr!r}", *chosen, f"steps={self._steps}"]
        return f"{type(self).__name__}({', '.join(parts)})"


def _as_parameters(parameters: Parameters | Sequence[Parameters]) -> list[Parameters]:
    given = parameters if isinstance(parameters, list | tuple) else [parameters]
    for item in given:
        if not isinstance(item, Parameters):
            raise TypeError(
                "parameters: expected Parameters, such as lstm.parameters, or a sequence of "
                f"them, got {type(item).__name__}"
            )
    if len({id(item) for item in given}) != len(given) or not given:
        raise ValueError(f"parameters: expected different Parameters, got {len(given)} of them")
    return list(given)


def _difference(ours: list[tuple[str, Any]], theirs: list[tuple[str, Any]]) -> str:
    for (name, shape), (other, other_shape) in zip(ours, theirs, strict=False):
        if (name, shape) != (other, other_shape):
            return f"with {name} {shape}, got {other} {other_shape}"
    return f"{len(ours)} arrays, got {len(theirs)}"
