"""Looking inside: gates and states of every step, and the pictures made of them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
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
KINDS = [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])


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
    h_n = state[0] if kind is fastlstm.LSTM else state
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


def test_gradient_norms(rng: Generator) -> None:
    """Against finite differences: what the last outputs change by with an earlier state."""
    plot = pytest.importorskip("fastlstm.plot")
    rnn = fastlstm.RNN(2, 3, dtype="float64", seed=1)
    x, step = rng.standard_normal((5, 1, 2)), 1e-6
    norms = plot.gradient_norms(rnn, x)
    for t in range(4):
        h, slopes = rnn(x[: t + 1])[1], []
        for unit in range(3):
            move = np.zeros((1, 1, 3))
            move[..., unit] = step
            up, down = (rnn(x[t + 1 :], h + m)[0][-1].sum() for m in (move, -move))
            slopes.append((up - down) / (2 * step))
        assert norms[t] == pytest.approx(np.linalg.norm(slopes) / np.sqrt(3), rel=1e-6)
    assert norms[-1] == 1


def test_gradient_norms_of_all_layers_and_parts(rng: Generator) -> None:
    """A projection makes h narrower than c; both count, and the outputs are the narrow ones."""
    plot = pytest.importorskip("fastlstm.plot")
    lstm = fastlstm.LSTM(2, 5, 2, proj_size=3, dtype="float64", seed=1)
    x = rng.standard_normal((4, 2, 2))
    _, state, _ = lstm.forward(x[:2])
    y, _, tape = lstm.forward(x[2:], state)
    dy = np.zeros_like(y)
    dy[-1] = 1
    dh, dc = lstm.backward(tape, dy)[1]
    expected = np.sqrt(((dh**2).sum() + (dc**2).sum()) / (2 * 3))
    assert plot.gradient_norms(lstm, x)[1] == pytest.approx(expected, rel=1e-12)


def test_small_gradients_are_not_none(rng: Generator) -> None:
    """Their squares are not numbers of float32, they are."""
    plot = pytest.importorskip("fastlstm.plot")
    rnn = fastlstm.RNN(2, 3, seed=1)
    norms = plot.gradient_norms(rnn, rng.standard_normal((70, 1, 2), dtype=np.float32))
    assert norms.min() < 1e-24
    assert norms.all()


def test_picture_of_the_flow(rng: Generator, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastlstm import plot

    [trace] = fastlstm.LSTM(2, 5, seed=1).trace(rng.standard_normal((4, 2), dtype=np.float32))
    figure = plot.flow(trace, 3, unit=1)
    texts = {text.get_text() for text in figure.axes[0].texts}
    for name in ("forget", "input", "output"):
        assert f"{name} gate\n{getattr(trace, name)[3, 1]:.2f}" in texts
    assert f"cell state before\n{trace.cell[2, 1]:+.2f}" in texts
    assert f"hidden state\n{trace.hidden[3, 1]:+.2f}" in texts
    arrows = [getattr(text, "arrow_patch", None) for text in figure.axes[0].texts]
    widths = [arrow.get_linewidth() for arrow in arrows if arrow]
    assert widths[0] == pytest.approx(0.6 + 9 * trace.forget[3, 1])
    plot.flow(trace, 0).savefig(tmp_path / "flow.svg")


def test_picture_of_gradients(rng: Generator) -> None:
    pytest.importorskip("matplotlib")
    from fastlstm import plot

    layers = {kind.__name__: kind(2, 5, seed=1) for kind in KINDS}
    x = rng.standard_normal((6, 3, 2), dtype=np.float32)
    [axes] = plot.gradient_flow(layers, x).axes
    for line, layer in zip(axes.lines, layers.values(), strict=True):
        assert np.array_equal(line.get_ydata(), plot.gradient_norms(layer, x))


TRACE = fastlstm.LSTM(2, 5, seed=1).trace(np.ones((4, 3, 2), np.float32))[0]
NARROW = fastlstm.LSTM(2, 5, proj_size=3, seed=1).trace(np.ones((4, 2), np.float32))[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.flow(TRACE, 4), ValueError, "t: expected 0 to 3, got 4"),
        (lambda p: p.flow(TRACE, 0, unit=5), ValueError, "unit: expected 0 to 4, got 5"),
        (lambda p: p.flow(NARROW, 0, unit=3), ValueError, "unit: expected 0 to 2, got 3"),
        (lambda p: p.flow([1], 0), TypeError, "trace: expected an LSTMTrace, got list"),
        (
            lambda p: p.gradient_norms(fastlstm.RNN(2, 3, bidirectional=True), np.ones((3, 1, 2))),
            ValueError,
            "layer: expected one direction",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    plot = pytest.importorskip("fastlstm.plot")
    with pytest.raises(error, match=message):
        call(plot)
