"""Groups of processes, here of threads: the sum and its bits, the bytes sent, agreements."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator
from support.groups import ThreadGroup, gradients_of, in_threads, outcomes, tree_sum

import fastlstm
from fastlstm import distributed
from fastlstm._core import threads
from fastlstm.distributed import ShardGradients, Shards, _group, _tree

SIZES = pytest.mark.parametrize("size", range(1, 9))
COUNTS = pytest.mark.parametrize("count", [1, 2, 4, 8, 16, 32])
SOME = pytest.mark.parametrize("size", [1, 2, 3, 5])


def drawn(count: int, n: int, seed: int = 0) -> Any:
    """Numbers of so many magnitudes that sums differ with their order."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, n)) * 10.0 ** rng.integers(-4, 4, (count, n))).astype("f4")


# The tree.


@given(st.integers(0, 200), st.integers(0, 200))
def test_nodes(first: int, length: int) -> None:
    """Complete subtrees, one after another, and no two that are halves of one."""
    found = _tree.nodes(first, first + length)
    assert [s for node in found for s in range(*node)] == list(range(first, first + length))
    for start, end in found:
        assert (end - start).bit_count() == 1
        assert start % (end - start) == 0
    for (a, b), (c, d) in itertools.pairwise(found):
        assert b - a != d - c or a % (2 * (b - a))


@SIZES
@COUNTS
def test_the_sum_has_the_bits_of_the_tree(size: int, count: int) -> None:
    of_shards = drawn(count, 37)
    expected = tree_sum(of_shards)
    if count == 32:
        assert (expected != of_shards.sum(axis=0)).any()  # the order matters
    for total in in_threads(size, lambda group: group.sum(gradients_of(group, of_shards))["w"]):
        assert total.dtype == np.float32
        assert np.array_equal(total, expected)


@given(st.integers(1, 8), st.integers(0, 5), st.integers(0, 40), st.integers(0, 1 << 20))
def test_any_sizes(size: int, power: int, n: int, seed: int) -> None:
    of_shards = drawn(1 << power, n, seed).astype(np.float64)
    for total in in_threads(size, lambda group: group.sum(gradients_of(group, of_shards)).flat):
        assert np.array_equal(total, tree_sum(of_shards))


@pytest.mark.parametrize("count", [8, 64, 128])
def test_64_processes(count: int) -> None:
    """With fewer shards than processes, as many, and more; the last slices of the sum are empty."""
    of_shards = drawn(count, 150)
    expected = tree_sum(of_shards)
    assert (expected != of_shards.sum(axis=0)).any()  # the order matters
    for total in in_threads(64, lambda group: group.sum(gradients_of(group, of_shards)).flat):
        assert np.array_equal(total, expected)


@SOME
def test_blocks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tree, "_BLOCK", 8)
    of_shards = drawn(8, 100)
    before = of_shards.copy()
    for total in in_threads(size, lambda group: group.sum(gradients_of(group, of_shards)).flat):
        assert np.array_equal(total, tree_sum(of_shards))
    assert np.array_equal(of_shards, before)


@SOME
def test_several_gradients_at_once(size: int) -> None:
    of_layer, of_head = drawn(8, 31), drawn(8, 6, seed=1)

    def work(group: ThreadGroup) -> Any:
        shards = group.shards(30, 8)
        own = slice(shards.first, shards.end)
        layer = ShardGradients({"w": (31,)}, of_layer[own], shards)
        head = ShardGradients({"w": (2, 2), "b": (2,)}, of_head[own], shards)
        return group.sum([layer, head])

    for layer, head in in_threads(size, work):
        assert np.array_equal(layer["w"], tree_sum(of_layer))
        assert np.array_equal(head.flat, tree_sum(of_head))
        assert head["w"].shape == (2, 2)


def sent_by_sum(group: ThreadGroup, n: int) -> int:
    """Of n numbers; the first sum of a kind is preceded by a check that all have the same."""
    gradients = gradients_of(group, drawn(8, n))
    group.sum(gradients)
    before = group.sent
    group.sum(gradients)
    return group.sent - before


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_bytes_sent(size: int) -> None:
    """As many as in a ring all-reduce."""
    n = 1024

    assert (
        in_threads(size, lambda group: sent_by_sum(group, n))
        == [2 * n * (size - 1) // size * 4] * size
    )


@pytest.mark.parametrize(("size", "nodes"), [(3, 4), (5, 2), (6, 2), (7, 2)])
def test_bytes_sent_by_an_odd_number(size: int, nodes: int) -> None:
    """A process sends its slices of each of its nodes."""
    n = size * 100

    assert (
        max(in_threads(size, lambda group: sent_by_sum(group, n)))
        <= (nodes + 1) * 100 * (size - 1) * 4
    )


@SIZES
@COUNTS
def test_total(size: int, count: int) -> None:
    values = drawn(count, 1, seed=4).astype(np.float64) / 3
    if count == 32:
        assert tree_sum(values)[0] != values.sum()

    def work(group: ThreadGroup) -> float:
        shards = group.shards(64, count)
        return group.total(values[shards.first : shards.end, 0])

    assert in_threads(size, work) == [tree_sum(values)[0]] * size


def test_what_cannot_be_added(rng: Generator) -> None:
    group = distributed.alone()
    one = gradients_of(group, rng.normal(size=(4, 3)))
    other = gradients_of(group, rng.normal(size=(8, 3)))
    with pytest.raises(ValueError, match=r"gradients: expected those of Shards\(0 to 3 of 4, batc"):
        group.sum([one, other])
    half = ShardGradients({"w": (3,)}, np.ones((2, 3)), Shards(64, 4, 1, 2))
    with pytest.raises(ValueError, match=r"of Shards\(0 to 3 of 4, .* got Shards\(2 to 3 of 4"):
        group.sum(half)
    single = gradients_of(group, rng.normal(size=(4, 3)).astype(np.float32))
    with pytest.raises(TypeError, match="gradients: expected one dtype, got float32, float64"):
        group.sum([one, single])
    with pytest.raises(TypeError, match="gradients: expected one dtype, got none"):
        group.sum([])
    with pytest.raises(ValueError, match="values: expected a power of two in all processes, got 3"):
        group.total(np.ones(3))


# What they tell each other.


@SOME
def test_gather_and_share(size: int) -> None:
    """Values of different lengths, in the order of the ranks."""
    everything = [{"rank": rank, "text": "x" * 100 * rank} for rank in range(size)]
    assert in_threads(size, lambda g: g.gather(everything[g.rank])) == [everything] * size
    assert in_threads(size, lambda g: g.share(everything[g.rank])) == everything[:1] * size


@SOME
def test_a_vote_to_go_on_or_to_stop(size: int) -> None:
    assert in_threads(size, lambda group: group.vote(None, 0)) == [0] * size
    last = size - 1
    stops = in_threads(size, lambda group: group.vote(None, 15 if group.rank == last else 0))
    assert stops == [15] * size
    assert in_threads(size, lambda group: group.vote(None, group.rank)) == [last] * size


def test_an_error_is_everyones() -> None:
    mine = {1: KeyError("x"), 2: KeyboardInterrupt()}
    found = outcomes(4, lambda group: group.vote(mine.get(group.rank), 15))
    assert found[1] is mine[1]
    assert found[2] is mine[2]
    for rank in (0, 3):
        assert isinstance(found[rank], RuntimeError)
        assert str(found[rank]) == "rank 1: KeyError: 'x'; rank 2: KeyboardInterrupt: "


def test_equal_processes() -> None:
    def work(group: ThreadGroup) -> None:
        group.check({"lr": 0.1, "shards": 8})
        group.check_same([np.arange(3), np.ones((2, 2)).T], "parameters")

    in_threads(3, work)


def test_settings_that_differ() -> None:
    values = [0.1, 0.2, 0.1]

    def work(group: ThreadGroup) -> None:
        more = {"clip": None} if group.rank == 1 else {}
        group.check({"lr": values[group.rank], "shards": 8, **more})

    for error in outcomes(3, work):
        assert isinstance(error, ValueError)
        assert str(error) == (
            "expected equal processes, got lr: 0.1 on ranks 0 and 2, 0.2 on rank 1; "
            "clip: not set on ranks 0 and 2, None on rank 1"
        )


def test_versions_and_instruction_sets_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    isas = {"0": "avx2", "1": "neon", "2": "baseline"}
    monkeypatch.setattr(threads, "chosen_isa", lambda: isas[threading.current_thread().name])
    monkeypatch.setattr(_group, "_config", Versions())

    def work(group: ThreadGroup) -> None:
        threading.current_thread().name = str(group.rank)
        group.check({})

    for error in outcomes(3, work):
        assert str(error) == (
            "expected equal processes, got fastlstm: 0.1.0 on rank 0, 0.2.0 on ranks 1 and 2; "
            "instruction set: fused multiply-add on ranks 0 and 1, baseline on rank 2"
        )


class Versions:
    """A module that has another version in another thread."""

    @property
    def __version__(self) -> str:
        return "0.1.0" if threading.current_thread().name == "0" else "0.2.0"


@pytest.mark.parametrize(
    "other", [np.array([0.0, -0.0]), np.zeros(2, np.float32), np.zeros((2, 1))], ids=repr
)
def test_arrays_that_differ(other: Any) -> None:
    """In a bit, in their dtype or shape."""
    of = [np.zeros(2), other, np.zeros(2), other]
    for error in outcomes(4, lambda group: group.check_same([of[group.rank]], "parameters")):
        assert isinstance(error, RuntimeError)
        start, rest = str(error).split(" on ranks 0 and 2, ")
        assert start.startswith("parameters: expected the same bits in all processes, got ")
        assert rest.endswith(" on ranks 1 and 3")


def test_many_ranks_are_not_all_named() -> None:
    assert _group._ranks(list(range(8))) == "ranks 0, 1, 2, 3, 4, 5, 6 and 7"
    assert _group._ranks(list(range(64))) == "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 56 more"


def test_a_process_that_never_comes() -> None:
    def work(group: ThreadGroup) -> Any:
        return None if group.rank == 1 else group.gather(1)

    first, _, third = outcomes(3, work, timeout=0.2)
    assert isinstance(first, TimeoutError)
    assert isinstance(third, TimeoutError)


# The current group.


def test_with_a_group() -> None:
    outer, inner = distributed.alone(), distributed.alone()
    assert _group.current() is None
    with outer as entered:
        assert _group.current() is entered is outer
        with inner, outer:
            assert _group.current() is outer
        with inner, pytest.raises(KeyError), outer:
            raise KeyError
        assert _group.current() is outer
        [found] = in_threads(1, lambda group: _group.current())
        assert found is None  # a thread of a search is in no training of several processes
    assert _group.current() is None


def test_repr() -> None:
    assert repr(distributed.alone()) == "Alone(rank=0, size=1)"
    assert fastlstm.distributed is distributed


def test_gradients_of_other_sizes_are_an_error_in_all() -> None:
    """They would wait for bytes that do not come."""

    def work(group: ThreadGroup) -> None:
        shards = group.shards(8, 4)
        n = 3 + group.rank
        group.sum(ShardGradients({"w": (n,)}, np.ones((len(shards.starts) - 1, n)), shards))

    for error in outcomes(2, work):
        assert isinstance(error, ValueError)
        assert "gradients to sum: (8, 4, ('float64', 3)) on rank 0" in str(error)
