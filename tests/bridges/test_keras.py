"""Weights from Keras and back: the same results, live on its JAX backend."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, check_close, error_bound, same_bits
from support.processes import script

import fastlstm
from fastlstm.keras import from_keras, to_keras_weights
from fastlstm.keras._names import ACTIVATIONS

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported

# What variables of Keras make of numpy.array is their own affair.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

T, B, I, H = 7, 5, 6, 9  # all different, so that a mix-up shows
CELLS = {"LSTM": fastlstm.LSTM, "GRU": fastlstm.GRU, "SimpleRNN": fastlstm.RNN}

every_cell = pytest.mark.parametrize("kind", CELLS)
both_ways = pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])


@pytest.fixture(scope="module")
def keras() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports
        pytest.importorskip(os.environ["KERAS_BACKEND"])
        return pytest.importorskip("keras")


def randomize(rng: Generator, layer: Any) -> None:
    """Weights and biases that are all different."""
    shapes = [w.shape for w in layer.get_weights()]
    layer.set_weights([0.4 * rng.standard_normal(shape) for shape in shapes])


def layer_of(keras: Any, kind: str, bidirectional: bool = False, **options: Any) -> Any:
    """A layer of Keras that returns everything."""
    options = {"return_sequences": True, "return_state": True, **options}
    layer = getattr(keras.layers, kind)(H, **options)
    return keras.layers.Bidirectional(layer) if bidirectional else layer


def stack_of(
    rng: Generator, keras: Any, kind: str, layers: int, bidirectional: bool, **options: Any
) -> list[Any]:
    """Built layers with random weights."""
    made = [layer_of(keras, kind, bidirectional, **options) for _ in range(layers)]
    for number, layer in enumerate(made):
        layer.build((None, None, I if number == 0 else H * (1 + bidirectional)))
        randomize(rng, layer)
    return made


def call_of(rng: Generator, layer: Any) -> tuple[Array, Any]:
    """x, and a state of which no two values are the same."""
    shape = (layer.num_layers * (1 + layer.bidirectional), B, layer.hidden_size)
    x, h, c = (rng.standard_normal(s).astype(layer.dtype) for s in [(B, T, I), shape, shape])
    return x, (h, c) if isinstance(layer, fastlstm.LSTM) else h


def named(y: Any, state: Any) -> dict[str, Array]:
    """Results with names, for `check_close`."""
    states = state if isinstance(state, tuple) else (state,)
    return {"y": y, **{f"state {n}": s for n, s in enumerate(states)}}


def run(layers: list[Any], x: Array, state: Any, **options: Any) -> dict[str, Array]:
    """What layers of Keras return, in our layout."""
    states = state if isinstance(state, tuple) else (state,)
    count = len(states[0]) // len(layers)  # of directions
    y, finals = x, []
    for number, layer in enumerate(layers):
        first = number * count
        initial = [s[first + way] for way in range(count) for s in states]
        y, *final = layer(y, initial_state=initial, **options)
        finals += [np.asarray(f) for f in final]
    kinds = tuple(np.stack(finals[kind :: len(states)]) for kind in range(len(states)))
    return named(np.asarray(y), kinds)


def check(rng: Generator, layers: list[Any], ours: Any) -> None:
    x, state = call_of(rng, ours)
    check_close(named(*ours(x, state)), run(layers, x, state), 2 * error_bound(ours, T, B))


# Live


@pytest.mark.peer
@pytest.mark.parametrize(("layers", "bias"), [(2, True), (1, False)], ids=["bias", "no-bias"])
@both_ways
@every_cell
def test_same_results(
    rng: Generator, keras: Any, kind: str, layers: int, bidirectional: bool, bias: bool
) -> None:
    theirs = stack_of(rng, keras, kind, layers, bidirectional, use_bias=bias)
    ours = from_keras(theirs if layers > 1 else theirs[0])
    sizes = (ours.input_size, ours.hidden_size, ours.num_layers, ours.bidirectional, ours.bias)
    assert sizes == (I, H, layers, bidirectional, bias)
    assert type(ours) is CELLS[kind]
    assert ours.dtype == np.float32
    check(rng, theirs, ours)


@pytest.mark.peer
@both_ways
@pytest.mark.parametrize("layers", [1, 2])
@every_cell
def test_round_trip(
    rng: Generator, keras: Any, kind: str, layers: int, bidirectional: bool
) -> None:
    theirs = stack_of(rng, keras, kind, layers, bidirectional)
    expected = [layer.get_weights() for layer in theirs]
    expected[0][0][0, 0], expected[0][2].flat[0] = np.nan, -0.0
    theirs[0].set_weights(expected[0])
    for source in (theirs, expected):
        returned = to_keras_weights(from_keras(source, bidirectional=bidirectional))
        assert [len(arrays) for arrays in returned] == [len(arrays) for arrays in expected]
        for arrays, others in zip(returned, expected, strict=True):
            assert all(map(same_bits, arrays, others))


@pytest.mark.peer
@pytest.mark.parametrize(("bias", "bidirectional"), [(True, True), (False, False)])
@every_cell
def test_ours_in_keras(
    rng: Generator, keras: Any, kind: str, bias: bool, bidirectional: bool
) -> None:
    """A layer with two different biases, carried over to Keras."""
    options = {"bias": bias, "bidirectional": bidirectional, "batch_first": True}
    ours = CELLS[kind](I, H, 2, **options, seed=1)
    theirs = stack_of(rng, keras, kind, 2, bidirectional, use_bias=bias)
    for layer, weights in zip(theirs, to_keras_weights(ours), strict=True):
        layer.set_weights(weights)
    check(rng, theirs, ours)


@pytest.mark.peer
@both_ways
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_reset_before(rng: Generator, keras: Any, bias: bool, bidirectional: bool) -> None:
    theirs = stack_of(rng, keras, "GRU", 2, bidirectional, reset_after=False, use_bias=bias)
    ours = from_keras(theirs)
    assert not ours.reset_after
    check(rng, theirs, ours)
    returned = to_keras_weights(ours)
    for layer, arrays in zip(theirs, returned, strict=True):
        assert all(map(same_bits, arrays, layer.get_weights()))


@pytest.mark.peer
def test_relu(rng: Generator, keras: Any) -> None:
    theirs = stack_of(rng, keras, "SimpleRNN", 1, True, activation="relu")
    ours = from_keras(theirs[0])
    assert ours.nonlinearity == "relu"
    check(rng, theirs, ours)


@pytest.mark.peer
@pytest.mark.parametrize("kind", CELLS)
def test_cells(rng: Generator, keras: Any, kind: str) -> None:
    """The layer RNN around a cell, and the cell itself."""
    [theirs] = stack_of(rng, keras, kind, 1, False)
    cell = getattr(keras.layers, f"{kind}Cell")(H)
    around = keras.layers.RNN(cell)
    around.build((None, None, I))
    around.set_weights(theirs.get_weights())
    expected = from_keras(theirs)
    for source in (around, cell):
        made = from_keras(source)
        assert repr(made) == repr(expected)
        assert same_bits(made.parameters.flat, expected.parameters.flat)


@pytest.mark.peer
@both_ways
def test_masks_are_lengths(rng: Generator, keras: Any, bidirectional: bool) -> None:
    options = {"zero_output_for_mask": True}
    theirs = stack_of(rng, keras, "LSTM", 1, bidirectional, **options)
    ours = from_keras(theirs)
    x, state = call_of(rng, ours)
    lengths = np.array([T, 1, 4, 3, T])
    mask = np.arange(T) < lengths[:, None]
    expected = run(theirs, x, state, mask=mask)
    got = named(*ours(x, state, lengths=lengths))
    check_close(got, expected, 2 * error_bound(ours, T, B))


@pytest.mark.peer
@both_ways
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_last_output_is_the_state(
    rng: Generator, keras: Any, kind: str, bidirectional: bool
) -> None:
    """return_sequences=False."""
    options = {"return_sequences": False, "return_state": False}
    [theirs] = stack_of(rng, keras, kind, 1, bidirectional, **options)
    ours = from_keras(theirs)
    x, _ = call_of(rng, ours)
    state = ours(x)[1]
    h_n = state[0] if kind == "LSTM" else state
    got = {"y": np.concatenate(list(h_n), axis=-1)}
    check_close(got, {"y": np.asarray(theirs(x))}, 2 * error_bound(ours, T, B))


# Activations


FORMULAS: dict[str, Callable[..., Array]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "softsign": lambda x: x / (1 + abs(x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "elu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x)),
    "leaky_relu": lambda x, alpha=0.01: np.where(x > 0, x, alpha * x),
    "affine": lambda x, alpha=1.0, beta=0.0: alpha * x + beta,
    "hard_sigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
}


@pytest.mark.peer
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_the_same_functions(keras: Any, name: str) -> None:
    x = np.linspace(-5, 5, 101, dtype=np.float32)
    ours = ACTIVATIONS[name]
    function, *parameters = (ours,) if isinstance(ours, str) else ours
    expected = np.asarray(keras.activations.get(name)(x))
    assert np.abs(FORMULAS[function](x.astype(float), *parameters) - expected).max() < 1e-6


@pytest.mark.peer
@pytest.mark.parametrize(
    ("gate", "candidate"),
    [("hard_sigmoid", "tanh"), ("sigmoid", "relu"), ("softsign", "elu"), ("tanh", "leaky_relu")],
)
@both_ways
def test_activations(
    rng: Generator, keras: Any, gate: str, candidate: str, bidirectional: bool
) -> None:
    options = {"recurrent_activation": gate, "activation": candidate}
    theirs = stack_of(rng, keras, "LSTM", 2, bidirectional, **options)
    ours = from_keras(theirs)
    check(rng, theirs, ours)
    assert all(map(same_bits, to_keras_weights(ours)[1], theirs[1].get_weights()))


@pytest.mark.peer
def test_activations_of_each_direction(rng: Generator, keras: Any) -> None:
    functions = ("sigmoid", "relu", "relu", "sigmoid", "tanh", "tanh")
    forward = layer_of(keras, "LSTM", activation="relu")
    backward = layer_of(keras, "LSTM", go_backwards=True)
    theirs = keras.layers.Bidirectional(forward, backward_layer=backward)
    theirs.build((None, None, I))
    randomize(rng, theirs)
    ours = from_keras(theirs)
    assert ours.activations == functions
    check(rng, [theirs], ours)


# Layers that are refused


def odd_pair(keras: Any, **backward: Any) -> Any:
    """A Bidirectional whose second direction is another layer."""
    options = {"units": H, "kind": "LSTM", "go_backwards": True, **backward}
    made = getattr(keras.layers, options.pop("kind"))(**options)
    return keras.layers.Bidirectional(keras.layers.LSTM(H), backward_layer=made)


REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "go_backwards": (
        lambda k: k.layers.LSTM(H, go_backwards=True),
        ValueError,
        r"source: expected go_backwards=False, got True.* x\[:, ::-1\]",
    ),
    "forward that goes backwards": (
        lambda k: k.layers.Bidirectional(
            k.layers.GRU(H, go_backwards=True), backward_layer=k.layers.GRU(H)
        ),
        ValueError,
        "expected go_backwards=False, got True",
    ),
    "stateful": (
        lambda k: k.layers.GRU(H, stateful=True),
        ValueError,
        "expected stateful=False",
    ),
    "merge_mode": (
        lambda k: k.layers.Bidirectional(k.layers.LSTM(H), merge_mode="sum"),
        ValueError,
        "expected merge_mode='concat', got 'sum'",
    ),
    "no merge_mode": (
        lambda k: k.layers.Bidirectional(k.layers.LSTM(H), merge_mode=None),
        ValueError,
        "expected merge_mode='concat', got None",
    ),
    "activation": (
        lambda k: k.layers.LSTM(H, activation="gelu"),
        ValueError,
        "expected activations among sigmoid, tanh, .*, got 'gelu'",
    ),
    "activation of our own": (
        lambda k: k.layers.LSTM(H, activation=k.layers.LeakyReLU(0.3)),
        ValueError,
        "expected activations among .*, got {.*LeakyReLU",
    ),
    "activation of a GRU": (
        lambda k: k.layers.GRU(H, recurrent_activation="hard_sigmoid"),
        ValueError,
        "expected .* of a GRU, got 'hard_sigmoid' and 'tanh'",
    ),
    "activation of an RNN": (
        lambda k: k.layers.SimpleRNN(H, activation="softsign"),
        ValueError,
        "expected activation 'tanh' or 'relu', got 'softsign'",
    ),
    "sizes of directions": (
        lambda k: odd_pair(k, units=H + 1),
        ValueError,
        r"layers and directions differ in hidden_size: 9 and 10",
    ),
    "cells of directions": (
        lambda k: odd_pair(k, kind="GRU"),
        ValueError,
        "expected two directions of one kind, got lstm .* and gru",
    ),
    "biases of directions": (
        lambda k: odd_pair(k, use_bias=False),
        ValueError,
        "layers and directions differ in bias: True and False",
    ),
    "another layer": (lambda k: k.layers.Dense(H), TypeError, "of Keras, .* got Dense"),
    "several cells": (
        lambda k: k.layers.RNN([k.layers.LSTMCell(H), k.layers.LSTMCell(H)]),
        TypeError,
        "got StackedRNNCells",
    ),
}


@pytest.mark.peer
@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_layers(
    keras: Any, make: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    layer = make(keras)
    layer.build((B, T, I))
    before = layer.get_weights()
    with pytest.raises(error, match=message) as caught:
        from_keras(layer)
    assert caught.type is error
    assert all(map(same_bits, layer.get_weights(), before))


@pytest.mark.peer
def test_layers_that_are_not_built(keras: Any) -> None:
    for layer in (keras.layers.LSTM(H), keras.layers.Bidirectional(keras.layers.LSTM(H))):
        with pytest.raises(ValueError, match="the LSTM is not built: call it, or build"):
            from_keras(layer)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"return_sequences": False}, "expected return_sequences=True of layer 0"),
        ({"units": H + 1}, "layers and directions differ in hidden_size: 10 and 9"),
        ({"use_bias": False}, "differ in bias: False and True"),
        ({"activation": "relu"}, "differ in activations"),
    ],
    ids=["last-only", "units", "bias", "activation"],
)
@both_ways
def test_refused_stacks(
    rng: Generator, keras: Any, change: dict[str, Any], message: str, bidirectional: bool
) -> None:
    options = {"units": H, "return_sequences": True, **change}
    lower = keras.layers.LSTM(**options)
    lower = keras.layers.Bidirectional(lower) if bidirectional else lower
    lower.build((None, None, I))
    upper = layer_of(keras, "LSTM", bidirectional)
    upper.build((None, None, options["units"] * (1 + bidirectional)))
    with pytest.raises(ValueError, match=message):
        from_keras([lower, upper])


@pytest.mark.peer
def test_dropout_is_left_out_aloud(rng: Generator, keras: Any) -> None:
    theirs = stack_of(rng, keras, "LSTM", 1, True, dropout=0.2, recurrent_dropout=0.1)
    with pytest.warns(UserWarning, match="dropout and recurrent_dropout left out") as caught:
        ours = from_keras(theirs[0])
    [warning] = [warning for warning in caught if warning.category is UserWarning]
    assert warning.filename == __file__
    check(rng, theirs, ours)


@pytest.mark.peer
def test_example() -> None:
    pytest.importorskip("keras")
    text = script("examples/keras_weights.py", "--steps", "5", "--calls", "2")
    [line] = [line for line in text.splitlines() if line.startswith("largest difference")]
    assert float(line.split()[-1]) < 1e-5
