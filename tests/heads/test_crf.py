"""The conditional random field: its definition, its limits, and that its bits depend on nothing."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from support.compare import same_bits
from support.paths import slopes, tag_scores

import fastlstm
from fastlstm.heads import CRF
from fastlstm.reference import crf as reference

Array = NDArray[Any]

SIZES = [(1, 1, 1), (2, 1, 3), (7, 3, 2), (9, 6, 4), (30, 13, 17), (20, 7, 70), (3, 25, 130)]
EPS = {"float32": 1e-6, "float64": 2e-15}


def random_crf(rng: Generator, K: int, dtype: str = "float64", scale: float = 1.0) -> CRF:
    crf = CRF(K, dtype=dtype)
    crf.parameters.flat = scale * rng.standard_normal(crf.parameters.size)
    return crf


def random_rows(
    rng: Generator, T: int, B: int, K: int, dtype: str = "float64", scale: float = 1.0
) -> tuple[Array, Array, Array]:
    """Emissions, tags and lengths, one of them T and one 0 if there are more than two."""
    lengths = rng.integers(1, T + 1, B)
    lengths[0], lengths[2:3] = T, 0
    emissions = (scale * rng.standard_normal((T, B, K))).astype(dtype)
    return emissions, rng.integers(0, K, (T, B)), lengths


def defined(crf: CRF, emissions: Array, tags: Array, lengths: Array) -> list[Array]:
    """nll, demissions, the flat gradient and the marginals, by the reference."""
    scores = reference.Scores(*(a.astype(np.longdouble) for a in crf.parameters.values()))
    T, B, K = emissions.shape
    nll, demissions, marginals = np.zeros(B), np.zeros((T, B, K)), np.zeros((T, B, K))
    total = np.zeros(crf.parameters.size)
    for b, n in enumerate(lengths):
        row = emissions[:n, b].astype(np.longdouble)
        nll[b], demissions[:n, b], grads = reference.loss(row, scores, tags[:n, b])
        total += np.concatenate([grad.ravel() for grad in grads]).astype(np.float64)
        marginals[:n, b] = reference.marginals(row, scores)
    return [nll, demissions, total, marginals]


def check(crf: CRF, emissions: Array, tags: Array, lengths: Array, bound: float) -> None:
    expected = defined(crf, emissions, tags, lengths)
    nll, demissions, grads = crf.loss(emissions, tags, lengths)
    got = [nll, demissions, grads.flat, crf.marginals(emissions, lengths)]
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == crf.dtype
        assert ours.shape == theirs.shape
        finite = np.isfinite(theirs)
        assert np.array_equal(np.isinf(ours), np.isinf(theirs))
        error = np.abs(ours[finite] - theirs[finite])
        assert error.max(initial=0) <= bound * max(1, np.abs(theirs[finite]).max(initial=0))


@pytest.mark.parametrize(("T", "B", "K"), SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_definition(rng: Generator, isa: str, dtype: str, T: int, B: int, K: int) -> None:
    crf = random_crf(rng, K, dtype)
    check(crf, *random_rows(rng, T, B, K, dtype), 10 * np.sqrt(T) * EPS[dtype])


@pytest.mark.parametrize("scale", [30.0, 300.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scores_far_apart(rng: Generator, isa: str, dtype: str, scale: float) -> None:
    """Most sums lose all of a product, and are summed in logarithms."""
    crf = random_crf(rng, 5, dtype, scale)
    check(crf, *random_rows(rng, 40, 8, 5, dtype, scale), 100 * scale * EPS[dtype])


@pytest.mark.parametrize("impossible", [-np.inf, -1e4, -800.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_impossible_transitions(rng: Generator, isa: str, dtype: str, impossible: float) -> None:
    """Tags may only go up by one, or stay."""
    K, T, B = 6, 12, 9
    crf = random_crf(rng, K, dtype)
    to = np.arange(K)
    allowed = (to - to[:, None] == 1) | (to == to[:, None])
    crf.parameters["transitions"] = np.where(allowed, crf.parameters["transitions"], impossible)
    crf.parameters["start"] = np.where(to == 0, 0.5, impossible)
    emissions, tags, lengths = random_rows(rng, T, B, K, dtype)
    tags[:] = np.minimum(np.cumsum(rng.integers(0, 2, (T, B)), axis=0), K - 1)
    tags -= tags[0]
    tags[:, 1] = 3  # cannot be
    check(crf, emissions, tags, lengths, 1e3 * EPS[dtype])
    nll, demissions, grads = crf.loss(emissions, tags, lengths)
    if impossible == -np.inf:
        assert nll[1] == np.inf
        assert np.isfinite(np.delete(nll, 1)).all()
    assert np.isfinite(demissions).all()
    assert np.isfinite(grads.flat).all()


def test_a_sum_of_what_is_nothing_beside_the_rest(isa: str) -> None:
    """Both tags are left by way of what is e^-800 of the largest."""
    crf = CRF(2, dtype="float64")
    crf.parameters["transitions"] = [[-800, 0], [0, -800]]
    for name in ("start", "end"):
        crf.parameters[name] = [0, -800]
    check(crf, np.zeros((3, 1, 2)), np.zeros((3, 1), int), np.array([3]), 1e-12)
    check(crf, np.zeros((4, 1, 2)), np.array([[0], [1], [0], [1]]), np.array([4]), 1e-12)


def test_rows_without_a_possible_path(rng: Generator, isa: str) -> None:
    """An infinite loss, no gradient, and nothing of it in other rows."""
    crf = random_crf(rng, 3)
    emissions, tags, _ = random_rows(rng, 5, 4, 3)
    emissions[2, 1] = -np.inf
    nll, demissions, grads = crf.loss(emissions, tags)
    assert nll[1] == np.inf
    assert not demissions[:, 1].any()
    assert not crf.marginals(emissions)[:, 1].any()
    others = [0, 2, 3]
    alone = crf.loss(np.ascontiguousarray(emissions[:, others]), tags[:, others])
    assert same_bits(nll[others], alone[0])
    np.testing.assert_allclose(grads.flat, alone[2].flat, atol=1e-14)


def test_not_a_number_stays_in_its_row(rng: Generator, isa: str) -> None:
    crf = random_crf(rng, 3, "float32")
    emissions, tags, _ = random_rows(rng, 5, 4, 3, "float32")
    clean = crf.loss(emissions, tags)
    emissions[2, 1, 0] = np.nan
    nll, demissions, _ = crf.loss(emissions, tags)
    assert np.isnan(nll).tolist() == [False, True, False, False]
    assert np.isnan(demissions[:, 1]).any()
    assert same_bits(demissions[:, 2:], clean[1][:, 2:])
    assert [len(path) for path in crf.decode(emissions)] == [5] * 4


def test_gradients_by_differences(rng: Generator, isa: str) -> None:
    crf = random_crf(rng, 3)
    emissions, tags, lengths = random_rows(rng, 4, 7, 3)
    flat = crf.parameters.flat.copy()

    def loss() -> float:
        crf.parameters.flat = flat
        return float(crf.loss(emissions, tags, lengths)[0].sum())

    _, demissions, grads = crf.loss(emissions, tags, lengths)
    np.testing.assert_allclose(demissions, slopes(loss, emissions), atol=1e-8)
    np.testing.assert_allclose(grads.flat, slopes(loss, flat), atol=1e-8)


@pytest.mark.parametrize(("T", "K"), [(1, 1), (1, 3), (5, 3), (3, 6)])
def test_all_paths(rng: Generator, isa: str, T: int, K: int) -> None:
    crf = random_crf(rng, K)
    emissions = rng.standard_normal((T, K))
    scores = tag_scores(emissions, reference.Scores(*crf.parameters.values()))
    log_z = np.logaddexp.reduce(list(scores.values()))
    best = max(scores, key=scores.__getitem__)
    assert tuple(crf.decode(emissions)) == best
    for path in [best, (0,) * T]:
        nll = crf.loss(emissions, np.array(path))[0]
        assert float(nll) == pytest.approx(log_z - scores[path], abs=1e-12)


@pytest.mark.parametrize(("T", "B", "K"), SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_best_paths(rng: Generator, isa: str, dtype: str, T: int, B: int, K: int) -> None:
    """Whole numbers: sums are exact, and many paths are equal."""
    crf = CRF(K, dtype=dtype)
    crf.parameters.flat = rng.integers(-2, 3, crf.parameters.size)
    emissions, _, lengths = random_rows(rng, T, B, K, dtype)
    emissions = np.round(emissions)
    scores = reference.Scores(*(a.astype(np.float64) for a in crf.parameters.values()))
    for b, path in enumerate(crf.decode(emissions, lengths)):
        row = emissions[: lengths[b], b].astype(np.float64)
        assert path.tolist() == reference.best_path(row, scores).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_depend_on_nothing(
    rng: Generator, dtype: str, same_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on threads, nor on the instruction set, nor on other rows."""
    crf = random_crf(rng, 37, dtype, 10.0)
    emissions, tags, lengths = random_rows(rng, 90, 20, 37, dtype, 3.0)

    def results() -> list[Array]:
        nll, demissions, grads = crf.loss(emissions, tags, lengths)
        paths = crf.decode(emissions, lengths)
        return [nll, demissions, grads.flat, crf.marginals(emissions, lengths), *paths]

    fastlstm.set_num_threads(1)
    expected = results()
    for threads in (2, 3):
        fastlstm.set_num_threads(threads)
        assert all(map(same_bits, results(), expected))
    for isa in fastlstm.isas()[:-1]:
        monkeypatch.setenv("FASTLSTM_ISA", isa)
        assert all(map(same_bits, results(), expected)), isa
    for b in (0, 5, 19):
        n = lengths[b]
        alone = crf.loss(emissions[:n, b], tags[:n, b])
        assert same_bits(np.asarray(alone[0]), expected[0][b])
        assert same_bits(alone[1], expected[1][:n, b].copy())
        assert same_bits(crf.decode(emissions[:n, b]), expected[4 + b])


def test_layouts_and_padding(rng: Generator) -> None:
    """Any strides; what is beyond the end of a row is neither read nor left."""
    crf = random_crf(rng, 4, "float32")
    emissions, tags, lengths = random_rows(rng, 6, 5, 4, "float32")
    expected = crf.loss(emissions, tags, lengths)
    padding = np.arange(6)[:, None] >= lengths
    assert not expected[1][padding].any()
    assert not crf.marginals(emissions, lengths)[padding].any()
    emissions[padding], tags[padding] = np.nan, -100
    row_first = np.ascontiguousarray(emissions.swapaxes(0, 1)).swapaxes(0, 1)
    wide = np.repeat(emissions, 2, axis=2)[:, :, ::2]
    backward = np.ascontiguousarray(emissions[::-1, ::-1])[::-1, ::-1]
    for other in (emissions, row_first, wide, backward):
        got = crf.loss(other, tags.astype(np.int8), lengths.tolist())
        assert same_bits(got[0], expected[0])
        assert same_bits(got[1], expected[1])
        assert same_bits(got[2].flat, expected[2].flat)


def test_one_tag_in_any_layout() -> None:
    """The last axis has one element: what is adjacent does not matter."""
    crf = CRF(1, dtype="float64")
    tags = np.zeros((4, 3), int)
    for x in (np.zeros((4, 3, 5))[:, :, ::5], np.zeros((3, 4, 1)).swapaxes(0, 1)):
        assert not crf.loss(x, tags)[1].any()
        assert len(crf.decode(x)) == 3
        assert (crf.marginals(x) == 1).all()


@pytest.mark.parametrize("B", [384, 385, 800])
def test_gradients_of_many_rows(rng: Generator, B: int, same_threads: None) -> None:
    """More groups of rows than there are runs of them: each row counts once, in the same order."""
    crf = random_crf(rng, 3)
    emissions, tags, lengths = random_rows(rng, 4, B, 3)
    expected = sum(crf.loss(emissions[:n, b], tags[:n, b])[2].flat for b, n in enumerate(lengths))
    found = []
    for threads in (1, 2, 3):
        fastlstm.set_num_threads(threads)
        found.append(crf.loss(emissions, tags, lengths)[2].flat)
        np.testing.assert_allclose(found[-1], expected, rtol=1e-10, atol=1e-10)
        assert same_bits(found[-1], found[0])


@pytest.mark.parametrize("shape", [(0, 3, 2), (4, 0, 2), (0, 0, 2), (0, 2)])
def test_nothing(shape: tuple[int, ...]) -> None:
    crf, emissions = CRF(2), np.zeros(shape, np.float32)
    nll, demissions, grads = crf.loss(emissions, np.zeros(shape[:-1], int))
    assert nll.shape == shape[1:-1]
    assert not np.any(nll)
    assert demissions.shape == crf.marginals(emissions).shape == shape
    assert not grads.flat.any()
    paths = crf.decode(emissions)
    assert len(paths) == (shape[1] if len(shape) == 3 else 0)


def test_a_row_alone(rng: Generator) -> None:
    crf = random_crf(rng, 3)
    emissions, tags = rng.standard_normal((5, 3)), rng.integers(0, 3, 5)
    nll, demissions, _ = crf.loss(emissions, tags, 4)
    batch = crf.loss(emissions[:, None], tags[:, None], [4])
    assert nll.shape == ()
    assert nll == batch[0][0]
    assert same_bits(demissions, batch[1][:, 0].copy())
    assert crf.decode(emissions, 4).shape == (4,)
    assert crf.marginals(emissions, [4]).shape == (5, 3)


def test_training(rng: Generator) -> None:
    """Optimizers take the parameters; the loss falls."""
    crf = CRF(4, seed=3)
    emissions, tags, lengths = random_rows(rng, 8, 16, 4, "float32")
    tags = np.cumsum(tags > 1, axis=0) % 4
    optimizer = fastlstm.optim.Adam(crf.parameters, lr=0.1)
    losses = []
    for _ in range(60):
        nll, _, grads = crf.loss(emissions, tags, lengths)
        optimizer.step(grads)
        losses.append(nll.sum())
    assert losses[-1] < 0.9 * losses[0]


def test_values(tmp_path: Path) -> None:
    crf = CRF(3, dtype="float64", seed=1)
    assert repr(crf) == "CRF(3, dtype='float64')"
    assert (crf.num_tags, crf.dtype) == (3, np.float64)
    assert {n: a.shape for n, a in crf.parameters.items()} == {
        "transitions": (3, 3),
        "start": (3,),
        "end": (3,),
    }
    assert 0.01 < np.abs(crf.parameters.flat).max() <= 0.1
    assert same_bits(CRF(3, dtype="float64", seed=1).parameters.flat, crf.parameters.flat)
    crf.save(tmp_path / "crf")
    other = CRF(3, dtype="float64")
    other.load_state_dict(crf.state_dict())
    copies = [
        CRF.load(tmp_path / "crf"),
        pickle.loads(pickle.dumps(crf)),
        copy.deepcopy(crf),
        other,
    ]
    for one in copies:
        assert repr(one) == repr(crf)
        assert same_bits(one.parameters.flat, crf.parameters.flat)
    other.load_state_dict({"end": np.ones(3), "more": np.ones(2)}, strict=False)
    assert other.parameters["end"].tolist() == [1, 1, 1]
    assert same_bits(other.parameters["start"], crf.parameters["start"])


def test_files_that_are_refused(tmp_path: Path) -> None:
    from fastlstm._io import tensor_file

    tensors, path = CRF(3).state_dict(), tmp_path / "file"
    for config in ({}, {"num_tags": 4}, {"num_tags": 3, "dtype": "int8"}, {"num_tags": 10**9}):
        tensor_file.write(path, "CRF", tensors, config)
        with pytest.raises(ValueError, match="weights and configuration do not agree"):
            CRF.load(path)
    tensor_file.write(path, "CRF", tensors, {"num_tags": 4})
    with pytest.raises(ValueError, match="expected 24 numbers, got 15"):  # before it is made
        CRF.load(path)
    fastlstm.LSTM(2, 3).save(path)
    with pytest.raises(ValueError, match=r"not of a fastlstm\.CRF"):
        CRF.load(path)


E32, TAGS = np.zeros((4, 3, 2), np.float32), np.zeros((4, 3), int)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((E32[0, 0], TAGS), ValueError, r"emissions: expected \(T, B, 2\) or \(T, 2\), got \(2,\)"),
        ((E32[..., :1], TAGS), ValueError, r"emissions: expected \(T, B, 2\)"),
        ((E32.astype("f8"), TAGS), TypeError, "emissions: expected float32, got float64"),
        (("x", TAGS), TypeError, "emissions: expected float32"),
        ((E32, TAGS[:3]), ValueError, r"tags: expected \(4, 3\), got \(3, 3\)"),
        ((E32[:, 0], TAGS), ValueError, r"tags: expected \(4,\), got \(4, 3\)"),
        ((E32, TAGS + 2), ValueError, "tags: expected integers from 0 to 1, got 2"),
        ((E32, TAGS - 1), ValueError, "tags: expected integers from 0 to 1, got -1"),
        ((E32, TAGS + 0.5), TypeError, "tags: expected an array of integers, got float64"),
        ((E32, [[0], [0, 0]]), TypeError, "tags: expected an array of integers"),
        ((E32, TAGS, [1, 2]), ValueError, r"lengths: expected \(3,\), got \(2,\)"),
        ((E32, TAGS, [1, 2, 5]), ValueError, "lengths: expected integers from 0 to 4, got 5"),
        ((E32, TAGS, [1, -2, 4]), ValueError, "lengths: expected integers from 0 to 4, got -2"),
        ((E32, TAGS, [1.0, 2, 4]), TypeError, "lengths: expected integers, got float64"),
        ((E32, TAGS, 4), ValueError, r"lengths: expected \(3,\), got \(\)"),
    ],
)
def test_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        CRF(2).loss(*arguments)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "num_tags: expected at least 1, got 0"),
        ((2.0,), {}, "num_tags: expected an integer, got float"),
        ((2,), {"dtype": "int8"}, "dtype: expected 'float32' or 'float64', got 'int8'"),
        ((2,), {"seed": -1}, "seed: expected at least 0, got -1"),
        ((10**9,), {}, "num_tags: too large"),
    ],
)
def test_refused_by_the_constructor(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        CRF(*arguments, **options)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore:where received a uint8:UserWarning")
@pytest.mark.parametrize(("T", "B", "K"), [(2, 2, 3), (9, 6, 5), (60, 13, 20)])
def test_pytorch_crf(rng: Generator, T: int, B: int, K: int) -> None:
    torch = pytest.importorskip("torch")
    torchcrf = pytest.importorskip("torchcrf")
    crf, peer = random_crf(rng, K), torchcrf.CRF(K).double()
    emissions, tags, lengths = random_rows(rng, T, B, K)
    lengths = np.maximum(lengths, 1)  # it wants a step of each row
    names = {"transitions": "transitions", "start": "start_transitions", "end": "end_transitions"}
    with torch.no_grad():
        for ours, theirs in names.items():
            getattr(peer, theirs).copy_(torch.tensor(crf.parameters[ours]))
    x = torch.tensor(emissions, requires_grad=True)
    mask = torch.tensor(np.arange(T)[:, None] < lengths)
    loss = -peer(x, torch.tensor(tags), mask=mask, reduction="none")
    loss.sum().backward()
    nll, demissions, grads = crf.loss(emissions, tags, lengths)
    np.testing.assert_allclose(nll, loss.detach(), atol=1e-10, rtol=0)
    np.testing.assert_allclose(demissions, x.grad, atol=1e-10, rtol=0)
    for ours, theirs in names.items():
        np.testing.assert_allclose(grads[ours], getattr(peer, theirs).grad, atol=1e-10, rtol=0)
    assert [path.tolist() for path in crf.decode(emissions, lengths)] == peer.decode(x, mask=mask)
