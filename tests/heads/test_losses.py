"""cross_entropy and mse: against torch and the reference, weights, the same bits, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, same_bits

import fastlstm
from fastlstm import reference
from fastlstm._core import heads, library
from fastlstm.heads import cross_entropy, mse

every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}

# Leading axes and classes: blocks have 256 predictions, lines of classes 16 or 8 elements.
SIZES: list[tuple[tuple[int, ...], int]] = [
    ((), 3),
    ((1,), 1),
    ((7, 2), 2),
    ((255,), 16),
    ((3, 86), 17),
    ((600,), 65),
    ((2, 3, 4), 1000),
]
every_size = pytest.mark.parametrize(("leading", "K"), SIZES)


def random_classes(
    rng: Generator, leading: tuple[int, ...], K: int, dtype: str
) -> tuple[Array, Array]:
    return 3 * rng.standard_normal((*leading, K)).astype(dtype), rng.integers(K, size=leading)


def random_numbers(
    rng: Generator, leading: tuple[int, ...], K: int, dtype: str
) -> tuple[Array, Array]:
    y, target = rng.standard_normal((2, *leading, K)).astype(dtype)
    return y, target


def random_weights(rng: Generator, shape: tuple[int, ...]) -> Array:
    """About half of them 0, not all."""
    weights = np.array(rng.random(shape) * (rng.random(shape) < 0.5))
    weights.ravel()[:1] = 0.5
    return weights


Draw = Callable[[Generator, tuple[int, ...], int, str], tuple[Array, Array]]
LOSSES: list[tuple[Any, Draw, Any]] = [
    (cross_entropy, random_classes, reference.cross_entropy),
    (mse, random_numbers, reference.mse),
]
every_loss = pytest.mark.parametrize(
    ("loss", "draw", "oracle"), LOSSES, ids=["cross_entropy", "mse"]
)


@every_loss
@every_size
@every_dtype
@pytest.mark.parametrize("weighted", [False, True], ids=["mean", "weighted"])
def test_against_the_reference(
    rng: Generator,
    isa: str,
    dtype: str,
    loss: Any,
    draw: Draw,
    oracle: Any,
    leading: tuple[int, ...],
    K: int,
    weighted: bool,
) -> None:
    z, target = draw(rng, leading, K, dtype)
    of_rows = loss is mse and weighted
    weights = random_weights(rng, leading) if weighted else np.ones(leading)
    before = z.copy()
    value, dz = loss(z, target, weights=weights if weighted else None)
    assert same_bits(z, before)
    assert isinstance(value, float)
    assert (dz.dtype, dz.shape) == (z.dtype, z.shape)
    full = np.broadcast_to(weights[..., None], z.shape) if loss is mse else weights
    wide = target if loss is cross_entropy else target.astype(np.float64)
    expected, slope = oracle(z.astype(np.float64), wide, full)
    assert value == pytest.approx(expected, rel=TOLERANCE[dtype])
    np.testing.assert_allclose(dz, slope, atol=TOLERANCE[dtype] * np.abs(slope).max(initial=0))
    if of_rows:
        both = mse(z, target, weights=full)
        assert value == pytest.approx(both[0], rel=1e-15)
        assert same_bits(dz, both[1])


@every_loss
def test_finite_differences(rng: Generator, loss: Any, draw: Draw, oracle: Any) -> None:
    z, target = draw(rng, (3, 2), 4, "float64")
    weights = random_weights(rng, (3, 2))
    _, dz = loss(z, target, weights=weights)
    step, slopes = 1e-6, np.empty(z.size)
    for i, e in enumerate(np.eye(z.size).reshape(-1, *z.shape) * step):
        up, down = (loss(z + side, target, weights=weights)[0] for side in (e, -e))
        slopes[i] = (up - down) / (2 * step)
    np.testing.assert_allclose(slopes, dz.ravel(), atol=1e-8)


@pytest.mark.peer
@every_size
@every_dtype
def test_torch(rng: Generator, dtype: str, leading: tuple[int, ...], K: int) -> None:
    torch = pytest.importorskip("torch")
    functions = torch.nn.functional
    for loss, draw, theirs in (
        (cross_entropy, random_classes, functions.cross_entropy),
        (mse, random_numbers, functions.mse_loss),
    ):
        z, target = draw(rng, leading, K, dtype)
        rows = torch.tensor(z.reshape(-1, K), requires_grad=True)
        goal = target.reshape(-1, K) if loss is mse else target.reshape(-1)
        expected = theirs(rows, torch.tensor(goal))
        expected.backward()
        value, dz = loss(z, target)
        assert value == pytest.approx(expected.item(), rel=TOLERANCE[dtype], abs=1e-15)
        np.testing.assert_allclose(
            dz.reshape(-1, K), rows.grad.numpy(), atol=TOLERANCE[dtype] / max(1, len(rows))
        )


@pytest.mark.peer
@every_dtype
def test_infinite_logits_are_those_of_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    inf = np.inf
    logits = np.array([[1, -inf, 2], [-inf, 1, 2], [-inf] * 3, [inf, 0, 1], [np.nan, 0, 1]], dtype)
    for row in logits:
        leaf = torch.tensor(row, requires_grad=True)
        expected = torch.nn.functional.cross_entropy(leaf, torch.tensor(0))
        expected.backward()
        value, dz = cross_entropy(row, 0)
        assert value == pytest.approx(expected.item(), rel=TOLERANCE[dtype], nan_ok=True)
        np.testing.assert_allclose(dz, leaf.grad.numpy(), atol=TOLERANCE[dtype])


@every_dtype
def test_impossible_class(isa: str, dtype: str) -> None:
    logits = np.array([[1, -np.inf, 2]] * 2, dtype)
    value, dz = cross_entropy(logits, [0, 2])
    assert np.isfinite(value)
    assert dz[:, 1].tolist() == [0, 0]
    assert cross_entropy(logits, [0, 1])[0] == np.inf


@every_loss
@every_dtype
def test_what_has_no_weight_does_not_count(
    rng: Generator, isa: str, dtype: str, loss: Any, draw: Draw, oracle: Any
) -> None:
    z, target = draw(rng, (300, 3), 5, dtype)
    mask = rng.random((300, 3)) < 0.5
    good = loss(z, target, weights=mask)
    kept = loss(z[mask], target[mask])
    assert good[0] == kept[0]
    assert same_bits(good[1][mask], kept[1])
    bad = z.copy()
    for value in (np.nan, np.inf, -np.inf):
        bad[~mask] = value
        found = loss(bad, target, weights=mask)
        assert found[0] == good[0]
        assert same_bits(found[1], good[1])
        assert same_bits(found[1][~mask], np.zeros_like(z[~mask]))


def test_a_float32_error_is_squared_in_float64() -> None:
    value, dy = mse(np.array([2e30, 0], np.float32), np.zeros(2, np.float32))
    assert value == pytest.approx(2e60, rel=1e-6)
    np.testing.assert_allclose(dy, [2e30, 0], rtol=1e-6)


def test_weights_of_single_elements(rng: Generator) -> None:
    y, target = random_numbers(rng, (20, 3), 5, "float64")
    weights = random_weights(rng, (20, 3, 5))
    y[weights == 0] = np.nan
    value, dy = mse(y, target, weights=weights)
    clean = np.where(weights == 0, 0, y)
    expected, slope = reference.mse(clean, target, weights)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(dy, slope, atol=1e-15)


@every_loss
@every_dtype
def test_threads(
    rng: Generator,
    isa: str,
    dtype: str,
    loss: Any,
    draw: Draw,
    oracle: Any,
    same_threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "PROCESSORS", 4)
    z, target = draw(rng, (50, 60), 70, dtype)
    weights = random_weights(rng, (50, 60))
    fastlstm.set_num_threads(1)
    one = loss(z, target, weights=weights)
    for threads in (2, 3, 4):
        fastlstm.set_num_threads(threads)
        found = loss(z, target, weights=weights)
        assert found[0] == one[0]
        assert same_bits(found[1], one[1])


@every_loss
@every_size
@every_dtype
def test_instruction_sets(
    dtype: str,
    loss: Any,
    draw: Draw,
    oracle: Any,
    leading: tuple[int, ...],
    K: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    isas = [isa for isa in fastlstm.isas() if isa != "baseline"]
    if len(isas) < 2:
        pytest.skip(f"one instruction set to compare: {isas}")
    found = []
    for isa in isas:
        monkeypatch.setenv("FASTLSTM_ISA", isa)
        found.append(loss(*draw(np.random.default_rng(0), leading, K, dtype)))
    for value, dz in found[1:]:
        assert value == found[0][0]
        assert same_bits(dz, found[0][1])


def test_strided_arrays_are_read(rng: Generator) -> None:
    z, target = random_classes(rng, (6, 5), 4, "float32")
    turned = cross_entropy(z.swapaxes(0, 1), target.T)
    whole = cross_entropy(np.ascontiguousarray(z.swapaxes(0, 1)), np.ascontiguousarray(target.T))
    assert turned[0] == whole[0]
    assert same_bits(turned[1], whole[1])
    y, goal = random_numbers(rng, (6, 5), 4, "float32")
    assert mse(y[::2], goal[::2])[0] == mse(y[::2].copy(), goal[::2].copy())[0]


LOGITS = np.zeros((4, 3, 5), np.float32)
BAD_CLASSES: list[tuple[Any, Any, type[Exception], str]] = [
    (LOGITS, np.full((4, 3), 5), ValueError, "^targets: expected classes from 0 to 4, got 5$"),
    (LOGITS, np.full((4, 3), -1), ValueError, "^targets: expected classes from 0 to 4, got -1$"),
    (LOGITS, np.zeros((4, 3)), TypeError, "^targets: expected an array of integers, got float64$"),
    (LOGITS, np.zeros((4, 3), bool), TypeError, "^targets: expected an array of integers, got b"),
    (LOGITS, [[0], [0, 1]], TypeError, "^targets: expected an array of integers, got "),
    (LOGITS, np.zeros((3, 4), int), ValueError, r"^targets: expected \(4, 3\), got \(3, 4\)$"),
    (LOGITS, np.zeros((4, 3, 5), int), ValueError, r"^targets: expected \(4, 3\), got \(4, 3, 5"),
    (
        LOGITS.astype(int),
        np.zeros((4, 3), int),
        TypeError,
        "^logits: expected float32 or float64, got i",
    ),
    (np.zeros((0, 5)), np.zeros(0, int), ValueError, r"^logits: expected \(\.\.\., K\) with at le"),
    (np.zeros((4, 0)), np.zeros(4, int), ValueError, r"^logits: .*, got \(4, 0\)$"),
    (np.array(1.0), 0, ValueError, r"^logits: expected \(\.\.\., K\) with .*, got \(\)$"),
]


def test_lists_of_numbers_are_float64() -> None:
    loss, dlogits = cross_entropy([[1.0, 2.0], [0.5, 0.0]], [1, 0])
    expected = cross_entropy(np.array([[1.0, 2.0], [0.5, 0.0]]), [1, 0])
    assert loss == expected[0]
    assert same_bits(dlogits, expected[1])
    assert mse([1.0, 2.0], [1.0, 4.0])[0] == 2.0
    with pytest.raises(ValueError, match=r"got 9223372036854775807$"):  # not -1
        cross_entropy(LOGITS[0], np.full(3, np.iinfo(np.uint64).max))


@pytest.mark.parametrize(("logits", "targets", "error", "message"), BAD_CLASSES)
def test_wrong_classes(logits: Any, targets: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cross_entropy(logits, targets)


@pytest.mark.parametrize(
    ("y", "target", "error", "message"),
    [
        (np.zeros((4, 3)), np.zeros((4, 1)), ValueError, r"^target: expected \(4, 3\), got \(4, 1"),
        (np.zeros(3), np.zeros(3, "f4"), TypeError, "^target: expected float64, got float32"),
        (np.zeros(3, int), np.zeros(3), TypeError, "^y: expected float32 or float64, got int64"),
        (np.zeros((0, 3)), np.zeros((0, 3)), ValueError, r"^y: expected at least one .* \(0, 3\)$"),
    ],
)
def test_wrong_numbers(y: Any, target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mse(y, target)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.zeros((4, 3)), ValueError, r"^weights: expected a finite sum above 0, got 0\.0$"),
        (np.full((4, 3), 1e308), ValueError, "^weights: expected a finite sum above 0, got inf$"),
        (np.full((4, 3), -1), ValueError, r"^weights: expected finite .* at least 0, got -1\.0$"),
        (np.full((4, 3), np.nan), ValueError, "^weights: expected finite .* at least 0, got nan$"),
        (np.full((4, 3), np.inf), ValueError, "^weights: expected finite .* at least 0, got inf$"),
        (np.ones(4), ValueError, r"^weights: expected .*\(4, 3\), got \(4,\)$"),
        (np.ones((4, 3), "U1"), TypeError, "^weights: expected an array of real numbers, got <U1$"),
        ([[1.0], [1.0, 2.0]], TypeError, "^weights: expected an array of real numbers, got "),
    ],
)
def test_wrong_weights(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cross_entropy(LOGITS, np.zeros((4, 3), int), weights=weights)
    with pytest.raises(error, match=message):
        mse(LOGITS, LOGITS, weights=weights)


@pytest.mark.parametrize("scale", [1e-310, 1e-30, 1e30, 1e290])
def test_only_ratios_of_weights_count(rng: Generator, scale: float) -> None:
    logits, targets = random_classes(rng, (50,), 4, "float64")
    weights = random_weights(rng, (50,))
    value, dz = cross_entropy(logits, targets, weights=weights)
    scaled, ds = cross_entropy(logits, targets, weights=weights * scale)
    assert scaled == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(ds, dz, rtol=1e-9)


# The binding


def test_losses_of_numbers_in_the_core(rng: Generator, isa: str) -> None:
    y, target = random_numbers(rng, (300,), 17, "float64")
    losses, dy, weights = np.empty(300), np.empty_like(y), rng.random(300)
    heads.loss(isa, library.BufferCache(), y, target, losses, dy, 1, 0.5, weights)
    np.testing.assert_allclose(losses, ((y - target) ** 2).sum(axis=1) / 2, rtol=1e-14)
    np.testing.assert_allclose(dy, 0.5 * weights[:, None] * (y - target), rtol=1e-14)


def test_the_core_is_given_nothing_out_of_bounds() -> None:
    isa, cache = fastlstm.isas()[0], library.BufferCache()
    z, losses = np.ones((4, 5), "f4"), np.ones(4, "f4")
    good: dict[int, Any] = {0: z, 1: np.zeros(4, int), 2: losses, 3: z.copy()}
    for targets in (good[1], z):
        heads.loss(isa, cache, *(good | {1: targets}).values(), 1, 1.0, losses)
    bad: list[tuple[int, Any]] = [
        *((0, np.ones(s, "f4")) for s in ((3, 5), (4, 6), (0, 5), (4,))),
        *(
            (1, targets)
            for targets in (np.zeros(3, int), np.full(4, 5), np.ones((4, 4), "f4"), None)
        ),
        *((2, other) for other in (np.ones(3, "f4"), np.ones(4), None)),
        *((3, other) for other in (np.ones((4, 4), "f4"), np.ones((4, 5)), None)),
    ]
    for place, other in bad:
        with pytest.raises((ValueError, TypeError)):
            heads.loss(isa, cache, *(good | {place: other}).values(), 1, 1.0)
    for weights in (np.ones(3, "f4"), np.ones(4)):
        with pytest.raises((ValueError, TypeError)):
            heads.loss(isa, cache, *good.values(), 1, 1.0, weights)
