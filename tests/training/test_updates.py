"""The one pass of each optimizer: against its equations, whatever the threads, and its limits."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from support.optimizers import OPTIONS
from support.processes import needs_linux, needs_openmp, python

import fastlstm
from fastlstm import optim
from fastlstm._core import updates
from fastlstm._parameters import Gradients, Parameters

Array = NDArray[Any]

ALL = pytest.mark.parametrize(("name", "options"), OPTIONS)
BOTH = pytest.mark.parametrize("dtype", ["float32", "float64"])

# Two threads share vectors of 131,072 elements and more.
SIZES = [1, 7, 8193, 131_071, 131_075, 200_003]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, which is as before after the test."""
    before = fastlstm.get_num_threads()
    yield fastlstm.set_num_threads
    fastlstm.set_num_threads(before)


def random_gradient(rng: Generator, size: int, dtype: str) -> Gradients:
    # Sizes from 1e-3 to 10, so that eps matters in some places.
    flat = rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 1, size)
    return Gradients({"w": (size,)}, flat.astype(dtype))


# The equations of the docstrings, in float64: weights, gradient, state of before, step 1, 2, ...


def sgd(p: Array, g: Array, s: Any, t: int, lr: float, o: Any) -> Array:
    g = g + o["weight_decay"] * p
    s["b"] = g if t == 1 else o["momentum"] * s["b"] + (1 - o["dampening"]) * g
    return p - lr * (g + o["momentum"] * s["b"] if o["nesterov"] else s["b"])


def rmsprop(p: Array, g: Array, s: Any, t: int, lr: float, o: Any) -> Array:
    g = g + o["weight_decay"] * p
    s["v"] = o["alpha"] * s.get("v", 0) + (1 - o["alpha"]) * g**2
    s["m"] = (o["alpha"] * s.get("m", 0) + (1 - o["alpha"]) * g) if o["centered"] else 0
    s["b"] = o["momentum"] * s.get("b", 0) + g / (np.sqrt(s["v"] - s["m"] ** 2) + o["eps"])
    return p - lr * s["b"]


def adagrad(p: Array, g: Array, s: Any, t: int, lr: float, o: Any) -> Array:
    g = g + o["weight_decay"] * p
    s["s"] = s.get("s", o["initial_accumulator_value"]) + g**2
    return p - lr / (1 + (t - 1) * o["lr_decay"]) * g / (np.sqrt(s["s"]) + o["eps"])


def adam(p: Array, g: Array, s: Any, t: int, lr: float, o: Any) -> Array:
    beta1, beta2 = o["betas"]
    g = g + o["weight_decay"] * p
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g**2
    s["largest"] = np.maximum(s["v"], s.get("largest", 0))
    v = s["largest"] if o["amsgrad"] else s["v"]
    return p - lr * (s["m"] / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + o["eps"])


def adamw(p: Array, g: Array, s: Any, t: int, lr: float, o: Any) -> Array:
    return adam(p - lr * o["weight_decay"] * p, g, s, t, lr, {**o, "weight_decay": 0})


EQUATIONS = {"SGD": sgd, "RMSprop": rmsprop, "Adagrad": adagrad, "Adam": adam, "AdamW": adamw}


@BOTH
@ALL
def test_follows_the_equations(name: str, options: Any, dtype: str, rng: Generator) -> None:
    size, lr = 1031, 0.01
    weights = Parameters({"w": (size,)}, dtype)
    weights.flat = rng.standard_normal(size)
    optimizer = getattr(optim, name)(weights, lr, **options)
    every_option = optimizer.state_dict()["options"]
    expected, state = weights.flat.astype("float64"), {}
    for step in range(1, 6):
        grads = random_gradient(rng, size, dtype)
        optimizer.step(grads)
        g = grads.flat.astype("float64")
        expected = EQUATIONS[name](expected, g, state, step, lr, every_option)
        errors = (weights.flat - expected) / np.maximum(1, np.abs(expected))
        assert np.abs(errors).max() < step * np.finfo(dtype).eps


@BOTH
@ALL
def test_bits_do_not_depend_on_threads(
    name: str, options: Any, dtype: str, rng: Generator, threads: Callable[[int], None]
) -> None:
    for size in SIZES:
        start, grads = rng.standard_normal(size), random_gradient(rng, size, dtype)
        found = set()
        for n in (1, 2, 3, 7):
            threads(n)
            weights = Parameters({"w": (size,)}, dtype)
            weights.flat = start
            optimizer = getattr(optim, name)(weights, **options)
            optimizer.step(grads)
            optimizer.step(grads)
            [vectors] = optimizer.state_dict()["vectors"]
            found.add((weights.flat.tobytes(), *(v.tobytes() for v in vectors.values())))
        assert len(found) == 1


@BOTH
@ALL
@pytest.mark.parametrize("n", [1, 3])
def test_denormals_are_zero(
    name: str, options: Any, dtype: str, n: int, threads: Callable[[int], None]
) -> None:
    """In every thread; and what the caller computes next has denormals still."""
    threads(n)
    size, tiny = 200_003, np.finfo(dtype).tiny
    weights, grads = Parameters({"w": (size,)}, dtype), np.full(size, tiny / 8)
    weights.flat = np.full(size, tiny / 2)
    optimizer = getattr(optim, name)(weights, **options)
    state = optimizer.state_dict()
    for vector in state["vectors"][0].values():
        vector.fill(tiny / 4)
    optimizer.load_state_dict(state)
    optimizer.step(Gradients({"w": (size,)}, grads.astype(dtype)))
    [vectors] = optimizer.state_dict()["vectors"]
    for vector in (weights.flat, *vectors.values()):
        assert not vector.any()
    assert optim.clip_grad_norm(Gradients({"w": (size,)}, grads.astype(dtype)), 1.0) == 0
    assert (np.full(9, tiny, dtype) / 2).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [("Adam", {"betas": (0.0, 0.0)}), ("RMSprop", {"alpha": 0.0, "centered": True, "eps": 1e-6})],
)
def test_a_large_gradient_does_not_hide_the_next_one(name: str, options: Any) -> None:
    """Of a mean in which the last one does not count, the next one is all."""
    weights = Parameters({"w": (1,)}, "float32")
    optimizer = getattr(optim, name)(weights, **options)
    for gradient in (1e4, 1e-5):
        optimizer.step(Gradients({"w": (1,)}, np.array([gradient], "float32")))
    mean = {"Adam": "exp_avg", "RMSprop": "grad_avg"}[name]
    assert optimizer.state_dict()["vectors"][0][mean][0] == np.float32(1e-5)


@pytest.mark.parametrize(("name", "move"), [("Adam", -0.5), ("RMSprop", -5.0)])
def test_squares_are_weighted_before_they_overflow(name: str, move: float) -> None:
    """As in torch: the square of 1e20 is no float32, the part of it that counts is one."""
    weights = Parameters({"w": (1,)}, "float32")
    optimizer = getattr(optim, name)(weights, lr=0.5)
    optimizer.step(Gradients({"w": (1,)}, np.array([1e20], "float32")))
    assert weights["w"][0] == pytest.approx(move, rel=1e-6)


@BOTH
def test_norm_has_the_same_bits_whatever_the_threads(dtype: str, rng: Generator) -> None:
    for size in [*SIZES, 8191, 8192, 3 * 8192 + 9]:
        vector = random_gradient(rng, size, dtype).flat
        [found] = {updates.sum_of_squares(vector, n) for n in (1, 2, 3, 7)}
        assert found == pytest.approx(math.fsum(x * x for x in vector.tolist()), rel=1e-14)


TEAM = """
import os
import numpy as np
import fastlstm
from fastlstm.optim import Adam, clip_grad_norm
from fastlstm._core.library import adapt_teams
from fastlstm._parameters import Gradients, Parameters

adapt_teams(False)

def call(size):
    grads = Gradients({"w": (size,)}, np.ones(size, "f4"))
    weights = Parameters({"w": (size,)}, "f4")
    norm = clip_grad_norm(grads, 1.0)
    Adam(weights).step(grads)
    return norm, weights.flat.tobytes()

"""


@needs_linux
@needs_openmp
@pytest.mark.parametrize(("size", "expected"), [(131_071, "0"), (131_072, "1"), (400_000, "3")])
def test_large_vectors_are_shared_by_threads(size: int, expected: str) -> None:
    code = """
fastlstm.set_num_threads(4)
before = len(os.listdir("/proc/self/task"))
call({size})
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert python(TEAM + code.format(size=size)) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_goes_on_alone() -> None:
    code = """
fastlstm.set_num_threads(2)
expected = call(200_000)
child = os.fork()
if child == 0:
    os._exit(0 if call(200_000) == expected else 1)
print(os.waitpid(child, 0)[1])
"""
    assert python(TEAM + code) == "0"


@BOTH
@ALL
def test_nothing_to_train(name: str, options: Any, dtype: str) -> None:
    weights, grads = Parameters({"w": (0, 3)}, dtype), Gradients({"w": (0, 3)}, np.zeros(0, dtype))
    before = weights.version
    getattr(optim, name)(weights, **options).step(grads)
    assert weights.version > before
    assert optim.clip_grad_norm(grads, 1.0) == 0


@BOTH
@ALL
def test_nan_stays_and_infinity_does_not_become_nan(name: str, options: Any, dtype: str) -> None:
    weights = Parameters({"w": (9,)}, dtype)
    weights["w"] = np.array([1, 1, 1, 1, 1, 1, np.inf, 1, 1])
    optimizer = getattr(optim, name)(weights, **options)
    gradient = np.ones(9, dtype)
    gradient[2] = np.nan
    optimizer.step(Gradients({"w": (9,)}, gradient))
    optimizer.step(Gradients({"w": (9,)}, np.ones(9, dtype)))
    for vector in (weights["w"], *optimizer.state_dict()["vectors"][0].values()):
        assert np.isnan(vector[2])
        assert np.isfinite(np.delete(vector, [2, 6])).all()
    if "weight_decay" not in options:
        assert weights["w"][6] == np.inf


def test_vectors_with_gaps_between_their_elements() -> None:
    weights = [Parameters({"w": (4,)}, "float64") for _ in range(2)]
    with_gaps = np.arange(8.0)[::2]
    for p, flat in zip(weights, (with_gaps, with_gaps.copy()), strict=True):
        grads = Gradients({"w": (4,)}, flat)
        assert optim.clip_grad_norm(grads, 1.0) == math.sqrt(56)
        optim.SGD(p, lr=1.0).step(grads)
    assert with_gaps[3] == pytest.approx(6 / math.sqrt(56))
    assert np.array_equal(*(p.flat for p in weights))


def test_float32_norms_beyond_float32() -> None:
    # The squares are: 1e25 is a float32, 1e50 is not.
    grads = Gradients({"w": (2,)}, np.array([3e25, 4e25], "float32"))
    assert optim.clip_grad_norm(grads, 1.0) == pytest.approx(5e25)
    assert grads.flat == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    ("update", "required", "optional", "numbers"),
    [
        (updates.sgd, 2, 1, {"momentum": 0.0, "weight": 1.0, "nesterov": False}),
        (updates.rmsprop, 3, 2, {"alpha": 0.0, "weight": 1.0, "eps": 1.0, "momentum": 0.0}),
        (updates.adagrad, 3, 0, {"eps": 1.0}),
        (
            updates.adam,
            4,
            1,
            {"shrink": 1.0, "weight": 1.0, "beta2": 0.0, "weight2": 1.0, "eps": 1.0},
        ),
    ],
)
def test_vectors_that_do_not_fit(
    update: Callable[..., None], required: int, optional: int, numbers: dict[str, float]
) -> None:
    """What keeps the loops inside of the vectors."""
    vectors: list[Any] = [np.zeros(3) for _ in range(required + optional)]
    numbers = {"lr": 1.0, "decay": 0.0, "threads": 1} | numbers
    update(*vectors, **numbers)
    for k in range(1, len(vectors)):
        for wrong in (np.zeros(2), np.zeros(3, "float32"), np.zeros(6)[::2], np.zeros((3, 1))):
            with pytest.raises(ValueError, match=r"expected|mismatch|contiguous|dimensions"):
                update(*vectors[:k], wrong, *vectors[k + 1 :], **numbers)
    for k in range(required):
        with pytest.raises(TypeError):
            update(*vectors[:k], None, *vectors[k + 1 :], **numbers)
    readonly = np.zeros(3)
    readonly.flags.writeable = False
    for k in {*range(len(vectors))} - {1}:
        with pytest.raises(ValueError, match="read-only"):
            update(*vectors[:k], readonly, *vectors[k + 1 :], **numbers)
