"""xLSTM's scalar cell: one layer, one direction, forward and backward in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastlstm.reference.cells import Array, sigmoid

State = tuple[Array, ...]  # h, c, n and m


def slstm_step(
    x: Array, state: State, w_ih: Array, w_hh: Array, b: Array
) -> tuple[State, Array, Array]:
    """One time step: x [B, I], state h, c, n and m, each [B, H] -> the new ones.

    w_hh [4H, H/heads] has the weights of each unit from the units of its own head.  The input gate
    is exp(a_i), the forget gate sigmoid(a_f); c and n are kept divided by e^m, which is about the
    larger of the two, so that neither overflows.

    Also returned are the gates i, f (both of what is divided), z and o [B, 4H], and the slope of
    log sigmoid(a_f) [B, H].
    """
    h, c, n, m = state
    a = x @ w_ih.T + b
    for rows, units in heads_of(w_hh):
        a[:, rows] += h[:, units] @ w_hh[rows].T
    a_i, a_f, a_z, a_o = np.split(a, 4, axis=-1)
    kept = m - np.logaddexp(0, -a_f)  # log of the forget gate times e^m
    m = np.where(n == 0, a_i, np.maximum(a_i, kept))
    i, f = np.minimum(1, np.exp(a_i - m)), np.exp(np.minimum(0, kept - m))
    z, o = np.tanh(a_z), sigmoid(a_o)
    c, n = f * c + i * z, f * n + i
    return (o * c / n, c, n, m), np.concatenate([i, f, z, o], axis=-1), sigmoid(-a_f)


def heads_of(w_hh: Array) -> Iterator[tuple[Array, slice]]:
    """For each head the rows of its units in w_hh, those of all gates, and its units."""
    size = w_hh.shape[1]
    units = len(w_hh) // 4
    for first in range(0, units, size):
        own = np.arange(first, first + size)
        yield np.concatenate([own + gate * units for gate in range(4)]), slice(first, first + size)


class SLSTMSaved(NamedTuple):
    """What `slstm_backward` needs; entry t of the states is before step t."""

    x: Array  # [T, B, I]
    h: Array  # [T+1, B, H]
    c: Array  # [T+1, B, H]
    n: Array  # [T+1, B, H]
    gates: Array  # [T, B, 4H]: i, f, z, o
    slope: Array  # [T, B, H]: of log sigmoid(a_f)
    w_ih: Array
    w_hh: Array


def slstm_forward(
    x: Array, state: State, w_ih: Array, w_hh: Array, b: Array
) -> tuple[Array, State, SLSTMSaved]:
    """The sequence x [T, B, I] from h, c, n, m [B, H] -> y [T, B, H], the new ones, saved."""
    T, (B, H) = len(x), state[0].shape
    h, c, n = (np.empty((T + 1, B, H)) for _ in range(3))
    gates, slope = np.empty((T, B, 4 * H)), np.empty((T, B, H))
    h[0], c[0], n[0], _ = state
    for t in range(T):
        state, gates[t], slope[t] = slstm_step(x[t], state, w_ih, w_hh, b)
        h[t + 1], c[t + 1], n[t + 1], _ = state
    return h[1:], state, SLSTMSaved(x, h, c, n, gates, slope, w_ih, w_hh)


def slstm_backward(
    saved: SLSTMSaved, dy: Array, dstate: State
) -> tuple[Array, State, Array, Array, Array]:
    """From the gradients of y and the final states, those of x, states, W_ih, W_hh and b (BPTT).

    m is a_i, and i is 1, or m is the log of what is kept, and f is 1; where they are equal, the
    first.  Where n was 0, m is a_i whatever is kept, and f has no gradient at its bound of 1.
    That the choice depends on n is not differentiated.
    """
    x, h, c, n, gates, slope, w_ih, w_hh = saved
    dh, dc, dn, dm = dstate
    da, dw_hh = np.empty_like(gates), np.zeros_like(w_hh)
    for t in reversed(range(len(x))):
        i, f, z, o = np.split(gates[t], 4, axis=-1)
        dh = dh + dy[t]
        mean = c[t + 1] / n[t + 1]
        dc = dc + dh * o / n[t + 1]
        dn = dn - dh * o / n[t + 1] * mean
        d_i = (dc * z + dn) * i  # of log i, and of log f
        d_f = np.where((n[t] == 0) & (f == 1), 0, (dc * c[t] + dn * n[t]) * f)
        m_is_input = i == 1
        d_kept = np.where(m_is_input, d_f, dm - d_i)
        da[t] = np.concatenate(
            [
                np.where(m_is_input, dm - d_f, d_i),
                d_kept * slope[t],
                dc * i * (1 - z**2),
                dh * mean * o * (1 - o),
            ],
            axis=-1,
        )
        dh, dc, dn, dm = np.empty_like(dh), dc * f, dn * f, d_kept
        for rows, units in heads_of(w_hh):
            dh[:, units] = da[t][:, rows] @ w_hh[rows]
            dw_hh[rows] += da[t][:, rows].T @ h[t][:, units]
    dw_ih = np.tensordot(da, x, axes=([0, 1], [0, 1]))
    return da @ w_ih, (dh, dc, dn, dm), dw_ih, dw_hh, da.sum(axis=(0, 1))
