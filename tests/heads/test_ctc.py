"""Connectionist temporal classification: its definition, its limits, and bits that are its own."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from support.compare import same_bits
from support.paths import slopes, symbol_probabilities

import fastlstm
from fastlstm.heads import ctc_loss
from fastlstm.reference import ctc as reference

Array = NDArray[Any]

# T, B, K, S: states that fill a vector, one line, or just not; few symbols, so that many repeat.
SIZES = [(1, 1, 1, 0), (1, 1, 2, 1), (7, 5, 3, 3), (20, 6, 4, 7), (40, 9, 20, 15), (50, 3, 130, 16)]
EPS = {"float32": 1e-6, "float64": 2e-15}

Call = tuple[Array, Array, Array, Array, int]


def random_call(
    rng: Generator, T: int, B: int, K: int, S: int, dtype: str = "float64", scale: float = 1.0
) -> Call:
    """Logits, targets, both lengths and the blank; some targets are too long, some empty."""
    lengths, counts = rng.integers(0, T + 1, B), rng.integers(0, S + 1, B)
    lengths[0], counts[0] = T, S
    blank = int(rng.integers(K))
    targets = rng.integers(0, max(K - 1, 1), (B, S))
    logits = (scale * rng.standard_normal((T, B, K))).astype(dtype)
    return logits, targets + (targets >= blank), lengths, counts, blank


def defined(call: Call) -> tuple[Array, Array]:
    """By the reference, in a wider type."""
    logits, targets, lengths, counts, blank = call
    nll, dlogits = np.zeros(logits.shape[1]), np.zeros(logits.shape)
    for b, n in enumerate(lengths):
        row = logits[:n, b].astype(np.longdouble)
        nll[b], dlogits[:n, b] = reference.loss(row, targets[b, : counts[b]], blank)
    return nll, dlogits


def check(call: Call, bound: float) -> None:
    expected, got = defined(call), ctc_loss(*call)
    infinite = np.isinf(expected[0])
    assert np.array_equal(np.isinf(got[0]), infinite)
    assert not got[1][:, infinite].any()
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == call[0].dtype
        assert ours.shape == theirs.shape
        finite = np.isfinite(theirs)
        error = np.abs(ours[finite] - theirs[finite]).max(initial=0)
        assert error <= bound * max(1, np.abs(theirs[finite]).max(initial=0))


@pytest.mark.parametrize(("T", "B", "K", "S"), SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_definition(
    rng: Generator, isa: str, dtype: str, T: int, B: int, K: int, S: int
) -> None:
    check(random_call(rng, T, B, K, S, dtype), 10 * np.sqrt(T) * EPS[dtype])


@pytest.mark.parametrize("scale", [30.0, 300.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_far_apart(rng: Generator, isa: str, dtype: str, scale: float) -> None:
    """Paths of e^-10000 beside those of 1."""
    check(random_call(rng, 60, 8, 12, 20, dtype, scale), 100 * scale * EPS[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_path_that_is_small_until_the_end(isa: str, dtype: str) -> None:
    """The blank has nearly all of each step; a hundred symbols in a hundred steps have the rest."""
    logits = np.zeros((100, 1, 3), dtype)
    logits[..., 0] = 30
    targets = np.tile([1, 2], 50)[None]
    nll, dlogits = ctc_loss(logits, targets)
    assert nll[0] == pytest.approx(100 * np.log(np.exp(30.0) + 2), rel=1e-6)
    assert dlogits[0::2, 0, 1] == pytest.approx(-1)
    assert dlogits[1::2, 0, 2] == pytest.approx(-1)


def test_impossible_symbols(rng: Generator, isa: str) -> None:
    """Logits of -inf: a target that needs one has no path, others have less."""
    logits, _, _, _, _ = random_call(rng, 8, 3, 4, 3)
    logits[:, 1, 2] = -np.inf
    logits[:4, 2, 1] = -np.inf
    targets = np.array([[1, 2], [1, 2], [1, 2]])
    call = (logits, targets, np.array([8] * 3), np.array([2] * 3), 0)
    with np.errstate(invalid="ignore"):
        check(call, 1e-13)
    assert np.isinf(ctc_loss(*call)[0]).tolist() == [False, True, False]
    logits[2, 0, :3] = -np.inf  # 1 2 3 must be read in three steps, by what others are impossible
    logits[0, 2, :2] = -np.inf  # nothing can begin
    call = (logits, np.array([[1, 2, 3]] * 3), np.array([8] * 3), np.array([3] * 3), 0)
    check(call, 1e-13)
    assert np.isinf(ctc_loss(*call)[0]).tolist() == [False, True, True]


def test_gradients_by_differences(rng: Generator, isa: str) -> None:
    logits, targets, lengths, counts, blank = random_call(rng, 6, 5, 3, 3)
    counts = np.minimum(counts, lengths // 2)

    def loss() -> float:
        return float(ctc_loss(logits, targets, lengths, counts, blank)[0].sum())

    dlogits = ctc_loss(logits, targets, lengths, counts, blank)[1]
    np.testing.assert_allclose(dlogits, slopes(loss, logits), atol=1e-8)


@pytest.mark.parametrize(("T", "K", "blank"), [(1, 2, 1), (4, 3, 0), (5, 3, 2)])
def test_all_paths(rng: Generator, isa: str, T: int, K: int, blank: int) -> None:
    logits = rng.standard_normal((T, K))
    y = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for target, p in symbol_probabilities(y, blank).items():
        nll, _ = ctc_loss(logits, np.array(target, int), blank=blank)
        assert float(nll) == pytest.approx(-np.log(p), abs=1e-12)


def test_targets_that_do_not_fit(isa: str) -> None:
    """Infinity, or 0; a symbol that follows itself needs a blank between."""
    logits = np.zeros((3, 4, 2), np.float32)
    targets, counts = np.ones((4, 3), int), np.array([3, 2, 1, 0])
    nll, dlogits = ctc_loss(logits, targets, None, counts)
    assert np.isinf(nll).tolist() == [True, False, False, False]
    assert not dlogits[:, 0].any()
    assert dlogits[:, 1:].any(axis=(0, 2)).all()
    assert nll[1] == pytest.approx(3 * np.log(2))
    zero, same = ctc_loss(logits, targets, None, counts, zero_infinity=True)
    assert zero[0] == 0
    assert same_bits(zero[1:], nll[1:])
    assert same_bits(same, dlogits)


def test_not_a_number_stays_in_its_row(rng: Generator, isa: str) -> None:
    call = random_call(rng, 9, 3, 4, 2, "float32")
    logits, targets, _, _, blank = call
    clean = ctc_loss(logits, targets, blank=blank)
    logits[4, 1, 2] = np.nan
    nll, dlogits = ctc_loss(logits, targets, blank=blank)
    assert np.isnan(nll).tolist() == [False, True, False]
    assert np.isnan(dlogits[:, 1]).any()
    assert same_bits(dlogits[:, [0, 2]], clean[1][:, [0, 2]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("S", [0, 1, 2])
def test_not_a_number_anywhere(rng: Generator, isa: str, S: int, value: float) -> None:
    """It is lost in no maximum: the loss is none, and neither are the gradients of the row."""
    for T in (1, 2, 5, 30):
        for t, k in product(range(T), range(4)):
            logits = rng.standard_normal((T, 1, 4)).astype(np.float32)
            logits[t, 0, k] = value
            for zero_infinity in (False, True):
                nll, dlogits = ctc_loss(
                    logits, rng.integers(1, 4, (1, S)), zero_infinity=zero_infinity
                )
                no_path = S > T  # never looked at
                assert np.isnan(nll).all() or no_path
                assert np.isnan(dlogits).all() or no_path


def test_no_negative_zero() -> None:
    nll, _ = ctc_loss(np.zeros((3, 2, 1)), np.zeros((2, 0), int), [0, 3])
    assert not np.signbit(nll).any()


def test_one_symbol_in_any_layout() -> None:
    """The last axis has one element: what is adjacent does not matter."""
    for x in (np.zeros((4, 3, 5))[:, :, ::5], np.zeros((3, 4, 1)).swapaxes(0, 1)):
        assert not ctc_loss(x, np.zeros((3, 0), int))[0].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_depend_on_nothing(
    rng: Generator, dtype: str, same_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on threads, nor on the instruction set, nor on other rows."""
    call = random_call(rng, 90, 20, 37, 30, dtype, 5.0)
    logits, targets, lengths, counts, blank = call
    fastlstm.set_num_threads(1)
    expected = ctc_loss(*call)
    for threads in (2, 3):
        fastlstm.set_num_threads(threads)
        assert all(map(same_bits, ctc_loss(*call), expected))
    for isa in fastlstm.isas()[:-1]:
        monkeypatch.setenv("FASTLSTM_ISA", isa)
        assert all(map(same_bits, ctc_loss(*call), expected)), isa
    for b in (0, 7, 19):
        n = lengths[b]
        nll, dlogits = ctc_loss(logits[:n, b], targets[b, : counts[b]], blank=blank)
        assert same_bits(np.asarray(nll), expected[0][b])
        assert same_bits(dlogits, expected[1][:n, b].copy())


def test_layouts_and_padding(rng: Generator) -> None:
    """Any strides; what is beyond the end of a row or a target is neither read nor left."""
    logits, targets, lengths, counts, blank = random_call(rng, 9, 5, 4, 4, "float32")
    expected = ctc_loss(logits, targets, lengths, counts, blank)
    padding = np.arange(9)[:, None] >= lengths
    assert not expected[1][padding].any()
    logits[padding] = np.nan
    targets[np.arange(4) >= counts[:, None]] = -7
    row_first = np.ascontiguousarray(logits.swapaxes(0, 1)).swapaxes(0, 1)
    wide = np.repeat(logits, 2, axis=2)[:, :, ::2]
    for other in (logits, row_first, wide, logits[::-1].copy()[::-1]):
        got = ctc_loss(other, targets.astype("i1"), lengths.tolist(), counts.astype("u1"), blank)
        assert all(map(same_bits, got, expected))


def test_nothing() -> None:
    empty = np.zeros((0, 2, 3))
    nll, dlogits = ctc_loss(empty, np.ones((2, 1), int), target_lengths=[0, 1])
    assert nll.tolist() == [0, np.inf]
    assert dlogits.shape == (0, 2, 3)
    assert ctc_loss(np.zeros((4, 0, 3)), np.ones((0, 1), int))[0].shape == (0,)
    nll, dlogits = ctc_loss(np.zeros((4, 2)), [])
    assert nll == pytest.approx(4 * np.log(2))
    assert dlogits[0] == pytest.approx([-0.5, 0.5])
    lengths = np.array([0, 3])
    nll, _ = ctc_loss(np.zeros((3, 2, 2)), np.ones((2, 1), int), lengths, [0, 1])
    assert nll[0] == 0


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize(("T", "B", "K", "S"), [(5, 2, 4, 2), (30, 8, 6, 10), (100, 5, 30, 20)])
@pytest.mark.peer
def test_torch(rng: Generator, T: int, B: int, K: int, S: int, blank: int) -> None:
    torch = pytest.importorskip("torch")
    logits, targets, lengths, counts, _ = random_call(rng, T, B, K, S)
    targets = np.where(targets % K == blank, (blank + 1) % K, targets % K)
    lengths = np.maximum(lengths, 2 * counts + 1)
    lengths = np.minimum(lengths, T)
    x = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.ctc_loss(
        *(x.log_softmax(2), torch.tensor(targets), torch.tensor(lengths), torch.tensor(counts)),
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    loss.sum().backward()
    nll, dlogits = ctc_loss(logits, targets, lengths, counts, blank, zero_infinity=True)
    np.testing.assert_allclose(nll, loss.detach(), atol=1e-10, rtol=0)
    np.testing.assert_allclose(dlogits, x.grad, atol=1e-10, rtol=0)


X, TARGETS = np.zeros((4, 3, 5), np.float32), np.ones((3, 2), int)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X[0, 0], TARGETS), ValueError, r"logits: expected \(T, B, K\) or \(T, K\), got \(5,\)"),
        ((X[:, :, :0], TARGETS), ValueError, "logits: expected at least one number a step, got"),
        ((X.astype(int), TARGETS), TypeError, "logits: expected float32 or float64, got int64"),
        (("x", TARGETS), TypeError, "logits: expected float32 or float64"),
        ((X, TARGETS[:2]), ValueError, r"targets: expected \(3, S\), got \(2, 2\)"),
        ((X, TARGETS[0]), ValueError, r"targets: expected \(3, S\), got \(2,\)"),
        ((X[:, 0], TARGETS), ValueError, r"targets: expected \(S,\), got \(3, 2\)"),
        ((X, TARGETS + 4), ValueError, "targets: expected symbols from 0 to 4, got 5"),
        ((X, TARGETS - 2), ValueError, "targets: expected symbols from 0 to 4, got -1"),
        ((X, TARGETS - 1), ValueError, r"targets: expected no blank, 0, got one at \(0, 0\)"),
        ((X, TARGETS * 1.0), TypeError, "targets: expected an array of integers, got float64"),
        ((X, TARGETS, [5, 4, 4]), ValueError, "lengths: expected integers from 0 to 4, got 5"),
        (
            (X, TARGETS, None, [3, 0, 0]),
            ValueError,
            "target_lengths: expected integers from 0 to 2",
        ),
        ((X, TARGETS, None, [1, 1]), ValueError, r"target_lengths: expected \(3,\), got \(2,\)"),
        ((X, TARGETS, None, None, 5), ValueError, "blank: expected at most 4, got 5"),
        ((X, TARGETS, None, None, 0.0), TypeError, "blank: expected an integer, got float"),
    ],
)
def test_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^(input_)?{message}"):
        ctc_loss(*arguments)
