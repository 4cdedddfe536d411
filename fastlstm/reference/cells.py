"""The cells as the textbook has them: one layer, one direction, forward and backward in time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = tuple[Array, Array]


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
    """What `gru_backward` and `gru_before_backward` need; h[t] is the state before step t."""

    x: Array  # [T, B, I]
    h: Array  # [T+1, B, H]
    gates: Array  # [T, B, 4H]: r, z, n, and what r multiplies; [T, B, 3H] if that is h
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


def gru_before_forward(
    x: Array, h0: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array
) -> tuple[Array, Array, GRUSaved]:
    """As `gru_forward`, with r applied to h before it is multiplied by U_n."""
    T, (B, H) = len(x), h0.shape
    h, gates = np.empty((T + 1, B, H)), np.empty((T, B, 3 * H))
    h[0] = h0
    for t in range(T):
        x_r, x_z, x_n = np.split(x[t] @ w_ih.T + b_ih + b_hh, 3, axis=-1)
        u_r, u_z, u_n = np.split(w_hh, 3)
        r, z = sigmoid(x_r + h[t] @ u_r.T), sigmoid(x_z + h[t] @ u_z.T)
        n = np.tanh(x_n + (r * h[t]) @ u_n.T)
        h[t + 1] = (1 - z) * n + z * h[t]
        gates[t] = np.concatenate([r, z, n], axis=-1)
    return h[1:], h[T], GRUSaved(x, h, gates, w_ih, w_hh)


def gru_before_backward(
    saved: GRUSaved, dy: Array, dh: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """From the gradients of y and h_n, those of x, h0, W_ih, W_hh, b_ih and b_hh (BPTT)."""
    x, h, gates, w_ih, w_hh = saved
    u_r, u_z, u_n = np.split(w_hh, 3)
    dz_all, dw_hh = np.empty_like(gates), np.zeros_like(w_hh)
    for t in reversed(range(len(x))):
        r, z, n = np.split(gates[t], 3, axis=-1)
        dh = dh + dy[t]
        dn = dh * (1 - z) * (1 - n**2)
        dz = dh * (h[t] - n) * z * (1 - z)
        drh = dn @ u_n
        dr = drh * h[t] * r * (1 - r)
        dz_all[t] = np.concatenate([dr, dz, dn], axis=-1)
        dw_hh += np.concatenate([dr.T @ h[t], dz.T @ h[t], dn.T @ (r * h[t])])
        dh = dr @ u_r + dz @ u_z + drh * r + dh * z
    dw_ih, db = np.tensordot(dz_all, x, axes=([0, 1], [0, 1])), dz_all.sum(axis=(0, 1))
    return dz_all @ w_ih, dh, dw_ih, dw_hh, db, db


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
