"""The definition of what fastlstm computes: the textbook LSTM in NumPy and float64.

One time step, with the gates i, f, g, o stacked in this order in the rows of W_ih, W_hh and b::

    z = W_ih x_t + W_hh h_(t-1) + b        i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o)
    c_t = f c_(t-1) + i g                  g = tanh(z_g)
    h_t = o tanh(c_t)

The functions are one layer in one direction; class `LSTM` stacks them behind the calls of
`fastlstm.LSTM`.  Nothing here is fast: the kernels are tested against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
State = tuple[Array, Array]
StateLike = tuple[ArrayLike, ArrayLike] | None


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), written so that exp cannot overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, e) / (1.0 + e)


def lstm_step(
    x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b: Array
) -> tuple[Array, Array, Array]:
    """One time step: x [B, I], h and c [B, H] -> new h and c, and the gates [B, 4H]."""
    z_i, z_f, z_g, z_o = np.split(x @ w_ih.T + h @ w_hh.T + b, 4, axis=-1)
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
    c = f * c + i * g
    h = o * np.tanh(c)
    return h, c, np.concatenate([i, f, g, o], axis=-1)


class Saved(NamedTuple):
    """What `lstm_backward` needs; h[t] and c[t] are the states before step t."""

    x: Array  # [T, B, I]
    h: Array  # [T+1, B, H]
    c: Array  # [T+1, B, H]
    gates: Array  # [T, B, 4H]
    w_ih: Array
    w_hh: Array


def lstm_forward(
    x: Array, h0: Array, c0: Array, w_ih: Array, w_hh: Array, b: Array
) -> tuple[Array, State, Saved]:
    """The sequence x [T, B, I] from h0, c0 [B, H] -> y [T, B, H], (h_n, c_n), Saved."""
    T, (B, H) = len(x), h0.shape
    h, c, gates = np.empty((T + 1, B, H)), np.empty((T + 1, B, H)), np.empty((T, B, 4 * H))
    h[0], c[0] = h0, c0
    for t in range(T):
        h[t + 1], c[t + 1], gates[t] = lstm_step(x[t], h[t], c[t], w_ih, w_hh, b)
    return h[1:], (h[T], c[T]), Saved(x, h, c, gates, w_ih, w_hh)


def lstm_backward(
    saved: Saved, dy: Array, dh: Array, dc: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """From the gradients of y, h_n and c_n, those of x, h0, c0, W_ih, W_hh and b (BPTT)."""
    x, h, c, gates, w_ih, w_hh = saved
    dz = np.empty_like(gates)
    for t in reversed(range(len(x))):
        i, f, g, o = np.split(gates[t], 4, axis=-1)
        tanh_c = np.tanh(c[t + 1])
        dh = dh + dy[t]
        dc = dc + dh * o * (1 - tanh_c**2)
        dz_i = dc * g * i * (1 - i)
        dz_f = dc * c[t] * f * (1 - f)
        dz_g = dc * i * (1 - g**2)
        dz_o = dh * tanh_c * o * (1 - o)
        dz[t] = np.concatenate([dz_i, dz_f, dz_g, dz_o], axis=-1)
        dh = dz[t] @ w_hh
        dc = dc * f
    dw_ih = np.tensordot(dz, x, axes=([0, 1], [0, 1]))
    dw_hh = np.tensordot(dz, h[:-1], axes=([0, 1], [0, 1]))
    return dz @ w_ih, dh, dc, dw_ih, dw_hh, dz.sum(axis=(0, 1))


class Tape(NamedTuple):
    """What `LSTM.forward` keeps for `LSTM.backward`."""

    saved: list[Saved]  # layer by layer; in each the forward direction, then the reverse
    masks: list[Array]  # layer by layer
    y_shape: tuple[int, ...]


class LSTM:
    """`fastlstm.LSTM` in NumPy: the same constructor, calls, names and shapes; float64 only.

    `dropout` draws nothing here: `forward` takes the masks.  `dtype` is ignored.  Weights are
    uniform in +-1/sqrt(hidden_size), drawn from ``default_rng(seed)`` in the order of their names.

    Attributes
    ----------
    parameters : dict of str to array
        ``weight_ih_l0`` [4H, I], ``weight_hh_l0`` [4H, H], ``bias_ih_l0`` and ``bias_hh_l0``
        [4H], of which only the sum counts; then those of the reverse direction (suffix
        ``_reverse``) and of the layers above, which read D*H features.

    Examples
    --------
    >>> lstm = LSTM(3, 2, seed=1)
    >>> y, (h_n, c_n) = lstm(np.ones((5, 4, 3)))
    >>> y.shape, h_n.shape
    ((5, 4, 2), (1, 4, 2))
    """

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
        proj_size: int = 0,
        dtype: Any = "float64",
        seed: int | None = None,
    ) -> None:
        if proj_size != 0:
            raise ValueError(f"proj_size: expected 0, as there is no projection, got {proj_size}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.suffixes = ("", "_reverse") if bidirectional else ("",)
        rng, bound = np.random.default_rng(seed), hidden_size**-0.5
        self.parameters = {name: rng.uniform(-bound, bound, s) for name, s in self._shapes()}

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        H = self.hidden_size
        for layer in range(self.num_layers):
            width = len(self.suffixes) * H if layer else self.input_size
            for suffix in self.suffixes:
                yield f"weight_ih_l{layer}{suffix}", (4 * H, width)
                yield f"weight_hh_l{layer}{suffix}", (4 * H, H)
                if self.bias:
                    yield f"bias_ih_l{layer}{suffix}", (4 * H,)
                    yield f"bias_hh_l{layer}{suffix}", (4 * H,)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters, by name."""
        return {name: value.copy() for name, value in self.parameters.items()}

    def load_state_dict(self, mapping: Mapping[str, ArrayLike]) -> None:
        """Copy the parameters from `mapping`, which must have just these names and shapes."""
        if set(mapping) != set(self.parameters):
            raise ValueError(f"expected the names {list(self.parameters)}, got {list(mapping)}")
        self.parameters = {name: _array(name, mapping[name], s) for name, s in self._shapes()}

    def __call__(self, x: ArrayLike, state: StateLike = None) -> tuple[Array, State]:
        """Run the sequence, without dropout and without keeping a tape."""
        y, state_n, _ = self._run(x, state, None)
        return y, state_n

    def forward(
        self, x: ArrayLike, state: StateLike = None, *, masks: Sequence[ArrayLike] | None = None
    ) -> tuple[Array, State, Tape]:
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
        if masks is None and self.dropout > 0 and self.num_layers > 1:
            raise ValueError(f"masks: expected {self.num_layers - 1} arrays for dropout, got None")
        return self._run(x, state, masks)

    def backward(
        self, tape: Tape, dy: ArrayLike, dstate: StateLike = None
    ) -> tuple[Array, State, dict[str, Array]]:
        """From the gradients of y and (h_n, c_n), those of x, (h_0, c_0) and the parameters.

        Returns
        -------
        dx : laid out like x
        (dh_0, dc_0) : laid out like state
        grads : dict with the names and shapes of `parameters`
        """
        unbatched = len(tape.y_shape) == 2
        dx = self._time_first(_array("dy", dy, tape.y_shape))
        dh, dc = self._state(("dh_n", "dc_n"), dstate, dx.shape[1], unbatched)
        grads = {}
        for layer in reversed(range(self.num_layers)):
            dy_both = np.split(dx * tape.masks[layer], len(self.suffixes), axis=-1)
            dx = np.zeros(1)
            for d, suffix in enumerate(self.suffixes):
                k, step = layer * len(self.suffixes) + d, -1 if suffix else 1
                dx_k, dh[k], dc[k], dw_ih, dw_hh, db = lstm_backward(
                    tape.saved[k], dy_both[d][::step], dh[k], dc[k]
                )
                dx = dx + dx_k[::step]
                grads[f"weight_ih_l{layer}{suffix}"] = dw_ih
                grads[f"weight_hh_l{layer}{suffix}"] = dw_hh
                grads[f"bias_ih_l{layer}{suffix}"] = db
                grads[f"bias_hh_l{layer}{suffix}"] = db.copy()
        grads = {name: grads[name] for name in self.parameters}
        return self._as_given(dx, unbatched), _state_as_given(dh, dc, unbatched), grads

    def _run(
        self, x: ArrayLike, state: StateLike, masks: Sequence[ArrayLike] | None
    ) -> tuple[Array, State, Tape]:
        unbatched = np.ndim(x) == 2
        y = self._time_first(self._input(x))
        h, c = self._state(("h_0", "c_0"), state, y.shape[1], unbatched)
        masks_of = self._masks(masks, *y.shape[:2])
        saved: list[Saved] = []
        for layer in range(self.num_layers):
            y_both = []
            for suffix in self.suffixes:
                k, step = len(saved), -1 if suffix else 1
                y_k, (h[k], c[k]), saved_k = lstm_forward(
                    y[::step], h[k], c[k], *self._weights(layer, suffix)
                )
                saved.append(saved_k)
                y_both.append(y_k[::step])
            y = np.concatenate(y_both, axis=-1) * masks_of[layer]
        y = self._as_given(y, unbatched)
        return y, _state_as_given(h, c, unbatched), Tape(saved, masks_of, y.shape)

    def _weights(self, layer: int, suffix: str) -> tuple[Array, Array, Array]:
        p, name = self.parameters, f"l{layer}{suffix}"
        b = np.zeros(4 * self.hidden_size)
        if self.bias:
            b = p[f"bias_ih_{name}"] + p[f"bias_hh_{name}"]
        return p[f"weight_ih_{name}"], p[f"weight_hh_{name}"], b

    def _masks(self, masks: Sequence[ArrayLike] | None, T: int, B: int) -> list[Array]:
        """One for each layer; the last layer has no dropout."""
        between, one = self.num_layers - 1, np.ones(1)
        if masks is None:
            return [one] * self.num_layers
        if len(masks) != between:
            raise ValueError(f"masks: expected {between} arrays, got {len(masks)}")
        shape = (T, B, len(self.suffixes) * self.hidden_size)
        return [*(_array(f"masks[{k}]", mask, shape) for k, mask in enumerate(masks)), one]

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

    def _state(
        self, names: tuple[str, str], state: StateLike, B: int, unbatched: bool
    ) -> tuple[Array, Array]:
        LD, H = self.num_layers * len(self.suffixes), self.hidden_size
        shape = (LD, H) if unbatched else (LD, B, H)
        h, c = (np.zeros(shape), np.zeros(shape)) if state is None else state
        h, c = _array(names[0], h, shape), _array(names[1], c, shape)
        return h.reshape(LD, B, H), c.reshape(LD, B, H)


def _state_as_given(h: Array, c: Array, unbatched: bool) -> State:
    return (h[:, 0], c[:, 0]) if unbatched else (h, c)


def _array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """A float64 copy of `value`, which must have that shape."""
    array = np.array(value, np.float64)
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape}, got {array.shape}")
    return array
