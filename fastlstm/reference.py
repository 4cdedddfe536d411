"""The definition of what fastlstm computes: the textbook's cells in NumPy and float64.

One time step, with the gates i, f, g, o stacked in this order in the rows of W_ih, W_hh and b::

    z = W_ih x_t + W_hh h_(t-1) + b        i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o)
    c_t = f c_(t-1) + i g                  g = tanh(z_g)
    h_t = o tanh(c_t)

for an LSTM; for a GRU, with the gates r, z, n, and for a plain RNN, with f = tanh or max(0, .)::

    n = tanh(W_n x_t + b_in + r (U_n h_(t-1) + b_hn))      h_t = f(W x_t + U h_(t-1) + b)
    h_t = (1 - z) n + z h_(t-1)

The functions are one layer in one direction; classes `LSTM`, `GRU` and `RNN` stack them behind the
calls of `fastlstm`.  Nothing here is fast: the kernels are tested against it.
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


class GRUSaved(NamedTuple):
    """What `gru_backward` needs; h[t] is the state before step t."""

    x: Array  # [T, B, I]
    h: Array  # [T+1, B, H]
    gates: Array  # [T, B, 4H]: r, z, n, and what r multiplies
    w_ih: Array
    w_hh: Array


def gru_forward(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array
) -> tuple[Array, Array, GRUSaved]:
    """The sequence x [T, B, I] from h0 [B, H] -> y [T, B, H], h_n, GRUSaved."""
    T, (B, H) = len(x), h0.shape
    h, gates = np.empty((T + 1, B, H)), np.empty((T, B, 4 * H))
    h[0] = h0
    for t in range(T):
        x_r, x_z, x_n = np.split(x[t] @ w_ih.T + b_ih, 3, axis=-1)
        h_r, h_z, h_n = np.split(h[t] @ w_hh.T + b_hh, 3, axis=-1)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = np.tanh(x_n + r * h_n)
        h[t + 1] = (1 - z) * n + z * h[t]
        gates[t] = np.concatenate([r, z, n, h_n], axis=-1)
    return h[1:], h[T], GRUSaved(x, h, gates, w_ih, w_hh)


def gru_backward(
    saved: GRUSaved, dy: Array, dh: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """From the gradients of y and h_n, those of x, h0, W_ih, W_hh, b_ih and b_hh (BPTT)."""
    x, h, gates, w_ih, w_hh = saved
    dz_x, dz_h = np.empty((*dy.shape[:2], len(w_ih))), np.empty((*dy.shape[:2], len(w_hh)))
    for t in reversed(range(len(x))):
        r, z, n, h_n = np.split(gates[t], 4, axis=-1)
        dh = dh + dy[t]
        dn = dh * (1 - z) * (1 - n**2)
        dr = dn * h_n * r * (1 - r)
        dz = dh * (h[t] - n) * z * (1 - z)
        dz_x[t] = np.concatenate([dr, dz, dn], axis=-1)
        dz_h[t] = np.concatenate([dr, dz, dn * r], axis=-1)
        dh = dz_h[t] @ w_hh + dh * z
    dw_ih = np.tensordot(dz_x, x, axes=([0, 1], [0, 1]))
    dw_hh = np.tensordot(dz_h, h[:-1], axes=([0, 1], [0, 1]))
    return dz_x @ w_ih, dh, dw_ih, dw_hh, dz_x.sum(axis=(0, 1)), dz_h.sum(axis=(0, 1))


class RNNSaved(NamedTuple):
    """What `rnn_backward` needs; h[t] is the state before step t."""

    x: Array  # [T, B, I]
    h: Array  # [T+1, B, H]
    relu: bool
    w_ih: Array
    w_hh: Array


def rnn_forward(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, b: Array, relu: bool
) -> tuple[Array, Array, RNNSaved]:
    """The sequence x [T, B, I] from h0 [B, H] -> y [T, B, H], h_n, RNNSaved."""
    h = np.empty((len(x) + 1, *h0.shape))
    h[0] = h0
    for t in range(len(x)):
        z = x[t] @ w_ih.T + h[t] @ w_hh.T + b
        h[t + 1] = np.maximum(z, 0) if relu else np.tanh(z)
    return h[1:], h[-1], RNNSaved(x, h, relu, w_ih, w_hh)


def rnn_backward(saved: RNNSaved, dy: Array, dh: Array) -> tuple[Array, Array, Array, Array, Array]:
    """From the gradients of y and h_n, those of x, h0, W_ih, W_hh and b (BPTT)."""
    x, h, relu, w_ih, w_hh = saved
    dz = np.empty_like(dy)
    for t in reversed(range(len(x))):
        dz[t] = (dh + dy[t]) * (h[t + 1] > 0 if relu else 1 - h[t + 1] ** 2)
        dh = dz[t] @ w_hh
    dw_ih = np.tensordot(dz, x, axes=([0, 1], [0, 1]))
    dw_hh = np.tensordot(dz, h[:-1], axes=([0, 1], [0, 1]))
    return dz @ w_ih, dh, dw_ih, dw_hh, dz.sum(axis=(0, 1))


class Tape(NamedTuple):
    """What `forward` keeps for `backward`."""

    saved: list[Any]  # layer by layer; in each the forward direction, then the reverse
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

    gates = 4

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
        **options: Any,
    ) -> None:
        if proj_size != 0:
            raise ValueError(f"proj_size: expected 0, as there is no projection, got {proj_size}")
        self.options = options
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.suffixes = ("", "_reverse") if bidirectional else ("",)
        rng, bound = np.random.default_rng(seed), hidden_size**-0.5
        self.parameters = {name: rng.uniform(-bound, bound, s) for name, s in self._shapes()}

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        H = self.hidden_size
        G = self.gates * H
        for layer in range(self.num_layers):
            width = len(self.suffixes) * H if layer else self.input_size
            for suffix in self.suffixes:
                yield f"weight_ih_l{layer}{suffix}", (G, width)
                yield f"weight_hh_l{layer}{suffix}", (G, H)
                if self.bias:
                    yield f"bias_ih_l{layer}{suffix}", (G,)
                    yield f"bias_hh_l{layer}{suffix}", (G,)

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
                dx_k, (dh[k], dc[k]), of_weights = self._cell_backward(
                    tape.saved[k], dy_both[d][::step], dh[k], dc[k]
                )
                dx = dx + dx_k[::step]
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                for name, grad in zip(names, of_weights, strict=True):
                    grads[f"{name}_l{layer}{suffix}"] = grad.copy()
        grads = {name: grads[name] for name in self.parameters}
        return self._as_given(dx, unbatched), self._state_as_given(dh, dc, unbatched), grads

    def _cell_forward(
        self, x: Array, h: Array, c: Array, weights: list[Array]
    ) -> tuple[Array, tuple[Array, Array], Any]:
        w_ih, w_hh, b_ih, b_hh = weights
        return lstm_forward(x, h, c, w_ih, w_hh, b_ih + b_hh)

    def _cell_backward(
        self, saved: Any, dy: Array, dh: Array, dc: Array
    ) -> tuple[Array, tuple[Array, Array], list[Array]]:
        dx, dh, dc, dw_ih, dw_hh, db = lstm_backward(saved, dy, dh, dc)
        return dx, (dh, dc), [dw_ih, dw_hh, db, db]

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
                y_k, (h[k], c[k]), saved_k = self._cell_forward(
                    y[::step], h[k], c[k], self._weights(layer, suffix)
                )
                saved.append(saved_k)
                y_both.append(y_k[::step])
            y = np.concatenate(y_both, axis=-1) * masks_of[layer]
        y = self._as_given(y, unbatched)
        return y, self._state_as_given(h, c, unbatched), Tape(saved, masks_of, y.shape)

    def _weights(self, layer: int, suffix: str) -> list[Array]:
        """W_ih, W_hh, b_ih and b_hh."""
        zero = np.zeros(self.gates * self.hidden_size)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [self.parameters.get(f"{name}_l{layer}{suffix}", zero) for name in names]

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

    def _state_as_given(self, h: Array, c: Array, unbatched: bool) -> Any:
        return (h[:, 0], c[:, 0]) if unbatched else (h, c)


class _OneState(LSTM):
    """What cells without a cell state share; c is not used."""

    def _state(
        self, names: tuple[str, str], state: Any, B: int, unbatched: bool
    ) -> tuple[Array, Array]:
        return super()._state(names, None if state is None else (state, state), B, unbatched)

    def _state_as_given(self, h: Array, c: Array, unbatched: bool) -> Any:
        return h[:, 0] if unbatched else h


class GRU(_OneState):
    """`fastlstm.GRU` in NumPy, as `LSTM` is `fastlstm.LSTM`.

    Examples
    --------
    >>> y, h_n = GRU(3, 2, seed=1)(np.ones((5, 4, 3)))
    >>> y.shape, h_n.shape
    ((5, 4, 2), (1, 4, 2))
    """

    gates = 3

    def _cell_forward(
        self, x: Array, h: Array, c: Array, weights: list[Array]
    ) -> tuple[Array, tuple[Array, Array], Any]:
        y, h, saved = gru_forward(x, h, *weights)
        return y, (h, c), saved

    def _cell_backward(
        self, saved: Any, dy: Array, dh: Array, dc: Array
    ) -> tuple[Array, tuple[Array, Array], list[Array]]:
        dx, dh, *of_weights = gru_backward(saved, dy, dh)
        return dx, (dh, dc), of_weights


class RNN(_OneState):
    """`fastlstm.RNN` in NumPy, as `LSTM` is `fastlstm.LSTM`.

    Examples
    --------
    >>> y, h_n = RNN(3, 2, nonlinearity="relu", seed=1)(np.ones((5, 4, 3)))
    >>> y.shape, h_n.shape
    ((5, 4, 2), (1, 4, 2))
    """

    gates = 1

    def _cell_forward(
        self, x: Array, h: Array, c: Array, weights: list[Array]
    ) -> tuple[Array, tuple[Array, Array], Any]:
        w_ih, w_hh, b_ih, b_hh = weights
        relu = self.options.get("nonlinearity") == "relu"
        y, h, saved = rnn_forward(x, h, w_ih, w_hh, b_ih + b_hh, relu)
        return y, (h, c), saved

    def _cell_backward(
        self, saved: Any, dy: Array, dh: Array, dc: Array
    ) -> tuple[Array, tuple[Array, Array], list[Array]]:
        dx, dh, dw_ih, dw_hh, db = rnn_backward(saved, dy, dh)
        return dx, (dh, dc), [dw_ih, dw_hh, db, db]


def _array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """A float64 copy of `value`, which must have that shape."""
    array = np.array(value, np.float64)
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape}, got {array.shape}")
    return array
