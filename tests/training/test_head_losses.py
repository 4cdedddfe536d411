"""The head's other loss, weights of predictions, and gradients of shards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.compare import same_bits

from fastlstm._core import heads, library
from fastlstm._shards import Shards

Array = NDArray[Any]

SIZES = [(1, 1, 1), (7, 3, 2), (300, 33, 17), (515, 70, 65)]


def random_call(N: int, H: int, V: int, dtype: str = "float64") -> tuple[Array, ...]:
    """y, weight, bias, and numbers to compare with."""
    rng = np.random.default_rng(N)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in ((N, H), (V, H), V, (N, V)))


def run(isa: str, call: Any, targets: Array, threads: int = 1, **options: Any) -> list[Array]:
    """Losses, dy, dweight, dbias."""
    y, weight, bias = call[:3]
    shards = options.get("shards")
    parts = () if shards is None else (len(shards.starts) - 1,)
    losses, dy = np.empty(len(y), y.dtype), np.empty_like(y)
    dweight, dbias = np.zeros((*parts, *weight.shape), y.dtype), np.zeros((*parts, *bias.shape))
    dbias = dbias.astype(y.dtype)
    if parts:  # as far apart as each other
        both = np.zeros((*parts, weight.size + bias.size), y.dtype)
        dweight = both[:, : weight.size].reshape(*parts, *weight.shape)
        dbias = both[:, weight.size :]
    cache = library.BufferCache()
    heads.head(isa, cache, y, weight, bias, targets, losses, dy, dweight, dbias, threads, **options)
    return [losses, dy, dweight, dbias]


@pytest.mark.parametrize(("N", "H", "V"), SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_squared_errors(isa: str, dtype: str, N: int, H: int, V: int) -> None:
    y, weight, bias, values = random_call(N, H, V, dtype)
    weights = np.random.default_rng(1).random(N).astype(dtype)
    got = run(isa, (y, weight, bias), values, scale=0.3, weights=weights)
    y, weight, bias, values, weights = (
        a.astype(np.float64) for a in (y, weight, bias, values, weights)
    )
    error = y @ weight.T + bias - values
    slope = 0.3 * weights[:, None] * error
    expected = [(error**2).sum(axis=1) / 2, slope @ weight, slope.T @ y, slope.sum(axis=0)]
    bound = 2e-5 if dtype == "float32" else 1e-13
    for ours, theirs in zip(got, expected, strict=True):
        assert np.abs(ours - theirs).max() <= bound * max(1, np.abs(theirs).max())


@pytest.mark.parametrize(("N", "H", "V"), SIZES)
def test_weighted_classes(isa: str, N: int, H: int, V: int) -> None:
    call = random_call(N, H, V)
    rng = np.random.default_rng(1)
    classes, weights = rng.integers(0, V, N), rng.random(N)
    losses, dy, dweight, dbias = run(isa, call, classes, scale=0.7, weights=weights)
    logits = call[0] @ call[1].T + call[2]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(losses, -np.log(p[np.arange(N), classes]), atol=1e-12)
    p[np.arange(N), classes] -= 1
    slope = 0.7 * weights[:, None] * p
    np.testing.assert_allclose(dy, slope @ call[1], atol=1e-12)
    np.testing.assert_allclose(dweight, slope.T @ call[0], atol=1e-11)
    np.testing.assert_allclose(dbias, slope.sum(axis=0), atol=1e-11)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
@pytest.mark.parametrize(("batch", "count"), [(13, 4), (12, 1), (3, 8), (64, 8)])
def test_shards_are_calls_of_their_own(isa: str, kind: str, batch: int, count: int) -> None:
    steps, H, V = 50, 19, 21
    call = random_call(steps * batch, H, V, "float32")
    targets = call[3]
    if kind == "classes":
        targets = np.random.default_rng(4).integers(0, V, steps * batch)
    shards = Shards(batch, count)
    losses, dy, dweight, dbias = run(isa, call, targets, 2, scale=0.01, shards=shards)
    starts = shards.starts

    def rows(array: Array, i: int) -> Array:
        of_steps = array.reshape(steps, batch, *array.shape[1:])[:, starts[i] : starts[i + 1]]
        return np.ascontiguousarray(of_steps.reshape(-1, *array.shape[1:]))

    for i in range(count):
        if starts[i] == starts[i + 1]:
            assert not dweight[i].any()
            assert not dbias[i].any()
            continue
        alone = run(isa, (rows(call[0], i), *call[1:3]), rows(targets, i), scale=0.01)
        assert same_bits(rows(losses, i), alone[0])
        assert same_bits(rows(dy, i), alone[1])
        assert same_bits(dweight[i], alone[2])
        assert same_bits(dbias[i], alone[3])


def test_refused() -> None:
    y, weight, bias, values = random_call(8, 3, 5, "float32")
    good: dict[str, Any] = {"targets": values, "shards": Shards(4, 2), "weights": np.ones(8, "f4")}
    bad: list[dict[str, Any]] = [
        {"targets": values[:7]},
        {"targets": values[:, :4]},
        {"targets": values.astype("f8")},
        {"weights": np.ones(7, "f4")},
        {"weights": np.ones(8)},
        {"shards": Shards(3, 2)},
        {"shards": Shards(0, 2)},
    ]
    run("baseline", (y, weight, bias), **good)
    for change in bad:
        with pytest.raises((ValueError, TypeError)):
            run("baseline", (y, weight, bias), **(good | change))
    dweight = np.zeros((2, 5, 3), "f4")
    for wrong in (np.zeros((2, 5), "f4"), np.zeros((1, 5), "f4"), np.zeros((2, 10), "f4")[:, ::2]):
        with pytest.raises(ValueError, match="dweight, dbias"):
            heads.head(
                *("baseline", library.BufferCache(), y, weight, bias, values, np.empty(8, "f4")),
                *(y.copy(), dweight, wrong, 1, 1.0, None, Shards(4, 2)),
            )
