"""What the layers share: parameters, layouts of arrays, and stacks of layers and directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastlstm.reference.cells import Array
from fastlstm.reference.options import Parameters

State = tuple[Array, ...]  # h and, for cells that have more, those in the order of `Stack.states`
StateLike = tuple[ArrayLike, ...] | None


class Tape(NamedTuple):
    """What `forward` keeps for `backward`."""

    saved: list[Any]  # layer by layer; in each the forward direction, then the reverse
    masks: list[Array]  # layer by layer
    y_shape: tuple[int, ...]


class Stack:
    """Layers and directions of one cell; a subclass says which."""

    gates: int
    states: ClassVar[tuple[str, ...]] = ("h", "c")
    proj_size = 0

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
        dtype: Any = "float64",
        seed: int | None = None,
    ) -> None:
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.suffixes = ("", "_reverse") if bidirectional else ("",)
        rng, bound = np.random.default_rng(seed), hidden_size**-0.5
        self.parameters = {name: rng.uniform(-bound, bound, s) for name, s in self._shapes()}

    @property
    def output_size(self) -> int:
        """Features of the output of one direction: P, or without projection H."""
        return self.proj_size or self.hidden_size

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for layer in range(self.num_layers):
            width = len(self.suffixes) * self.output_size if layer else self.input_size
            for suffix in self.suffixes:
                for kind, shape in self._cell_shapes(width):
                    yield f"{kind}_l{layer}{suffix}", shape

    def _cell_shapes(self, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The parameters of one layer and direction that reads `width` features."""
        G = self.gates * self.hidden_size
        yield "weight_ih", (G, width)
        yield "weight_hh", (G, self.output_size)
        if self.bias:
            yield "bias_ih", (G,)
            yield "bias_hh", (G,)

    def state_dict(self) -> Parameters:
        """Copies of the parameters, by name."""
        return {name: value.copy() for name, value in self.parameters.items()}

    def load_state_dict(self, mapping: Mapping[str, ArrayLike]) -> None:
        """Copy the parameters from `mapping`, which must have just these names and shapes."""
        if set(mapping) != set(self.parameters):
            raise ValueError(f"expected the names {list(self.parameters)}, got {list(mapping)}")
        self.parameters = {name: as_float64(name, mapping[name], s) for name, s in self._shapes()}

    def __call__(self, x: ArrayLike, state: StateLike = None) -> tuple[Array, Any]:
        """Run the sequence as in inference, and without keeping a tape."""
        y, state_n, _ = self._run(x, state, None, self._extras(x))
        return y, state_n

    def forward(
        self, x: ArrayLike, state: StateLike = None, *, masks: Sequence[ArrayLike] | None = None
    ) -> tuple[Array, Any, Tape]:
        """Run the sequence and keep what `backward` needs.

        Parameters
        ----------
        x : [T, B, I], with `batch_first` [B, T, I], or unbatched [T, I]
        state : (h_0, c_0), each [L*D, B, H], or [L*D, H] if unbatched; default zeros
        masks : what the output of every layer but the last is multiplied by, each [T, B, D*H]
            with time first: 0 where dropped, 1/(1 - dropout) elsewhere

        Returns
        -------
        y : [T, B, D*H], laid out like x
        (h_n, c_n) : laid out like state
        tape : for `backward`
        """
        return self._run(x, state, self._required(masks), self._extras(x))

    def backward(
        self, tape: Tape, dy: ArrayLike, dstate: StateLike = None
    ) -> tuple[Array, Any, Parameters]:
        """From the gradients of y and (h_n, c_n), those of x, (h_0, c_0) and the parameters.

        Returns
        -------
        dx : laid out like x
        (dh_0, dc_0) : laid out like state
        grads : dict with the names and shapes of `parameters`
        """
        unbatched = len(tape.y_shape) == 2
        dx = self._time_first(as_float64("dy", dy, tape.y_shape))
        names = [f"d{name}_n" for name in self.states]
        dstates = self._states(names, dstate, dx.shape[1], unbatched)
        grads = {}
        for layer in reversed(range(self.num_layers)):
            dy_both = np.split(dx * tape.masks[layer], len(self.suffixes), axis=-1)
            dx = np.zeros(1)
            for d, suffix in enumerate(self.suffixes):
                k, step = layer * len(self.suffixes) + d, -1 if suffix else 1
                dx_k, dstate_k, of_weights = self._cell_backward(
                    tape.saved[k], dy_both[d][::step], *(array[k] for array in dstates)
                )
                for array, found in zip(dstates, dstate_k, strict=True):
                    array[k] = found
                dx = dx + dx_k[::step]
                for kind, grad in of_weights.items():
                    grads[f"{kind}_l{layer}{suffix}"] = grad
        grads = {name: grads[name].copy() for name in self.parameters}
        return self._as_given(dx, unbatched), self._state_as_given(dstates, unbatched), grads

    def _cell_forward(
        self, x: Array, state: State, w: Parameters, extra: Any
    ) -> tuple[Array, State, Any]:
        raise NotImplementedError

    def _cell_backward(
        self, saved: Any, dy: Array, *dstate: Array
    ) -> tuple[Array, State, Parameters]:
        raise NotImplementedError

    def _run(
        self, x: ArrayLike, state: StateLike, masks: Sequence[ArrayLike] | None, extras: list[Any]
    ) -> tuple[Array, Any, Tape]:
        unbatched = np.ndim(x) == 2
        y = self._time_first(self._input(x))
        names = [f"{name}_0" for name in self.states]
        states = self._states(names, state, y.shape[1], unbatched)
        masks_of = self._masks(masks, *y.shape[:2])
        saved: list[Any] = []
        for layer in range(self.num_layers):
            y_both = []
            for suffix in self.suffixes:
                k, step = len(saved), -1 if suffix else 1
                y_k, state_k, saved_k = self._cell_forward(
                    y[::step],
                    tuple(array[k] for array in states),
                    self._weights(layer, suffix),
                    extras[k],
                )
                for array, found in zip(states, state_k, strict=True):
                    array[k] = found
                saved.append(saved_k)
                y_both.append(y_k[::step])
            y = np.concatenate(y_both, axis=-1) * masks_of[layer]
        y = self._as_given(y, unbatched)
        return y, self._state_as_given(states, unbatched), Tape(saved, masks_of, y.shape)

    def _weights(self, layer: int, suffix: str) -> Parameters:
        """Those of one layer and direction, by kind; biases that are not there are zero."""
        zero = np.zeros(self.gates * self.hidden_size)
        kinds = [kind for kind, _ in self._cell_shapes(0)]
        own = {kind: self.parameters[f"{kind}_l{layer}{suffix}"] for kind in kinds}
        return {"bias_ih": zero, "bias_hh": zero} | own

    def _extras(self, x: ArrayLike) -> list[Any]:
        """For each layer and direction, what its cell needs beside its weights."""
        return [None] * (self.num_layers * len(self.suffixes))

    def _required(self, masks: Sequence[ArrayLike] | None) -> Sequence[ArrayLike] | None:
        if masks is None and self.dropout > 0 and self.num_layers > 1:
            raise ValueError(f"masks: expected {self.num_layers - 1} arrays for dropout, got None")
        return masks

    def _masks(self, masks: Sequence[ArrayLike] | None, T: int, B: int) -> list[Array]:
        """One for each layer; the last layer has no dropout."""
        between, one = self.num_layers - 1, np.ones(1)
        if masks is None:
            return [one] * self.num_layers
        if len(masks) != between:
            raise ValueError(f"masks: expected {between} arrays, got {len(masks)}")
        shape = (T, B, len(self.suffixes) * self.output_size)
        return [*(as_float64(f"masks[{k}]", mask, shape) for k, mask in enumerate(masks)), one]

    def _input(self, x: ArrayLike) -> Array:
        array = np.array(x, np.float64)
        if array.ndim not in (2, 3) or array.shape[-1] != self.input_size:
            layout = "B, T" if self.batch_first else "T, B"
            raise ValueError(f"x: expected ({layout}, {self.input_size}), got {array.shape}")
        return array

    def _time_first(self, array: Array) -> Array:
        if array.ndim == 2:
            return array[:, None]
        return array.swapaxes(0, 1) if self.batch_first else array

    def _as_given(self, array: Array, unbatched: bool) -> Array:
        if unbatched:
            return array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first else array

    def _states(self, names: Sequence[str], state: Any, B: int, unbatched: bool) -> list[Array]:
        """Each [L*D, B, H], h [L*D, B, P]: copies of those of a user, or zeros."""
        LD, P, H = self.num_layers * len(self.suffixes), self.output_size, self.hidden_size
        first = (LD,) if unbatched else (LD, B)
        shapes = [(*first, P if name == "h" else H) for name in self.states]
        given = [np.zeros(shape) for shape in shapes] if state is None else state
        states = [as_float64(*of) for of in zip(names, given, shapes, strict=True)]
        return [array.reshape(LD, B, array.shape[-1]) for array in states]

    def _state_as_given(self, states: Sequence[Array], unbatched: bool) -> Any:
        return tuple(array[:, 0] if unbatched else array for array in states)


class OneState(Stack):
    """What cells without a cell state share: their user has the array, not a tuple."""

    states = ("h",)

    def _states(self, names: Sequence[str], state: Any, B: int, unbatched: bool) -> list[Array]:
        return super()._states(names, None if state is None else (state,), B, unbatched)

    def _state_as_given(self, states: Sequence[Array], unbatched: bool) -> Any:
        return super()._state_as_given(states, unbatched)[0]


def as_float64(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """A float64 copy of `value`, which must have that shape."""
    array = np.array(value, np.float64)
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape}, got {array.shape}")
    return array
