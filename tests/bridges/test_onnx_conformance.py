"""Nodes of ONNX: the node tests of its own suite, and a grid of attributes beside ONNX Runtime."""

from __future__ import annotations

import itertools
import re
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.onnx_models import DIRECTIONS, INPUTS, OUTPUTS, check, model, random_tensors, run_model

pytestmark = pytest.mark.peer
helper = pytest.importorskip("onnx").helper
from fastlstm.onnx import run_node  # noqa: E402

T, B, I, H = 5, 4, 3, 6  # all different, so that a mix-up shows
CLIP = 0.7
TOLERANCE = 4e-6
LENGTHS = {"whole": None, "ragged": [5, 2, 4, 1], "empty": [3, 0, 5, 1]}

# Functions with their alpha and beta, none of them the default.
PARAMETERS: dict[str, list[float]] = {
    "Relu": [],
    "Affine": [0.6, 0.2],
    "LeakyRelu": [0.15],
    "ThresholdedRelu": [0.3],
    "ScaledTanh": [1.3, 0.7],
    "HardSigmoid": [0.25, 0.4],
    "Elu": [0.8],
    "Softsign": [],
    "Softplus": [],
    "Sigmoid": [],
    "Tanh": [],
}
OUR_NAMES = {"LeakyRelu": "leaky_relu", "ThresholdedRelu": "thresholded_relu"}
OUR_NAMES |= {"ScaledTanh": "scaled_tanh", "HardSigmoid": "hard_sigmoid"}


SEQUENCES = ["defaults", "with_initial_bias", "batchwise", "reverse", "bidirectional"]
NODE_CASES = [
    *(f"test_lstm_{name}" for name in [*SEQUENCES, "with_peepholes"]),
    *(f"test_gru_{name}" for name in [*SEQUENCES, "seq_length"]),
    *(f"test_simple_rnn_{name}" for name in SEQUENCES),
    "test_rnn_seq_length",
]


@pytest.fixture(scope="module")
def node_cases() -> dict[str, Any]:
    """ONNX's own cases by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(action="ignore"):  # cases of other operators overflow
        cases = collect_testcases(None)
    return {case.name: case for case in cases if case.model.graph.node[0].op_type in OUTPUTS}


def test_there_are_18_node_cases(node_cases: dict[str, Any]) -> None:
    assert sorted(node_cases) == sorted(NODE_CASES)
    assert len(NODE_CASES) == 18


@pytest.mark.parametrize("name", NODE_CASES)
def test_node_case(node_cases: dict[str, Any], name: str) -> None:
    case = node_cases[name]
    node = case.model.graph.node[0]
    op, attributes = node.op_type, {a.name: helper.get_attribute_value(a) for a in node.attribute}
    given = [INPUTS[op][k] for k, value in enumerate(node.input) if value]
    wanted = [OUTPUTS[op][k] for k, value in enumerate(node.output) if value]
    assert case.data_sets
    for inputs, outputs in case.data_sets:
        got = run_node(op, dict(zip(given, inputs, strict=True)), attributes)
        for output, expected in zip(wanted, outputs, strict=True):
            assert got[output].shape == expected.shape
            np.testing.assert_allclose(got[output], expected, case.rtol, case.atol)


def compare(
    rng: Generator, op: str, attributes: dict[str, Any], scale: float = 1.0, **options: bool
) -> None:
    """A node with every direction and all kinds of lengths."""
    for direction, lengths in itertools.product(DIRECTIONS, LENGTHS):
        inputs = random_tensors(rng, op, direction, T, B, I, H, **options)
        inputs = {name: np.float32(scale) * array for name, array in inputs.items()}
        if LENGTHS[lengths] is not None:
            inputs["sequence_lens"] = np.array(LENGTHS[lengths], np.int32)
        found = {name: value for name, value in attributes.items() if not name.startswith("of ")}
        found |= attributes.get(f"of {direction}", {})
        found |= {"direction": direction, "hidden_size": H}
        expected = run_model(model(op, inputs, found), inputs)
        got = run_node(op, inputs, found)
        for name, array in zip(OUTPUTS[op], expected, strict=True):
            what = f"{name}, {direction}, {lengths}, {found}"
            check(got[name], array, TOLERANCE, what)


def activations(functions: tuple[str, ...]) -> dict[str, Any]:
    """Attributes for these functions; in the reverse direction of two, in the opposite order."""

    def of(names: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {"activations": list(names)}
        for k, attribute in enumerate(["activation_alpha", "activation_beta"]):
            values = [PARAMETERS[name][k] for name in names if len(PARAMETERS[name]) > k]
            found |= {attribute: values} if values else {}
        return found

    one_way, both_ways = of(functions), of(functions + functions[::-1])
    return {"of forward": one_way, "of reverse": one_way, "of bidirectional": both_ways}


@pytest.mark.parametrize("coupled", [False, True], ids=["f", "1-i"])
@pytest.mark.parametrize("clip", [False, True], ids=["open", "clip"])
@pytest.mark.parametrize("peephole", [False, True], ids=["plain", "peephole"])
@pytest.mark.parametrize("function", [None, *PARAMETERS])
def test_lstm(
    rng: Generator, function: str | None, peephole: bool, clip: bool, coupled: bool
) -> None:
    attributes: dict[str, Any] = {"clip": CLIP} if clip else {}
    attributes |= {"input_forget": 1} if coupled else {}
    if function is None:
        compare(rng, "LSTM", attributes, peephole=peephole)
        return
    for place in range(3):
        functions = ["Sigmoid", "Tanh", "Tanh"]
        functions[place] = function
        scale = 1.0 if clip else 0.25  # gates without bound are not stable
        found = attributes | activations(tuple(functions))
        compare(rng, "LSTM", found, scale, peephole=peephole)


def test_default_parameters_of_functions(rng: Generator) -> None:
    some: dict[str, Any] = {"activations": ["HardSigmoid", "Elu", "LeakyRelu"]}
    compare(rng, "LSTM", {"of forward": some})
    some |= {"activation_alpha": [0.3, 0.7]}  # of the first two that have one
    compare(rng, "LSTM", {"of forward": some})


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_gru(rng: Generator, after: bool) -> None:
    compare(rng, "GRU", {"linear_before_reset": int(after)})
    named = {"activations": ["Sigmoid", "Tanh"]}
    both_ways = {"activations": named["activations"] * 2}
    found = {"of forward": named, "of reverse": named, "of bidirectional": both_ways}
    compare(rng, "GRU", {"linear_before_reset": int(after), **found})


@pytest.mark.parametrize("function", ["Tanh", "Relu"])
def test_rnn(rng: Generator, function: str) -> None:
    one_way, both_ways = {"activations": [function]}, {"activations": [function] * 2}
    compare(
        rng, "RNN", {"of forward": one_way, "of reverse": one_way, "of bidirectional": both_ways}
    )


@pytest.mark.parametrize("op", OUTPUTS)
def test_optional_inputs(rng: Generator, op: str) -> None:
    """Without B and initial states, alone and together."""
    inputs = random_tensors(rng, op, "bidirectional", T, B, I, H)
    attributes = {"direction": "bidirectional", "hidden_size": H}
    attributes |= {"linear_before_reset": 1} if op == "GRU" else {}
    optional = [name for name in inputs if name not in "XWR"]
    for count in range(1, len(optional) + 1):
        for left_out in itertools.combinations(optional, count):
            some = {name: array for name, array in inputs.items() if name not in left_out}
            expected = run_model(model(op, some, attributes), some)
            got = run_node(op, some, attributes)
            for name, array in zip(OUTPUTS[op], expected, strict=True):
                check(got[name], array, TOLERANCE, f"{name} without {left_out}")


@pytest.mark.parametrize("op", OUTPUTS)
def test_rows_first(rng: Generator, op: str) -> None:
    """layout=1, which ONNX Runtime does not have on CPUs, is the transposition of layout=0."""
    found: dict[str, Any] = {"linear_before_reset": 1} if op == "GRU" else {}
    for direction in DIRECTIONS:
        inputs = random_tensors(rng, op, direction, T, B, I, H)
        inputs["sequence_lens"] = np.array(LENGTHS["empty"])
        turned = {"X", "initial_h", "initial_c"}
        other = {n: a.swapaxes(0, 1) if n in turned else a for n, a in inputs.items()}
        expected = run_node(op, inputs, {"direction": direction, **found})
        got = run_node(op, other, {"direction": direction, "layout": 1, **found})
        y = expected["Y"].transpose(2, 0, 1, 3)
        assert got["Y"].shape == y.shape
        assert (got["Y"] == y).all()
        for name in OUTPUTS[op][1:]:
            assert (got[name] == expected[name].swapaxes(0, 1)).all()


def test_float64(rng: Generator) -> None:
    inputs = random_tensors(rng, "LSTM", "bidirectional", T, B, I, H)
    double = {name: array.astype(np.float64) for name, array in inputs.items()}
    expected = run_node("LSTM", inputs, {"direction": "bidirectional"})
    got = run_node("LSTM", double, {"direction": "bidirectional"})
    for name, array in expected.items():
        assert got[name].dtype == np.float64
        check(got[name].astype(np.float32), array, TOLERANCE, name)
        assert (got[name] != array).any()  # it has computed in double


def ones(*shape: int, dtype: str = "float32") -> Any:
    return np.ones(shape, dtype)


# What is changed of a good node (None: left out), attributes, the message (from its beginning).
REFUSED_INPUTS: list[tuple[dict[str, Any], str]] = [
    ({"X": None}, "X: missing, a node of LSTM needs it"),
    ({"W": None}, "W: missing, a node of LSTM needs it"),
    ({"R": None}, "R: missing, a node of LSTM needs it"),
    ({"Q": 1}, "inputs: LSTM has no 'Q'"),
    ({"X": ones(T, B, I, dtype="f2")}, "dtype of X: expected 'float32' or 'float64', got"),
    ({"X": ones(T, B, 2)}, "X: expected (T, B, 3), got (5, 4, 2)"),
    ({"X": ones(T, I)}, "X: expected (T, B, 3), got (5, 3)"),
    ({"W": ones(1, 24, I, dtype="f8")}, "W: expected float32, got float64"),
    ({"W": ones(24, I)}, "W: expected 3 axes, got (24, 3)"),
    ({"W": ones(1, 18, I)}, "W: expected (1, 24, 3), got (1, 18, 3)"),
    ({"W": ones(2, 24, I)}, "W: expected (1, 24, 3), got (2, 24, 3)"),
    ({"R": ones(1, 18, H)}, "R: expected (1, 24, 6), got (1, 18, 6)"),
    ({"B": ones(1, 24)}, "B: expected (1, 48), got (1, 24)"),
    ({"P": ones(1, 24)}, "P: expected (1, 18), got (1, 24)"),
    ({"initial_h": ones(B, H)}, "initial_h: expected (1, 4, 6), got (4, 6)"),
    ({"initial_c": ones(1, B, 5)}, "initial_c: expected (1, 4, 6), got (1, 4, 5)"),
    ({"sequence_lens": [1, 2, 3, 6]}, "sequence_lens: expected integers from 0 to 5, got 6"),
    ({"sequence_lens": [1, 2]}, "sequence_lens: expected (4,), got (2,)"),
]
REFUSED_ATTRIBUTES: list[tuple[str, dict[str, Any], str]] = [
    ("LSTM", {"hidden_size": 5}, "hidden_size: 5 does not agree with R, which is (1, 24, 6)"),
    ("LSTM", {"hidden_size": 6.0}, "hidden_size: expected an integer, got float"),
    ("LSTM", {"direction": "up"}, "direction: expected forward, reverse, bidirectional, got 'up'"),
    ("LSTM", {"direction": [1]}, "direction: expected forward, reverse, bidirectional, got [1]"),
    ("LSTM", {"direction": "bidirectional"}, "W: expected (2, 24, 3), got (1, 24, 3)"),
    ("LSTM", {"input_forget": 2}, "input_forget: expected at most 1, got 2"),
    ("LSTM", {"layout": 2}, "layout: expected at most 1, got 2"),
    ("LSTM", {"clip": 0.0}, "clip: expected a positive number, got 0.0"),
    ("LSTM", {"clip": -1.0}, "clip: expected a positive number, got -1.0"),
    ("LSTM", {"clip": np.nan}, "clip: expected finite numbers, got [nan]"),
    ("LSTM", {"clip": "1m"}, "clip: expected numbers, got ['1m']"),
    ("LSTM", {"output_sequence": 1}, "attributes: LSTM has no 'output_sequence'"),
    ("LSTM", {"linear_before_reset": 1}, "attributes: LSTM has no 'linear_before_reset'"),
    ("LSTM", {"activations": ["Tanh"]}, "activations: expected 3 names, 3 for each direction, got"),
    ("LSTM", {"activations": 3}, "activations: expected a list of names, got 3"),
    ("LSTM", {"activations": ["Gelu"] * 3}, "activations: expected names out of Sigmoid, Tanh, "),
    ("LSTM", {"activations": ["Tanh", "Affine", "Tanh"]}, "activation_alpha: missing, ONNX has no"),
    ("LSTM", {"activation_alpha": [0.1]}, "activation_alpha: expected a number for each function"),
    ("LSTM", {"activation_beta": ["x"]}, "activation_beta: expected numbers, got ['x']"),
    ("GRU", {"clip": 0.5}, "clip: fastlstm has none for GRU, got 0.5"),
    ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, "activations: expected Sigmoid and Tanh for"),
    ("GRU", {"activations": ["Sigmoid", "Relu"]}, "activations: expected Sigmoid and Tanh for GRU"),
    ("RNN", {"clip": 0.5}, "clip: fastlstm has none for RNN, got 0.5"),
    ("RNN", {"activations": ["Softsign"]}, "activations: expected Tanh or Relu for RNN, got ['So"),
    ("RNN", {"input_forget": 1}, "attributes: RNN has no 'input_forget'"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED_INPUTS)
def test_refused_inputs(rng: Generator, changes: dict[str, Any], message: str) -> None:
    inputs = random_tensors(rng, "LSTM", "forward", T, B, I, H) | changes
    given = {name: array for name, array in inputs.items() if array is not None}
    with pytest.raises((TypeError, ValueError), match="^" + re.escape(message)):
        run_node("LSTM", given)


@pytest.mark.parametrize(("op", "attributes", "message"), REFUSED_ATTRIBUTES)
def test_refused_attributes(
    rng: Generator, op: str, attributes: dict[str, Any], message: str
) -> None:
    inputs = random_tensors(rng, op, "forward", T, B, I, H)
    with pytest.raises((TypeError, ValueError), match="^" + re.escape(message)):
        run_node(op, inputs, attributes)


def test_refused_operator() -> None:
    with pytest.raises(ValueError, match=r"^op_type: expected one of LSTM, GRU, RNN, "):
        run_node("Lstm", {})


def test_refused_different_directions(rng: Generator) -> None:
    inputs = random_tensors(rng, "RNN", "bidirectional", T, B, I, H)
    attributes = {"direction": "bidirectional", "activations": ["Tanh", "Relu"]}
    with pytest.raises(ValueError, match=r"^activations: expected Tanh or Relu for RNN, got \['Ta"):
        run_node("RNN", inputs, attributes)
