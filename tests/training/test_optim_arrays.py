"""Optimizers of plain arrays and mappings: the bits of `Parameters`, in place, or an error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, Arrays, check_bits, same_bits
from support.optimizers import OPTIONS

import fastlstm
from fastlstm import optim
from fastlstm._parameters import Gradients

Parameters = fastlstm.Parameters

SHAPES: dict[str, tuple[int, ...]] = {"w": (5, 3), "b": (5,), "scale": ()}

every_optimizer = pytest.mark.parametrize(("name", "options"), OPTIONS)


def random_arrays(rng: Generator, dtype: str = "float64") -> Arrays:
    return {n: np.asarray(rng.standard_normal(s), dtype) for n, s in SHAPES.items()}


def copies(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def as_gradients(arrays: Arrays) -> Gradients:
    return Gradients(SHAPES, np.concatenate([array.ravel() for array in arrays.values()]))


FORMS: dict[str, Callable[[Arrays], Any]] = {
    "mapping": lambda arrays: arrays,
    "arrays": lambda arrays: list(arrays.values()),
    "mixed": lambda arrays: ({"w": arrays["w"], "b": arrays["b"]}, arrays["scale"]),
    "mapping in a list": lambda arrays: [arrays],
}


@every_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_same_bits_as_parameters(
    rng: Generator, form: Callable[[Arrays], Any], dtype: str, name: str, options: dict[str, Any]
) -> None:
    arrays = random_arrays(rng, dtype)
    parameters = Parameters(arrays)
    ours = getattr(optim, name)(form(arrays), 0.1, **options)
    expected = getattr(optim, name)(parameters, 0.1, **options)
    for _ in range(3):
        grads = random_arrays(rng, dtype)
        before = copies(grads)
        ours.step(form(grads))
        check_bits(grads, before)
        expected.step(as_gradients(grads))
    check_bits(arrays, dict(parameters))
    assert repr(ours) == repr(expected)


def test_parameters_take_a_mapping_in_any_order(rng: Generator) -> None:
    grads = random_arrays(rng)
    one, other, third = (Parameters(SHAPES, "float64") for _ in range(3))
    optim.Adam(one).step(as_gradients(grads))
    optim.Adam(other).step(dict(reversed(grads.items())))
    turned = {n: SHAPES[n] for n in reversed(SHAPES)}
    flat = np.concatenate([grads[n].ravel() for n in turned])
    optim.Adam(third).step(Gradients(turned, flat))
    assert one.flat.any()
    assert same_bits(one.flat, other.flat)
    assert same_bits(one.flat, third.flat)


def test_gradients_need_not_be_contiguous(rng: Generator) -> None:
    grad = rng.standard_normal((3, 5))
    arrays = [np.zeros((5, 3)), np.zeros((5, 3))]
    for array, g in zip(arrays, (grad.T, grad.T.copy()), strict=True):
        optim.SGD(array, 0.5).step(g)
    assert same_bits(*arrays)
    assert same_bits(arrays[0], -0.5 * grad.T)


@every_optimizer
def test_saved_state_goes_on(rng: Generator, name: str, options: dict[str, Any]) -> None:
    arrays, alone = random_arrays(rng), rng.standard_normal(4)
    optimizer = getattr(optim, name)([arrays, alone], 0.02, **options)
    steps = [[random_arrays(rng), rng.standard_normal(4)] for _ in range(4)]
    for grads in steps[:2]:
        optimizer.step(grads)
    middle = [copies(arrays), alone.copy()]
    state = optimizer.state_dict()
    assert len(state["vectors"]) == len(SHAPES) + 1
    resumed = getattr(optim, name)(middle, 0.5)
    resumed.load_state_dict(state)
    for grads in steps[2:]:
        optimizer.step(grads)
        resumed.step(grads)
    check_bits(middle[0], arrays)
    assert same_bits(middle[1], alone)
    with pytest.raises(ValueError, match=r"^state: expected vectors of 1 parameters, got 4$"):
        getattr(optim, name)(np.ones(4)).load_state_dict(state)


def test_a_copy_trains_copies(rng: Generator) -> None:
    arrays, gru = random_arrays(rng), fastlstm.GRU(2, 3, dtype="float64", seed=0)
    optimizer = optim.SGD([arrays, gru.parameters], 1.0)
    other, theirs, layer = copy.deepcopy((optimizer, arrays, gru))
    grads = [random_arrays(rng), {n: np.ones_like(p) for n, p in gru.parameters.items()}]
    other.step(grads)
    before = copies(arrays)
    assert not any(same_bits(theirs[n], arrays[n]) for n in SHAPES)
    assert not (layer.parameters.flat == gru.parameters.flat).any()
    optimizer.step(grads)
    check_bits(arrays, theirs)
    assert not any(same_bits(before[n], arrays[n]) for n in SHAPES)
    assert same_bits(layer.parameters.flat, gru.parameters.flat)


def read_only(array: Array) -> Array:
    array.setflags(write=False)
    return array


SHARED = np.zeros(8)
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "integers": (np.zeros(3, int), TypeError, "^parameters: expected float32 or float64, got int"),
    "other bytes": (np.zeros(3, ">f4"), TypeError, "^parameters: expected float32 .* got >f4$"),
    "half": ({"w": np.zeros(3, "f2")}, TypeError, r"^parameters\['w'\]: expected .* got float16$"),
    "list": ({"w": [1.0, 2.0]}, TypeError, r"^parameters\['w'\]: expected an array, got list$"),
    "read-only": (
        [np.zeros(2), read_only(np.zeros(2))],
        ValueError,
        r"^parameters\[1\]: expected an array that can be written to, got a read-only one$",
    ),
    "strided": (
        {"w": np.zeros((4, 4))[:, ::2]},
        ValueError,
        r"^parameters\['w'\]: expected a C-contiguous array, got strides \(32, 16\)$",
    ),
    "turned": (np.zeros((2, 3)).T, ValueError, "^parameters: expected a C-contiguous array"),
    "twice": (
        [SHARED, {"w": SHARED}],
        ValueError,
        r"^parameters\[1\]\['w'\]: expected memory of its own, got some that parameters\[0\] has",
    ),
    "overlap": (
        {"a": SHARED[:5], "b": np.zeros(2), "c": SHARED[4:]},
        ValueError,
        r"^parameters\['c'\]: expected memory of its own, got some that parameters\['a'\] has",
    ),
    "nothing": ({}, ValueError, "^parameters: expected something to train, got nothing$"),
    "none": (None, TypeError, "^parameters: expected Parameters, such as .*, got NoneType$"),
    "text": ("w", TypeError, "^parameters: expected Parameters, such as .*, got str$"),
    "deep": ([[np.zeros(2)]], TypeError, r"^parameters\[0\]: expected Parameters, .* got list$"),
    "small weights": (
        fastlstm.LSTM(2, 3).quantize("int8").parameters,
        TypeError,
        "^parameters: expected weights of float32 or float64, got int8: train the layer that was",
    ),
}


@pytest.mark.parametrize(("parameters", "error", "message"), BAD.values(), ids=BAD)
def test_wrong_arrays(parameters: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        optim.Adam(parameters)


def test_neighbours_share_nothing() -> None:
    both = np.zeros(8)
    optim.SGD([both[:4], both[4:]], 1.0).step([np.ones(4), np.full(4, 2.0)])
    assert both.tolist() == [-1.0] * 4 + [-2.0] * 4


def test_columns_of_one_matrix_share_nothing() -> None:
    """Their addresses overlap; backward and strided views, too."""
    matrix = np.zeros((3, 4))
    parts = [matrix[:, :2], matrix[::-1, 2:]]
    grads = [part + 3.0 for part in parts]
    grads = [*np.split(np.full((3, 4), 3.0), 2, axis=1)]
    assert optim.clip_grad_norm(grads, 1.0) == pytest.approx(108**0.5)
    shared = np.ones(9)
    with pytest.raises(ValueError, match=r"grads\[2\]: expected memory of its own"):
        optim.clip_grad_norm([shared[:3], np.ones(4), shared[8:1:-1]], 1.0)


GOOD = {"w": np.ones((5, 3)), "b": np.ones(5), "scale": np.ones(())}
BAD_GRADIENTS: dict[str, tuple[Any, type[Exception], str]] = {
    "missing": ({"w": GOOD["w"]}, ValueError, "^grads: expected those of w, b, scale, got w$"),
    "unknown": (GOOD | {"c": 1}, ValueError, "^grads: expected those of w, b, scale, got w, b, sc"),
    "shape": (
        GOOD | {"b": np.ones((5, 1))},
        ValueError,
        r"^grads\['b'\]: expected \(5,\), got \(5, 1\)$",
    ),
    "dtype": (
        GOOD | {"scale": np.ones((), "f4")},
        TypeError,
        r"^grads\['scale'\]: expected float64, got float32$",
    ),
    "number": (
        GOOD | {"scale": 1.0},
        TypeError,
        r"^grads\['scale'\]: expected an array, got float$",
    ),
    "array": (np.ones(5), TypeError, "^grads: expected a mapping with w, b, scale, got ndarray$"),
    "two": ([GOOD, GOOD], ValueError, "^grads: expected those of 1 parameters, got 2$"),
}


@pytest.mark.parametrize("of", [dict, Parameters], ids=["arrays", "Parameters"])
@pytest.mark.parametrize(("grads", "error", "message"), BAD_GRADIENTS.values(), ids=BAD_GRADIENTS)
def test_wrong_gradients_change_nothing(
    rng: Generator, of: Any, grads: Any, error: type[Exception], message: str
) -> None:
    parameters = of(random_arrays(rng))
    before = copies(parameters)
    optimizer = optim.Adam(parameters)
    with pytest.raises(error, match=message):
        optimizer.step(grads)
    check_bits(dict(parameters), before)
    assert optimizer.state_dict()["steps"] == 0


def test_what_is_wrong_with_a_later_array_changes_no_earlier_one() -> None:
    arrays = {"a": np.ones(2), "b": np.ones(2)}
    lstm = fastlstm.LSTM(2, 3, dtype="float64", seed=0)
    optimizer = optim.SGD([lstm.parameters, arrays], 1.0)
    grads = [{n: np.ones_like(p) for n, p in lstm.parameters.items()}, copies(arrays)]
    version = lstm.parameters.version
    given = arrays["b"]
    arrays["b"] = np.ones(2)
    with pytest.raises(ValueError, match=r"^parameters\[1\]\['b'\]: expected the array that the"):
        optimizer.step(grads)
    arrays["b"] = read_only(given)
    with pytest.raises(ValueError, match=r"^parameters\[1\]\['b'\]: expected .* a read-only one$"):
        optimizer.step(grads)
    assert arrays["a"].tolist() == [1, 1]
    assert lstm.parameters.version == version
    given.setflags(write=True)
    optimizer.step(grads)
    assert arrays["a"].tolist() == [0, 0]
    assert optimizer.state_dict()["steps"] == 1


# Clipping


def test_norm_of_a_mapping_is_that_of_gradients(rng: Generator) -> None:
    shapes = {"w": (300, 41), "b": (77,)}  # more than a block of the sum
    arrays = {n: rng.standard_normal(s).astype("f4") for n, s in shapes.items()}
    flat = np.concatenate([array.ravel() for array in arrays.values()])
    norm = optim.clip_grad_norm(arrays, 1.0)
    assert norm == optim.clip_grad_norm(Gradients(shapes, flat), 1.0)
    scaled = np.concatenate([array.ravel() for array in arrays.values()])
    assert same_bits(scaled, flat)
    assert np.linalg.norm(scaled) == pytest.approx(1, rel=1e-4)


def test_clipping_of_any_arrays(rng: Generator) -> None:
    wide = rng.standard_normal((4, 6))
    expected = wide.copy()
    alone = np.array(3.0)
    norm = optim.clip_grad_norm([wide[:, ::2].T, {"w": wide[:, 1::2]}, alone], 0.5)
    assert norm == pytest.approx(np.sqrt(np.sum(expected**2) + 9), rel=1e-14)
    np.testing.assert_allclose(wide, expected * 0.5 / norm, rtol=1e-5)
    assert alone == pytest.approx(1.5 / norm, rel=1e-5)
    assert optim.clip_grad_norm({}, 1.0) == 0


@pytest.mark.parametrize(
    ("last", "error", "message"),
    [
        (read_only(np.ones(3)), ValueError, r"^grads\[1\]: expected .* got a read-only one$"),
        ({"w": np.ones(3, int)}, TypeError, r"^grads\[1\]\['w'\]: expected .* got int64$"),
        (7.0, TypeError, r"^grads\[1\]: expected an array, got float$"),
        (fastlstm.LSTM(2, 3).parameters, ValueError, r"^grads\[1\]\['weight_ih_l0'\]: .* read-"),
    ],
)
def test_clipping_changes_all_or_nothing(last: Any, error: type[Exception], message: str) -> None:
    first = np.ones(3)
    with pytest.raises(error, match=message):
        optim.clip_grad_norm([first, last], 0.1)
    with pytest.raises(ValueError, match=r"^grads\[1\]: expected memory of its own, got some"):
        optim.clip_grad_norm([first, first[1:]], 0.1)
    assert first.tolist() == [1, 1, 1]


# Parameters of one's own


def test_parameters_of_arrays_are_copies() -> None:
    w = np.arange(6.0).reshape(2, 3)
    parameters = Parameters({"w": w.T, "b": (2,), "none": (0, 4)})
    assert (parameters.flat.dtype, parameters.size) == (np.float64, 8)
    assert same_bits(parameters["w"], np.ascontiguousarray(w.T))
    w[:] = 7
    assert parameters.flat.tolist() == [0, 3, 1, 4, 2, 5, 0, 0]
    assert Parameters({"b": (3,)}).flat.dtype == np.float32
    assert Parameters({"b": np.ones(3, "f4")}).flat.dtype == np.float32
    assert Parameters({"b": np.arange(3)}, "float32")["b"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "dtype", "error", "message"),
    [
        ([np.ones(2)], None, TypeError, "^arrays: expected a mapping, got list$"),
        ({1: np.ones(2)}, None, TypeError, "^arrays: expected names that are strings, got 1$"),
        ({"w": [1.0]}, None, TypeError, r"^arrays\['w'\]: expected an array or a shape, got \[1"),
        ({"w": (2.0,)}, None, TypeError, r"^arrays\['w'\]: expected an array or a shape, got \(2"),
        ({"w": (2, -1)}, None, ValueError, r"^arrays\['w'\]: expected sizes of at least 0, got"),
        ({"w": np.ones(2, int)}, None, TypeError, "^dtype: expected float32 or float64, got int64"),
        ({"w": (2,)}, "int8", TypeError, "^dtype: expected float32 or float64, got int8$"),
        (
            {"w": np.ones(2), "b": np.ones(2, "f4")},
            None,
            TypeError,
            r"^arrays\['b'\]: expected float64 as before, got float32$",
        ),
        ({"w": np.array("a")}, "float32", TypeError, r"^arrays\['w'\]: expected real numbers, got"),
    ],
)
def test_wrong_parameters(arrays: Any, dtype: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Parameters(arrays, dtype)
