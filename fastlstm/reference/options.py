"""The LSTM cell with all options of `fastlstm.LSTM`: what they change in `cells.lstm_step`.

One time step, products element by element where written ``*``; r, zh and zc are masks::

    a_q = W_q x_t + U_q (r * h_(t-1))                      for each gate q of i, f, g, o
    a_i += p_i * c_(t-1);  a_f += p_f * c_(t-1);  a_o += p_o * C_t               peepholes
    z_q = gain_q * (a_q - mean(a_q)) / sqrt(var(a_q) + eps) + b_q                layer norm
        = a_q + b_q                                                              else
    z_q = clip(z_q)                                                              preact_clip
    i, f, o = gate(z_i), gate(z_f), gate(z_o)              f = 1 - i             coupled
    g = candidate(z_g)
    C_t = clip(f * c_(t-1) + i * g)                                              cell_clip
    H_t = W_hr (o * hidden(C_t))                           without W_hr          no proj_size
    h_t = zh * h_(t-1) + (1 - zh) * H_t                                          zoneout
    c_t = zc * c_(t-1) + (1 - zc) * C_t

An option that is not used has a neutral value: p = 0, an infinite bound, r = 1, zh = zc = 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.reference.activations import ACTIVATIONS, Activation
from fastlstm.reference.cells import Array, State

Parameters = dict[str, Array]  # of one layer and direction: "weight_ih" and so on


class Options(NamedTuple):
    """What the weights of a layer do not tell: they do of projection, peepholes and norm."""

    coupled: bool = False
    cell_clip: float = np.inf
    preact_clip: float = np.inf
    layer_norm_eps: float = 1e-5
    gate: Activation = ACTIVATIONS["sigmoid"]
    candidate: Activation = ACTIVATIONS["tanh"]
    hidden: Activation = ACTIVATIONS["tanh"]

    @property
    def gates(self) -> list[str]:
        """In the order of the rows of the weights."""
        return ["i", "g", "o"] if self.coupled else ["i", "f", "g", "o"]


class Masks(NamedTuple):
    """What multiplies the states: 0 or 1/(1-p) for r; 0 or 1, or in inference the rate, for z."""

    r: Array  # [B, P]
    zh: Array  # [T, B, P]
    zc: Array  # [T, B, H]


class Gate(NamedTuple):
    """One gate of one step, [B, H] each."""

    normed: Array  # a, with a layer norm (a - mean) / std
    std: Array | float
    z: Array  # before it is clipped
    out: Array


class Part(NamedTuple):
    """What belongs to one gate: [H] each."""

    b: Array
    gain: Array | None
    peephole: Array
    clip: float
    activation: Activation
    eps: float  # of the layer norm


class Step(NamedTuple):
    """What the backward pass needs of one step."""

    gates: dict[str, Gate]
    f: Array
    s: Array  # the new cell before it is clipped
    C: Array
    hidden_C: Array
    M: Array  # the hidden state before the projection


class OptionsSaved(NamedTuple):
    """What `options_backward` needs; h[t] and c[t] are the states before step t."""

    x: Array  # [T, B, I]
    h: Array  # [T+1, B, P]
    c: Array  # [T+1, B, H]
    steps: list[Step]
    w: Parameters
    parts: dict[str, Part]
    options: Options
    masks: Masks


def parts_of(w: Parameters, options: Options) -> dict[str, Part]:
    """The gates' shares of the weights that have a value for each unit."""
    gates = options.gates
    b = np.split(w["bias_ih"] + w["bias_hh"], len(gates))
    kinds = [options.candidate if q == "g" else options.gate for q in gates]
    gains = np.split(w["weight_ln"], len(gates)) if "weight_ln" in w else [None] * len(gates)
    peepholes = dict.fromkeys(gates, np.zeros_like(b[0]))
    if "weight_ch" in w:
        peeping = [q for q in gates if q != "g"]
        peepholes |= zip(peeping, np.split(w["weight_ch"], len(peeping)), strict=True)
    clip, eps = options.preact_clip, options.layer_norm_eps
    return {q: Part(b[k], gains[k], peepholes[q], clip, kinds[k], eps) for k, q in enumerate(gates)}


def gate_forward(a: Array, part: Part) -> Gate:
    """Norm, bias, clip and activation of a [B, H]."""
    if part.gain is None:
        normed, std, z = a, 1.0, a + part.b
    else:
        std = np.sqrt(a.var(axis=-1, keepdims=True) + part.eps)
        normed = (a - a.mean(axis=-1, keepdims=True)) / std
        z = part.gain * normed + part.b
    return Gate(normed, std, z, part.activation(np.clip(z, -part.clip, part.clip)))


def gate_backward(gate: Gate, part: Part, dout: Array) -> tuple[Array, Array]:
    """From the gradient of the output of a gate, those of a and of z, both [B, H]."""
    normed, std, z, out = gate
    dz = dout * part.activation.slope(z, out) * (np.abs(z) < part.clip)
    if part.gain is None:
        return dz, dz
    dn = dz * part.gain
    along = normed * (dn * normed).mean(axis=-1, keepdims=True)
    return (dn - dn.mean(axis=-1, keepdims=True) - along) / std, dz


def options_forward(
    x: Array, h0: Array, c0: Array, w: Parameters, options: Options, masks: Masks
) -> tuple[Array, State, OptionsSaved]:
    """The sequence x [T, B, I] from h0 [B, P], c0 [B, H] -> y [T, B, P], (h_n, c_n), saved."""
    gates, parts, steps = options.gates, parts_of(w, options), []
    w_ih, w_hh, w_hr = w["weight_ih"], w["weight_hh"], w.get("weight_hr")
    h, c = np.empty((len(x) + 1, *h0.shape)), np.empty((len(x) + 1, *c0.shape))
    h[0], c[0] = h0, c0
    for t in range(len(x)):
        r, zh, zc = masks.r, masks.zh[t], masks.zc[t]
        a_t = x[t] @ w_ih.T + (r * h[t]) @ w_hh.T
        a = dict(zip(gates, np.split(a_t, len(gates), axis=-1), strict=True))
        of = {q: gate_forward(a[q] + parts[q].peephole * c[t], parts[q]) for q in gates[:-1]}
        f = 1 - of["i"].out if options.coupled else of["f"].out
        s = f * c[t] + of["i"].out * of["g"].out
        C = np.clip(s, -options.cell_clip, options.cell_clip)
        of["o"] = gate_forward(a["o"] + parts["o"].peephole * C, parts["o"])
        hidden_C = options.hidden(C)
        M = of["o"].out * hidden_C
        h[t + 1] = zh * h[t] + (1 - zh) * (M if w_hr is None else M @ w_hr.T)
        c[t + 1] = zc * c[t] + (1 - zc) * C
        steps.append(Step(of, f, s, C, hidden_C, M))
    return h[1:], (h[-1], c[-1]), OptionsSaved(x, h, c, steps, w, parts, options, masks)


def options_backward(
    saved: OptionsSaved, dy: Array, dh: Array, dc: Array
) -> tuple[Array, Array, Array, Parameters]:
    """From the gradients of y, h_n and c_n, those of x, h0, c0 and the weights (BPTT)."""
    dx, dw = np.empty_like(saved.x), {name: np.zeros_like(v) for name, v in saved.w.items()}
    for t in reversed(range(len(dy))):
        dx[t], dh, dc, dw_t = step_backward(saved, t, dh + dy[t], dc)
        dw = {name: dw[name] + dw_t[name] for name in dw}
    return dx, dh, dc, dw


def step_backward(
    saved: OptionsSaved, t: int, dh: Array, dc: Array
) -> tuple[Array, Array, Array, Parameters]:
    """From the gradients of h and c after step t, those of x, of h and c before, and of weights."""
    w, options, parts = saved.w, saved.options, saved.parts
    c, (of, f, s, C, hidden_C, _) = saved.c[t], saved.steps[t]
    r, zh, zc = saved.masks.r, saved.masks.zh[t], saved.masks.zc[t]

    dH, dC = (1 - zh) * dh, (1 - zc) * dc
    dM = dH @ w["weight_hr"] if "weight_hr" in w else dH
    da, dz = {}, {}
    da["o"], dz["o"] = gate_backward(of["o"], parts["o"], dM * hidden_C)
    dC = dC + dM * of["o"].out * options.hidden.slope(C, hidden_C) + da["o"] * parts["o"].peephole
    ds = dC * (np.abs(s) < options.cell_clip)
    di, df, dg = ds * of["g"].out, ds * c, ds * of["i"].out
    before = {"i": di - df, "g": dg} if options.coupled else {"i": di, "f": df, "g": dg}
    for q, dout in before.items():
        da[q], dz[q] = gate_backward(of[q], parts[q], dout)

    dx = stacked(da) @ w["weight_ih"]
    dh = zh * dh + r * (stacked(da) @ w["weight_hh"])
    dc = zc * dc + ds * f + sum(da[q] * parts[q].peephole for q in before)
    return dx, dh, dc, weight_gradients(saved, t, da, dz, dH)


def weight_gradients(
    saved: OptionsSaved, t: int, da: dict[str, Array], dz: dict[str, Array], dH: Array
) -> Parameters:
    """What step t adds to the gradients of the weights; also of those that are not there."""
    of, _, _, C, _, M = saved.steps[t]
    h, c = saved.masks.r * saved.h[t], saved.c[t]
    peeped = {q: da[q] * (C if q == "o" else c) for q in da if q != "g"}
    return {
        "weight_ih": stacked(da).T @ saved.x[t],
        "weight_hh": stacked(da).T @ h,
        "bias_ih": stacked(dz).sum(axis=0),
        "bias_hh": stacked(dz).sum(axis=0),
        "weight_hr": dH.T @ M,
        "weight_ch": stacked(peeped).sum(axis=0),
        "weight_ln": stacked({q: dz[q] * of[q].normed for q in dz}).sum(axis=0),
    }


def stacked(of_gates: dict[str, Array]) -> Array:
    """One after the other, in the order of the rows of the weights."""
    return np.concatenate([of_gates[q] for q in "ifgo" if q in of_gates], axis=-1)
