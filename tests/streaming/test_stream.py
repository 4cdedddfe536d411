"""Streams: a layer step by step, with its state kept in between."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, same_bits

import fastlstm

T, B, I, H = 6, 3, 5, 4


@pytest.fixture
def x(rng: Generator) -> Array:
    return rng.random((T, B, I), "f4")


def same_state(a: Any, b: Any) -> bool:
    return all(map(same_bits, a.state, b.state))


def test_shapes(lstm: fastlstm.LSTM, x: Array) -> None:
    one, three = lstm.stream(), lstm.stream(B)
    assert one.step(x[0, 0]).shape == (H,)
    assert one.step(x[0, :1]).shape == (1, H)
    assert one.run(x[:, 0]).shape == (T, H)
    assert one.run(x[:, :1]).shape == (T, 1, H)
    assert one.run(x[:0, 0]).shape == (0, H)
    assert three.step(x[0]).shape == (B, H)
    assert three.run(x).shape == (T, B, H)
    assert [s.shape for s in three.state] == [(2, B, H)] * 2
    assert three.layer is lstm


def test_state(lstm: fastlstm.LSTM, x: Array, rng: Generator) -> None:
    """Zeros at first, or what was given; set and read as copies."""
    stream = lstm.stream(B)
    assert not any(s.any() for s in stream.state)
    start = (rng.random((2, B, H), "f4"), rng.random((2, B, H), "f4"))
    given = lstm.stream(B, start)
    assert all(map(same_bits, given.state, start))
    stream.state = start
    y = stream.run(x)
    assert same_bits(y, lstm(x, start)[0])
    assert same_bits(given.run(x), y)
    before = [s.copy() for s in stream.state]
    for array in (*stream.state, *start):
        array[...] = 7
    assert all(map(same_bits, stream.state, before))
    stream.state = None
    assert not any(s.any() for s in stream.state)


@pytest.mark.parametrize("rows", [[1], 1, [0, 2], slice(1), [True, False, True], np.array([2])])
def test_reset(lstm: fastlstm.LSTM, x: Array, rows: Any) -> None:
    """Of these rows only: each row goes on as if it were alone."""
    stream = lstm.stream(B)
    stream.run(x)
    expected = [s.copy() for s in stream.state]
    for s in expected:
        s[:, rows] = 0
    stream.reset(rows)
    assert all(map(same_bits, stream.state, expected))
    stream.reset()
    assert not any(s.any() for s in stream.state)
    assert same_bits(stream.run(x), lstm(x)[0])


COPIES: dict[str, Callable[[Any], Any]] = {
    "method": lambda stream: stream.copy(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda stream: pickle.loads(pickle.dumps(stream)),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copies_go_on_alone(lstm: fastlstm.LSTM, x: Array, duplicate: Callable[[Any], Any]) -> None:
    stream = lstm.stream(B)
    stream.run(x[:3])
    other = duplicate(stream)
    assert same_state(other, stream)
    before = [s.copy() for s in stream.state]
    y = other.run(x[3:])
    assert all(map(same_bits, stream.state, before)), "the copy's steps moved the original"
    assert same_bits(stream.run(x[3:]), y)
    assert same_state(other, stream)


def test_many_streams_of_one_layer(lstm: fastlstm.LSTM, rng: Generator) -> None:
    """In any order, at any pace, each sees only its own steps; the layer's own calls see none."""
    xs = rng.random((20, T, I), "f4")
    streams, at = [lstm.stream() for _ in xs], [0] * len(xs)
    ys: list[list[Array]] = [[] for _ in xs]
    for k in rng.permutation(np.repeat(np.arange(len(xs)), T)):
        ys[k].append(streams[k].step(xs[k, at[k]]))
        at[k] += 1
        lstm(xs[k])
    for x, y in zip(xs, ys, strict=True):
        assert same_bits(np.stack(y), lstm(x)[0])


def test_out(lstm: fastlstm.LSTM, x: Array) -> None:
    y = lstm(x)[0]
    stream, out = lstm.stream(B), np.full((B, H), np.nan, np.float32)
    for t in range(T):
        assert stream.step(x[t], out=out) is out
        assert same_bits(out, y[t])
    one = lstm.stream()
    flat, matrix = np.empty(H, np.float32), np.empty((1, H), np.float32)
    assert one.step(x[0, 0], out=flat) is flat
    one.reset()
    assert one.step(x[0, 0], matrix) is matrix
    assert same_bits(flat, matrix[0])
    assert same_bits(flat, y[0, 0])


def test_results_without_out_are_new(lstm: fastlstm.LSTM, x: Array) -> None:
    stream = lstm.stream(B)
    first = stream.step(x[0])
    kept = first.copy()
    stream.step(x[1])
    assert same_bits(first, kept)


@pytest.mark.parametrize("shift", [0, 1, 70, 199])
def test_out_may_overlap_x(rng: Generator, shift: int) -> None:
    """As in a loop that feeds a stream its own output; the units are several tiles."""
    lstm = fastlstm.LSTM(200, 200, seed=1)
    memory = rng.random(400, "f4")
    x, out = memory[:200], memory[shift : shift + 200]
    expected = lstm.stream().step(x.copy())
    assert same_bits(lstm.stream().step(x, out=out), expected)


def test_layouts_of_a_step(lstm: fastlstm.LSTM, x: Array) -> None:
    expected = lstm.stream(B).step(x[0])
    read_only = x[0].copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"?" + x[0].tobytes(), "f4", offset=1).reshape(B, I)
    for other in [
        np.asfortranarray(x[0]),
        x[0, ::-1].copy()[::-1],
        x[0].repeat(2, 1)[:, ::2],
        read_only,
        unaligned,
        memoryview(x[0].copy()),
    ]:
        assert same_bits(lstm.stream(B).step(other), expected)
    double = fastlstm.LSTM(I, H, dtype="float64", seed=1)
    assert same_bits(double.stream(B).step(x[0].tolist()), double(x[:1].astype("f8"))[0][0])


OF_ONE = r"\(5,\) or \(1, 5\)"

BAD_STEPS: list[tuple[int, Any, type[Exception], str]] = [
    (1, np.ones(4, "f4"), ValueError, rf"x_t: expected {OF_ONE}, got \(4,\)"),
    (1, np.ones((2, 5), "f4"), ValueError, rf"x_t: expected {OF_ONE}, got \(2, 5\)"),
    (1, np.ones((1, 1, 5), "f4"), ValueError, rf"x_t: expected {OF_ONE}, got \(1, 1, 5\)"),
    (1, np.float32(1), ValueError, rf"x_t: expected {OF_ONE}, got \(\)"),
    (1, np.ones(5), TypeError, "x_t: expected float32, got float64; cast it with"),
    (1, np.ones(5, ">f4"), TypeError, "x_t: expected float32, got >f4"),
    (1, None, TypeError, "x_t: expected float32, got object"),
    (3, np.ones(5, "f4"), ValueError, r"x_t: expected \(3, 5\), got \(5,\)"),
    (3, np.ones(15, "f4"), ValueError, r"x_t: expected \(3, 5\), got \(15,\)"),
    (3, np.ones((5, 3), "f4"), ValueError, r"x_t: expected \(3, 5\), got \(5, 3\)"),
    (3, np.float32(1), ValueError, r"x_t: expected \(3, 5\), got \(\)"),
]


@pytest.mark.parametrize(("batch", "x_t", "error", "message"), BAD_STEPS)
def test_refused_steps_change_nothing(
    lstm: fastlstm.LSTM, batch: int, x_t: Any, error: type[Exception], message: str
) -> None:
    stream = lstm.stream(batch)
    stream.step(np.ones((batch, I), "f4"))
    before = stream.copy()
    with pytest.raises(error, match=message) as caught:
        stream.step(x_t)
    assert caught.type is error
    assert same_state(stream, before)


@pytest.mark.parametrize(
    "out",
    [
        np.ones((3, 5), "f4"),
        np.ones(12, "f4"),
        np.ones((3, 4)),
        np.ones((4, 3), "f4").T,
        np.ones((3, 8), "f4")[:, ::2],
        np.broadcast_to(np.float32(1), (3, 4)),
        np.frombuffer(bytes(48), "f4").reshape(3, 4),
        [[1.0] * 4] * 3,
    ],
)
def test_refused_out_changes_nothing(lstm: fastlstm.LSTM, x: Array, out: Any) -> None:
    stream = lstm.stream(B)
    expected = r"out: expected a writable C-contiguous float32 array \(3, 4\)"
    with pytest.raises(ValueError, match=expected):
        stream.step(x[0], out=out)
    assert same_state(stream, lstm.stream(B))
    assert same_bits(stream.step(x[0]), lstm.stream(B).step(x[0]))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((T, I), "f4"), ValueError, r"x: expected \(T, 3, 5\), got \(6, 5\)"),
        (np.ones((T, 2, I), "f4"), ValueError, r"x: expected \(T, 3, 5\), got \(6, 2, 5\)"),
        (np.ones((T, B, 4), "f4"), ValueError, r"x: expected \(T, 3, 5\), got \(6, 3, 4\)"),
        (np.ones((T, B, I)), TypeError, "x: expected float32, got float64"),
    ],
)
def test_refused_runs_change_nothing(
    lstm: fastlstm.LSTM, x: Array, error: type[Exception], message: str
) -> None:
    stream = lstm.stream(B)
    with pytest.raises(error, match=message):
        stream.run(x)
    assert same_state(stream, lstm.stream(B))


def test_refused_states_and_resets_change_nothing(lstm: fastlstm.LSTM, x: Array) -> None:
    stream = lstm.stream(B)
    stream.run(x)
    before = stream.copy()
    good, bad = np.zeros((2, B, H), "f4"), np.zeros((2, 4, H), "f4")
    for value in [(good, bad), (bad, good), (good,), good, 3]:
        with pytest.raises((TypeError, ValueError), match=r"^(state|h_0|c_0): expected"):
            stream.state = value
    for rows in [3, [0, 3], [0.5], "all", [True] * 4]:
        with pytest.raises((TypeError, ValueError), match=r"^rows: expected"):
            stream.reset(rows)
    assert same_state(stream, before)


def test_no_stream_of_both_directions() -> None:
    with pytest.raises(ValueError, match="stream: expected a layer of one direction"):
        fastlstm.LSTM(I, H, bidirectional=True).stream()


@pytest.mark.parametrize("threads", [1, 2])
def test_large_layers(rng: Generator, threads: int) -> None:
    """Steps that are worth a team, or giving the GIL away."""
    before = fastlstm.get_num_threads()
    lstm = fastlstm.LSTM(64, 600, seed=1)
    x = rng.random((4, 64), "f4")
    try:
        fastlstm.set_num_threads(threads)
        stream = lstm.stream()
        y = [stream.step(x_t) for x_t in x[:2]]
        fastlstm.set_num_threads(3 - threads)  # noticed, or at least survived
        y += [stream.step(x_t) for x_t in x[2:]]
    finally:
        fastlstm.set_num_threads(before)
    assert same_bits(np.stack(y), lstm(x)[0])


def test_a_second_thread_is_refused(rng: np.random.Generator) -> None:
    """A step of a large layer gives the GIL away; meanwhile the stream is not free."""
    lstm = fastlstm.LSTM(600, 600, seed=0)
    x = rng.standard_normal((50, 1, 600)).astype(np.float32)
    stream = lstm.stream()
    refused: list[str] = []
    done = threading.Event()

    def use(call: Callable[[], object]) -> None:
        while not (refused or done.is_set()):
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error))

    thread = threading.Thread(target=use, args=(lambda: stream.step(x[0]),))
    thread.start()
    timer = threading.Timer(20, done.set)
    timer.start()
    use(lambda: stream.run(x))
    timer.cancel()
    thread.join()
    assert refused[0].startswith("stream: is in use by another thread")
