"""The head of the language model: against NumPy in float64, torch, and itself, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, Arrays, check_bits, check_close, same_bits

import fastlstm
from fastlstm._core import heads, library

every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

# Predictions, hidden units, classes: blocks have 256 predictions, tiles up to 6 rows, lines of
# classes 16 or 8 elements.
SIZES = [
    (1, 1, 1),
    (7, 3, 1),
    (1, 33, 3),
    (7, 64, 65),
    (255, 5, 16),
    (256, 17, 64),
    (257, 31, 17),
    (600, 7, 1000),
    (2048, 129, 100),
]
every_size = pytest.mark.parametrize(("N", "H", "V"), SIZES)


class Call(NamedTuple):
    """What the head is given: y [N, H], weight [V, H], bias [V], targets [N]."""

    y: Array
    weight: Array
    bias: Array
    targets: Array


def random_call(rng: Generator, N: int, H: int, V: int, dtype: str) -> Call:
    """Logits of order one, as the error bound assumes."""
    y, weight = rng.uniform(-1, 1, (N, H)), rng.uniform(-1, 1, (V, H)) / np.sqrt(H)
    arrays = [array.astype(dtype) for array in (y, weight, rng.standard_normal(V))]
    return Call(*arrays, targets=rng.integers(V, size=N))


def results(isa: str, call: Call, threads: int = 1) -> Arrays:
    """nll, and the gradients of its mean."""
    nll, dy = np.full(len(call.y), np.nan, call.y.dtype), np.full_like(call.y, np.nan)
    dweight, dbias = np.zeros_like(call.weight), np.zeros_like(call.bias)
    heads.head(isa, library.BufferCache(), *call, nll, dy, dweight, dbias, threads)
    return {"nll": nll, "dy": dy, "dweight": dweight, "dbias": dbias}


def nll_alone(isa: str, call: Call, threads: int = 1) -> Array:
    nll = np.full(len(call.y), np.nan, call.y.dtype)
    heads.head(isa, library.BufferCache(), *call, nll, None, None, None, threads)
    return nll


def oracle(call: Call) -> Arrays:
    """The textbook in float64."""
    y, weight, bias = (array.astype(np.float64) for array in call[:3])
    rows = np.arange(len(y))
    logits = y @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    p = np.exp(logits)
    total = p.sum(axis=1, keepdims=True)
    dlogits = p / total
    dlogits[rows, call.targets] -= 1
    dlogits /= len(y)
    return {
        "nll": np.log(total[:, 0]) - logits[rows, call.targets],
        "dy": dlogits @ weight,
        "dweight": dlogits.T @ y,
        "dbias": dlogits.sum(axis=0),
    }


def scaled(found: Arrays, N: int) -> Arrays:
    """Gradients of the sum of nll instead of its mean: values of order one."""
    return {name: array if name == "nll" else N * array for name, array in found.items()}


@every_dtype
@every_size
def test_against_numpy(rng: Generator, isa: str, dtype: str, N: int, H: int, V: int) -> None:
    """A chain has H + 1 roundings in a logit, V / 16 + 10 in a sum over classes, V in dy, and up to
    256 + N / 256 in a weight gradient; see `error_bound` in support/compare.py."""
    call = random_call(rng, N, H, V, dtype)
    n = H + V / 16 + 10 + max(V, min(N, 256) + N / 256)
    bound = 4 * float(np.finfo(dtype).eps) / 2 * float(np.sqrt(n))
    check_close(scaled(results(isa, call), N), scaled(oracle(call), N), bound)


@every_dtype
@every_size
def test_nll_alone_is_the_same(
    rng: Generator, isa: str, dtype: str, N: int, H: int, V: int
) -> None:
    call = random_call(rng, N, H, V, dtype)
    assert same_bits(nll_alone(isa, call), results(isa, call)["nll"])


@every_dtype
@pytest.mark.parametrize(("N", "H", "V"), [(2048, 64, 30), (300, 40, 200), (19, 512, 65)])
def test_threads(
    rng: Generator,
    isa: str,
    dtype: str,
    N: int,
    H: int,
    V: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "PROCESSORS", 4)
    call = random_call(rng, N, H, V, dtype)
    one = results(isa, call)
    for threads in (2, 3, 4):
        check_bits(results(isa, call, threads), one)
        assert same_bits(nll_alone(isa, call, threads), one["nll"])


@every_dtype
@every_size
def test_instruction_sets(rng: Generator, dtype: str, N: int, H: int, V: int) -> None:
    isas = [isa for isa in fastlstm.isas() if isa != "baseline"]
    if len(isas) < 2:
        pytest.skip(f"one instruction set to compare: {isas}")
    call = random_call(rng, N, H, V, dtype)
    check_bits(results(isas[0], call), results(isas[1], call))


@every_dtype
def test_predictions_alone_and_together(rng: Generator, isa: str, dtype: str) -> None:
    call = random_call(rng, 300, 33, 40, dtype)
    together = nll_alone(isa, call)
    for rows in (slice(5, 6), slice(250, 263), slice(1, 300)):
        part = call._replace(y=call.y[rows], targets=call.targets[rows])
        assert same_bits(nll_alone(isa, part), together[rows])


@every_dtype
def test_weight_gradients_are_added(rng: Generator, isa: str, dtype: str) -> None:
    call = random_call(rng, 20, 33, 40, dtype)
    found = results(isa, call)
    dweight, dbias = np.full_like(call.weight, 8), np.full_like(call.bias, 8)
    nll, dy = np.empty(20, dtype), np.empty_like(call.y)
    heads.head(isa, library.BufferCache(), *call, nll, dy, dweight, dbias, 1)
    assert same_bits(dweight, 8 + found["dweight"])
    assert same_bits(dbias, 8 + found["dbias"])


@every_dtype
@pytest.mark.parametrize("V", [2, 40])
def test_large_logits(isa: str, dtype: str, V: int) -> None:
    """One class beyond all others, by more than the exponential of anything."""
    bias = np.zeros(V, dtype)
    bias[:2] = 1e30, -1e30
    call = Call(np.ones((3, 4), dtype), np.ones((V, 4), dtype), bias, np.array([0, 1, V - 1]))
    found = results(isa, call)
    np.testing.assert_allclose(found["nll"], [0, 2e30, 2e30 if V == 2 else 1e30], rtol=1e-6)
    check_close(found, oracle(call), 1e-6)


@every_dtype
def test_uniform_logits_far_from_zero(isa: str, dtype: str) -> None:
    """Only differences count: the sum is exactly V, the gradient of a class 1/V or 1/V - 1."""
    V, shape = 64, (5, 3)
    for level in (-1e4, 0, 1e4):
        bias = np.full(V, level, dtype)
        call = Call(np.zeros(shape, dtype), np.ones((V, 3), dtype), bias, np.arange(5))
        found = results(isa, call)
        assert same_bits(found["nll"], np.full(5, np.log(64)).astype(dtype))
        np.testing.assert_allclose(found["dbias"][5:], 1 / V, rtol=1e-6)


@every_dtype
def test_not_a_number_stays_in_its_row(rng: Generator, isa: str, dtype: str) -> None:
    call = random_call(rng, 9, 4, 40, dtype)
    good = results(isa, call)
    for value in (np.nan, np.inf, -np.inf):
        call.y[3, 2] = value
        found = results(isa, call)
        others = np.arange(9) != 3
        for name in ("nll", "dy"):
            assert np.isnan(found[name][3]).all()
            assert same_bits(found[name][others], good[name][others])
        assert np.isnan(found["dbias"]).all()


@every_dtype
def test_impossible_class(rng: Generator, isa: str, dtype: str) -> None:
    """A logit of -inf: probability and gradient 0, and an infinite nll where it is the target."""
    call = random_call(rng, 4, 8, 5, dtype)
    call.bias[2], call.targets[:] = -np.inf, [0, 1, 2, 4]
    found = results(isa, call)
    assert (found["nll"] == np.inf).tolist() == [False, False, True, False]
    assert np.isfinite(found["dy"]).all()
    assert found["dbias"][2] == np.dtype(dtype).type(-0.25)


@pytest.mark.peer
@every_dtype
@every_size
def test_torch(rng: Generator, isa: str, dtype: str, N: int, H: int, V: int) -> None:
    torch = pytest.importorskip("torch")
    call = random_call(rng, N, H, V, dtype)
    leaves = [torch.tensor(array, requires_grad=True) for array in call[:3]]
    logits = torch.nn.functional.linear(*leaves)
    nll = torch.nn.functional.cross_entropy(logits, torch.tensor(call.targets), reduction="none")
    nll.mean().backward()
    theirs = [nll.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]
    named = dict(zip(("nll", "dy", "dweight", "dbias"), theirs, strict=True))
    bound = 1e-5 if dtype == "float32" else 1e-13
    check_close(scaled(results(isa, call), N), scaled(named, N), bound)


y, weight, bias = np.ones((4, 3), "f4"), np.ones((5, 3), "f4"), np.ones(5, "f4")
GOOD = [y, weight, bias, np.arange(4), np.empty(4, "f4"), y.copy(), weight.copy(), bias.copy()]
BAD: dict[str, tuple[int, Any]] = {
    "no-predictions": (0, np.ones((0, 3), "f4")),
    "no-units": (0, np.ones((4, 0), "f4")),
    "other-units": (0, np.ones((4, 2), "f4")),
    "strided-y": (0, np.ones((4, 6), "f4")[:, ::2]),
    "double-y": (0, np.ones((4, 3))),
    "no-classes": (1, np.ones((0, 3), "f4")),
    "other-classes": (1, np.ones((6, 3), "f4")),
    "no-weight": (1, None),
    "other-bias": (2, np.ones(4, "f4")),
    "few-targets": (3, np.arange(3)),
    "small-targets": (3, np.zeros(4, np.int32)),
    "negative-target": (3, np.array([0, 1, -1, 0])),
    "target-of-no-class": (3, np.array([0, 1, 5, 0])),
    "huge-target": (3, np.array([0, 1, np.iinfo(np.intp).max, 0])),
    "no-targets": (3, None),
    "few-nll": (4, np.empty(3, "f4")),
    "no-nll": (4, None),
    "few-dy": (5, np.ones((3, 3), "f4")),
    "narrow-dy": (5, np.ones((4, 2), "f4")),
    "double-dy": (5, np.ones((4, 3))),
    "few-dweight": (6, np.ones((4, 3), "f4")),
    "no-dweight": (6, None),
    "few-dbias": (7, np.ones(4, "f4")),
    "no-dbias": (7, None),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_refused(bad: tuple[int, Any]) -> None:
    """The binding lets nothing through that the core would read or write out of bounds."""
    isa, run = fastlstm.isas()[0], heads.head
    run(isa, library.BufferCache(), *GOOD, 1)  # type: ignore[arg-type]
    place, value = bad
    arguments = [*GOOD[:place], value, *GOOD[place + 1 :]]
    with pytest.raises((ValueError, TypeError)):
        run(isa, library.BufferCache(), *arguments, 1)


def test_message_for_a_target() -> None:
    arguments = [*GOOD[:3], np.array([0, 1, 5, 0]), *GOOD[4:]]
    run: Callable[..., None] = heads.head
    with pytest.raises(ValueError, match="targets: expected classes from 0 to 4, got 5"):
        run(fastlstm.isas()[0], library.BufferCache(), *arguments, 1)
