"""Threads that change parameters while others compute with them, and threads that share a stream.

What a thread does at the worst moment is done there on purpose, so that no test depends on luck.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.compare import same_bits

import fastlstm
import fastlstm.keras
from fastlstm import StreamPool
from fastlstm.optim._base import Optimizer

Array = NDArray[Any]
X = np.ones((4, 2, 3), np.float32)


@pytest.fixture
def lstm() -> fastlstm.LSTM:
    return fastlstm.LSTM(3, 5, seed=0)


@pytest.fixture
def elsewhere() -> Generator[Callable[..., Any], None, None]:
    """Runs a function in another thread, to its end."""
    with ThreadPoolExecutor(1) as threads:
        yield lambda f, *args: threads.submit(f, *args).result(timeout=60)


def with_flat(flat: Array) -> fastlstm.LSTM:
    layer = fastlstm.LSTM(3, 5)
    layer.parameters.flat = flat
    return layer


class Halfway(Optimizer):
    """An optimizer that lets something happen when half of the weights are updated."""

    def __init__(self, layer: fastlstm.LSTM, act: Callable[[], object]) -> None:
        super().__init__(layer.parameters, 1.0, 0.0, {}, [])
        self.act = act

    def _update(self, p: Array, g: Array, state: dict[str, Array], threads: int) -> None:
        half = p.size // 2
        p[:half] += 1
        self.act()
        p[half:] += 1


def gradients(layer: fastlstm.LSTM) -> Any:
    y, _, tape = layer.forward(X)
    return layer.backward(tape, y)[2]


def test_a_call_in_the_middle_of_an_update(
    lstm: fastlstm.LSTM, elsewhere: Callable[..., Any]
) -> None:
    before, seen = lstm(X)[0], []
    grads = gradients(lstm)
    Halfway(lstm, lambda: seen.append(elsewhere(lstm, X)[0])).step(grads)
    assert same_bits(seen[0], before)
    assert same_bits(lstm(X)[0], with_flat(lstm.parameters.flat)(X)[0])


def during_an_update(layer: fastlstm.LSTM, f: Callable[..., Any], *args: Any) -> Any:
    """What a function returns that another thread calls when half of the weights are updated."""
    with ThreadPoolExecutor(1) as threads:
        calls: list[Future[Any]] = []

        def call() -> None:
            calls.append(threads.submit(f, *args))
            wait(calls, timeout=0.2)  # it should wait for the update; if not, it has time to read

        grads = gradients(fastlstm.LSTM(3, 5))
        Halfway(layer, call).step(grads)
        return calls[0].result(timeout=60)


def test_a_call_that_has_to_pack_waits_for_an_update(lstm: fastlstm.LSTM) -> None:
    y = during_an_update(lstm, lstm, X)[0]
    assert same_bits(y, with_flat(lstm.parameters.flat)(X)[0])


@pytest.mark.parametrize("read", ["state_dict", "pickle", "save", "keras"])
def test_a_copy_in_the_middle_of_an_update(lstm: fastlstm.LSTM, read: str, tmp_path: Any) -> None:
    def copied() -> Array:
        if read == "keras":
            weights = fastlstm.keras.to_keras_weights(lstm)
            return fastlstm.keras.from_keras(weights).parameters.flat
        if read == "save":
            lstm.save(tmp_path / "layer.safetensors")
            return fastlstm.LSTM.load(tmp_path / "layer.safetensors").parameters.flat
        if read == "pickle":
            return pickle.loads(pickle.dumps(lstm)).parameters.flat
        return np.concatenate([array.reshape(-1) for array in lstm.state_dict().values()])

    copy = during_an_update(lstm, copied)
    assert same_bits(copy, copied())


def test_a_state_dict_is_loaded_as_one(
    lstm: fastlstm.LSTM, elsewhere: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call sees some names of the old weights and some of the new."""
    seen, split = [], lstm.parameters._split
    before, mapping = lstm(X)[0], {name: array + 1 for name, array in lstm.state_dict().items()}

    class Watched(dict[str, Array]):
        def __getitem__(self, name: str) -> Array:
            seen.append(elsewhere(lstm, X)[0])
            return super().__getitem__(name)

    monkeypatch.setattr(lstm.parameters, "_split", lambda flat: Watched(split(flat)))
    lstm.load_state_dict(mapping)
    assert seen
    assert all(same_bits(y, before) for y in seen)
    assert not same_bits(lstm(X)[0], before)


@pytest.mark.parametrize("checkpoint_every", [None, 128])
def test_gradients_are_those_of_the_weights_of_forward(checkpoint_every: int | None) -> None:
    lstm, same = fastlstm.LSTM(3, 5, seed=0), fastlstm.LSTM(3, 5, seed=0)
    x = np.random.default_rng(0).random((300, 2, 3), np.float32)
    y, _, tape = same.forward(x)
    expected = same.backward(tape, y)
    y, _, tape = lstm.forward(x, checkpoint_every=checkpoint_every)
    lstm.parameters._storage[...] *= 2  # as an edit after the check of the version
    dx, _, grads = lstm.backward(tape, y)
    assert dx is not None
    assert expected[0] is not None
    assert same_bits(dx, expected[0])
    assert same_bits(grads.flat, expected[2].flat)


def test_a_tape_is_still_refused_after_an_edit(lstm: fastlstm.LSTM) -> None:
    y, _, tape = lstm.forward(X)
    lstm.parameters.flat = lstm.parameters.flat * 2
    with pytest.raises(ValueError, match="present parameters"):
        lstm.backward(tape, y)


def edit_once(layer: fastlstm.LSTM, edit: Callable[[], object]) -> Callable[..., Any]:
    """`_packed_weights` of the layer, with an edit before the first caller has its result."""
    pack, edits = layer._packed_weights, [edit]

    def packed_weights(**options: Any) -> Any:
        packed = pack(**options)
        while edits:
            edits.pop()()
        return packed

    return packed_weights


def test_a_stream_made_during_an_edit(lstm: fastlstm.LSTM, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = lstm.parameters.flat * 2
    edit = edit_once(lstm, lambda: setattr(lstm.parameters, "flat", flat))
    monkeypatch.setattr(lstm, "_packed_weights", edit)
    stream = lstm.stream()
    assert same_bits(stream.step(X[0, 0]), with_flat(flat)(X[:1, 0])[0][0])


def test_a_thread_that_was_overtaken_brings_no_old_weights_to_a_pool(
    lstm: fastlstm.LSTM, elsewhere: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = StreamPool(lstm, 2)
    mine, other = pool.open(), pool.open()
    newer = lstm.parameters.flat * 3

    def overtake() -> None:
        lstm.parameters.flat = newer
        elsewhere(pool.step, X[0, :1], [other])

    monkeypatch.setattr(lstm, "_packed_weights", edit_once(lstm, overtake))
    lstm.parameters.flat = lstm.parameters.flat * 2
    y = pool.step(X[0, :1], [mine])
    assert same_bits(y, with_flat(newer)(X[:1, 0])[0])


def test_exchanged_parameters(lstm: fastlstm.LSTM) -> None:
    """Two fresh layers have written to their parameters equally often."""
    other = fastlstm.LSTM(3, 5, seed=1)
    expected, (stream, pool) = other(X[:, :1])[0], (lstm.stream(), StreamPool(lstm, 1))
    slot = pool.open()
    lstm(X)
    lstm.parameters = other.parameters
    assert same_bits(lstm(X[:, :1])[0], expected)
    assert same_bits(stream.step(X[0, 0]), expected[0, 0])
    assert same_bits(pool.step(X[0, :1], [slot]), expected[0])
    other.parameters.flat = other.parameters.flat * 2  # from now on they share them
    expected = with_flat(other.parameters.flat)(X[:, :1])[0]
    stream.reset()
    pool.reset(slot)
    assert same_bits(lstm(X[:, :1])[0], expected)
    assert same_bits(stream.step(X[0, 0]), expected[0, 0])
    assert same_bits(pool.step(X[0, :1], [slot]), expected[0])


def test_parameters_that_do_not_fit(lstm: fastlstm.LSTM) -> None:
    with pytest.raises(TypeError, match="parameters: expected Parameters, got dict"):
        lstm.parameters = {}
    with pytest.raises(ValueError, match="parameters: expected"):
        lstm.parameters = fastlstm.LSTM(3, 6).parameters
    with pytest.raises(ValueError, match="parameters: expected"):
        lstm.parameters = fastlstm.LSTM(3, 5, dtype="float64").parameters
    lstm(X)


class Pausing:
    """Three numbers that let something happen when a stream converts them."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __array__(self, *args: Any, **options: Any) -> Array:
        self.act()
        return np.ones(3, np.float32)


USES: list[Callable[[Any], object]] = [
    lambda stream: stream.step(X[0, 0]),
    lambda stream: stream.run(X[:, :1]),
    lambda stream: stream.state,
    lambda stream: setattr(stream, "state", None),
    lambda stream: stream.reset(),
    lambda stream: stream.copy(),
    lambda stream: pickle.dumps(stream),
]


@pytest.mark.parametrize("use", USES, ids=["step", "run", "get", "set", "reset", "copy", "pickle"])
def test_a_stream_is_of_one_thread_at_a_time(
    lstm: fastlstm.LSTM, elsewhere: Callable[..., Any], use: Callable[[Any], object]
) -> None:
    stream, expected = lstm.stream(), lstm.stream().step(X[0, 0])
    refused = []

    def intrude() -> None:
        try:
            elsewhere(use, stream)
        except RuntimeError as error:
            refused.append(str(error))

    assert same_bits(stream.step(Pausing(intrude)), expected)
    assert refused == ["stream: is in use by another thread; copy() makes one for each"]
    elsewhere(use, stream)  # afterwards it is free


def test_a_step_that_fails_frees_the_stream(lstm: fastlstm.LSTM) -> None:
    stream = lstm.stream()
    with pytest.raises(ValueError, match="x_t"):
        stream.step(X)
    with pytest.raises(ValueError, match="out"):
        stream.step(X[0, 0], out=np.empty(4, np.float32))
    assert same_bits(stream.step(X[0, 0]), lstm(X[:1, 0])[0][0])


def test_a_stream_checks_what_it_is_made_of(lstm: fastlstm.LSTM) -> None:
    Stream, c = type(lstm.stream()), np.zeros((1, 1, 5), np.float32)
    with pytest.raises(ValueError, match="h_0"):
        Stream(lstm, np.zeros((1, 1, 3), np.float32), c)
    with pytest.raises(TypeError, match="float64"):
        Stream(lstm, c, c.astype(float))
    with pytest.raises(ValueError, match="one direction"):
        Stream(fastlstm.LSTM(3, 5, bidirectional=True), c, c)
    with pytest.raises(ValueError, match="batch_size: too large"):
        lstm.stream(batch_size=2**62)
