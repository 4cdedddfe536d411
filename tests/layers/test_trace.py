"""Looking inside: gates and states of every step, and the pictures made of them."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import same_bits

import fastlstm
from fastlstm.reference import sigmoid

LAYERS: dict[str, dict[str, Any]] = {
    "one": {"input_size": 5, "hidden_size": 17},
    "both-ways": {"input_size": 4, "hidden_size": 33, "num_layers": 2, "bidirectional": True},
    "batch-first": {"input_size": 3, "hidden_size": 20, "num_layers": 2, "batch_first": True},
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
KINDS: list[Any] = [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN, partial(fastlstm.SLSTM, num_heads=1)]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=["LSTM", "GRU", "RNN", "SLSTM"])


@every_kind
@every_layer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hidden_states_are_those_of_a_call(
    rng: Generator, isa: str, kind: Any, layer: dict[str, Any], dtype: str
) -> None:
    """To the bit: the outputs of the last layer, and every final state."""
    module = kind(**layer, dtype=dtype, seed=1)
    D, H = 1 + module.bidirectional, module.hidden_size
    x = rng.standard_normal((9, 3, module.input_size)).astype(dtype)
    lengths = [9, 0, 4]
    if module.batch_first:
        x = np.ascontiguousarray(x.swapaxes(0, 1))
    traces = module.trace(x, lengths=lengths)
    y, state = module(x, lengths=lengths)
    assert len(traces) == module.num_layers * D
    for d in range(D):
        last = traces[-D + d].hidden
        assert same_bits(np.ascontiguousarray(last), y[..., d * H : (d + 1) * H].copy())
    h_n = state[0] if isinstance(state, tuple) else state
    for k, trace in enumerate(traces):
        hidden = trace.hidden.swapaxes(0, 1) if module.batch_first else trace.hidden
        for b, n in enumerate(lengths):
            end = 0 if k % D else n - 1
            assert n == 0 or same_bits(hidden[end, b].copy(), h_n[k, b])
            assert not hidden[n:, b].any()


def test_gates_are_what_the_equations_say(rng: Generator) -> None:
    lstm = fastlstm.LSTM(4, 21, dtype="float64", seed=1)
    x, state = rng.standard_normal((6, 4)), tuple(rng.standard_normal((2, 1, 21)))
    [trace] = lstm.trace(x, state)
    p = lstm.parameters
    h, c = state[0][0], state[1][0]
    for t in range(6):
        z = p["weight_ih_l0"] @ x[t] + p["weight_hh_l0"] @ h + p["bias_ih_l0"] + p["bias_hh_l0"]
        i, f, g, o = np.split(z, 4)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        found = [array[t] for array in trace]
        np.testing.assert_allclose(found, [i, f, g, o, c, h], rtol=1e-13, atol=1e-14)


def test_gates_of_a_gru(rng: Generator) -> None:
    gru = fastlstm.GRU(4, 21, dtype="float64", seed=1)
    x = rng.standard_normal((6, 4))
    [trace] = gru.trace(x)
    p, h = gru.parameters, np.zeros(21)
    for t in range(6):
        x_r, x_z, x_n = np.split(p["weight_ih_l0"] @ x[t] + p["bias_ih_l0"], 3)
        h_r, h_z, h_n = np.split(p["weight_hh_l0"] @ h + p["bias_hh_l0"], 3)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = np.tanh(x_n + r * h_n)
        h = (1 - z) * n + z * h
        np.testing.assert_allclose([a[t] for a in trace], [r, z, n, h], rtol=1e-13, atol=1e-14)


def test_gates_of_an_slstm(rng: Generator) -> None:
    slstm = fastlstm.SLSTM(4, 21, num_heads=3, dtype="float64", seed=1)
    x = rng.standard_normal((6, 4)) * 5
    state = [*rng.standard_normal((4, 1, 21))]
    state[2] = np.abs(state[2])
    [trace] = slstm.trace(x, tuple(state))
    p = slstm.parameters
    h, c, n, m = (array[0] for array in state)
    for t in range(6):
        before = np.repeat(h.reshape(3, 1, 7), 7, axis=1).reshape(21, 7)  # of the head of each unit
        u = (p["weight_hh_l0"].reshape(4, 21, 7) * before).sum(axis=-1).ravel()
        a_i, a_f, a_z, a_o = np.split(p["weight_ih_l0"] @ x[t] + u + p["bias_ih_l0"], 4)
        kept = m + np.log(sigmoid(a_f))
        m = np.maximum(a_i, kept)
        i, f, z, o = np.exp(a_i - m), np.exp(kept - m), np.tanh(a_z), sigmoid(a_o)
        c, n = f * c + i * z, f * n + i
        h = o * c / n
        found = [array[t] for array in trace]
        np.testing.assert_allclose(found, [i, f, z, o, c, n, m, h], rtol=1e-13, atol=1e-13)


def test_tracing_is_inference(rng: Generator) -> None:
    lstm = fastlstm.LSTM(3, 8, 2, dropout=0.9, seed=1)
    x = rng.standard_normal((5, 2, 3), dtype=np.float32)
    assert same_bits(lstm.trace(x)[-1].hidden, lstm(x)[0])
    assert lstm.trace(x[:0])[0].forget.shape == (0, 2, 8)
    assert lstm.trace(x[:, 0])[0].forget.shape == (5, 8)


@every_kind
def test_a_trace_knows_its_layout(rng: Generator, kind: Any) -> None:
    """Beside its fields, so that it is the tuple it was."""
    x = rng.standard_normal((4, 6, 2), dtype=np.float32)
    [steps_first] = kind(2, 5, seed=1).trace(x)
    [trace] = kind(2, 5, batch_first=True, seed=1).trace(x)
    assert (steps_first.batch_first, trace.batch_first) == (False, True)
    assert "batch_first" not in trace._fields
    assert len([*trace]) == len(trace._fields) == len(trace._asdict())
    assert trace[-1] is trace.hidden
    assert trace == tuple(trace)
    replaced = trace._replace(hidden=trace.hidden + 1)
    again = [pickle.loads(pickle.dumps(trace, protocol)) for protocol in range(6)]
    for other in (*again, copy.copy(trace), copy.deepcopy(trace), replaced):
        assert type(other) is type(trace)
        assert other.batch_first
        assert other.hidden.shape == trace.hidden.shape
    assert not kind(2, 5, batch_first=True).trace(x[0])[0].batch_first  # there is no batch


def test_representation_of_a_trace(rng: Generator) -> None:
    x = rng.standard_normal((4, 6, 2))
    lstm = fastlstm.LSTM(2, 5, proj_size=3, batch_first=True, dtype="float64")
    expected = "LSTMTrace(steps=6, rows=4, units=5, proj_size=3, float64, batch_first=True)"
    assert repr(lstm.trace(x)[0]) == expected
    [trace] = fastlstm.GRU(2, 5).trace(x[0].astype(np.float32))
    assert repr(trace) == "GRUTrace(steps=6, units=5, float32)"
    step = type(trace)(*(array[0] for array in trace))
    assert repr(step).startswith("GRUTrace(reset=array(")
