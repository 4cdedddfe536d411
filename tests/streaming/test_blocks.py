"""Blocks of steps of a stream: as a loop of steps, for every length, and into given memory."""

from __future__ import annotations

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


def parts(state: Any) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


LAYERS: dict[str, Callable[[str], Any]] = {
    "LSTM": lambda dtype: fastlstm.LSTM(7, 20, 2, dtype=dtype, seed=1),
    "projected": lambda dtype: fastlstm.LSTM(7, 20, 3, proj_size=9, dtype=dtype, seed=1),
    "options": lambda dtype: fastlstm.LSTM(
        7, 20, layer_norm=True, zoneout=(0.1, 0.2), dtype=dtype, seed=1
    ),
    "GRU": lambda dtype: fastlstm.GRU(7, 20, 2, dtype=dtype, seed=1),
    "RNN": lambda dtype: fastlstm.RNN(1, 20, dtype=dtype, seed=1),
    "SLSTM": lambda dtype: fastlstm.SLSTM(7, 20, 2, dtype=dtype, seed=1),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_bits_are_those_of_one_call(
    rng: Generator, layer: Callable[[str], Any], batch: int, dtype: str
) -> None:
    """Of blocks of any lengths, with steps in between, in new memory and in given memory."""
    made = layer(dtype)
    x = rng.standard_normal((150, batch, made.input_size)).astype(dtype)
    expected, state_n = made(x)
    stream, out, at = made.stream(batch), np.empty_like(expected), 0
    while at < len(x):
        n = min(int(rng.choice([1, 1, 2, 5, 16, 40])), len(x) - at)
        if n == 1:
            stream.step(x[at], out=out[at])
        elif rng.random() < 0.5:
            out[at : at + n] = stream.run(x[at : at + n])
        else:
            block = out[at : at + n]
            assert stream.run(x[at : at + n], out=block) is block
        at += n
    assert same_bits(out, expected)
    assert all(map(same_bits, parts(stream.state), parts(state_n)))


def test_shapes_of_out(lstm: fastlstm.LSTM, x: Array) -> None:
    """With one row its axis may be there or not, as for a step."""
    y = lstm(x[:, :1])[0]
    for shape_x in [(T, I), (T, 1, I)]:
        for shape_y in [(T, H), (T, 1, H)]:
            out = np.full(shape_y, np.nan, "f4")
            assert lstm.stream().run(x[:, 0].reshape(shape_x), out) is out
            assert same_bits(out.reshape(y.shape), y)
    nothing = np.empty((0, B, H), "f4")
    stream = lstm.stream(B)
    assert stream.run(x[:0], nothing) is nothing
    assert not any(part.any() for part in stream.state)


def test_results_without_out_are_new(lstm: fastlstm.LSTM, x: Array) -> None:
    stream = lstm.stream(B)
    first = stream.run(x)
    kept = first.copy()
    stream.run(x)
    assert same_bits(first, kept)


def test_weights_of_now(lstm: fastlstm.LSTM, x: Array) -> None:
    stream, out = lstm.stream(B), np.empty((T, B, H), "f4")
    stream.run(x, out)
    state = stream.state
    lstm.parameters.flat = lstm.parameters.flat * 0.5
    assert same_bits(stream.run(x, out), lstm(x, state)[0])


def views(x: Array) -> dict[str, Any]:
    """Other layouts of the same block."""
    read_only = x.copy()
    read_only.flags.writeable = False
    return {
        "batch first": x.swapaxes(0, 1).copy().swapaxes(0, 1),
        "every other row": x.repeat(2, 1)[:, ::2],
        "backwards": x[::-1].copy()[::-1],
        "rows backwards": x[:, ::-1].copy()[:, ::-1],
        "features apart": x.repeat(2, 2)[..., ::2],
        "Fortran": np.asfortranarray(x),
        "read-only": read_only,
        "unaligned": np.frombuffer(b"?" + x.tobytes(), "f4", offset=1).reshape(x.shape),
        "memoryview": memoryview(x.copy()),
        "unmasked": np.ma.masked_array(x.copy()),
    }


def test_layouts_of_x(lstm: fastlstm.LSTM, x: Array) -> None:
    expected, out = lstm(x)[0], np.empty((T, B, H), "f4")
    for name, view in views(x).items():
        assert same_bits(lstm.stream(B).run(view, out), expected), name
    # And a contiguous one after them, of the same plan.
    stream = lstm.stream(B)
    for name, view in views(x).items():
        state = stream.state
        stream.run(view, out)
        stream.state = state
        assert same_bits(stream.run(x), out), name


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("begins", [(0, 0), (0, 1), (0, 150), (0, 12_000), (12_000, 0)], ids=str)
def test_out_may_overlap_x(rng: Generator, begins: tuple[int, int], turned: bool) -> None:
    """Blocks of more steps than are projected ahead."""
    lstm = fastlstm.LSTM(200, 200, seed=1)
    memory = rng.random(36_000, "f4")
    x, out = (memory[begin : begin + 24_000].reshape(120, 200) for begin in begins)
    if turned:
        x = x[::-1]
    expected = lstm.stream().run(x.copy())
    assert same_bits(lstm.stream().run(x, out=out), expected)


@pytest.mark.parametrize(
    "out",
    [
        np.ones((T, 3, 5), "f4"),
        np.ones((T - 1, 3, 4), "f4"),
        np.ones((3, 4), "f4"),
        np.ones((T, 12), "f4"),
        np.ones((T, 3, 4)),
        np.ones((T, 4, 3), "f4").swapaxes(1, 2),
        np.ones((T, 3, 8), "f4")[..., ::2],
        np.broadcast_to(np.float32(1), (T, 3, 4)),
        np.frombuffer(bytes(288), "f4").reshape(T, 3, 4),
        [[[1.0] * 4] * 3] * T,
    ],
)
def test_refused_out_changes_nothing(lstm: fastlstm.LSTM, x: Array, out: Any) -> None:
    stream = lstm.stream(B)
    expected = r"out: expected a writable C-contiguous float32 array \(6, 3, 4\)"
    with pytest.raises(ValueError, match=expected):
        stream.run(x, out=out)
    assert not any(part.any() for part in stream.state)
    assert same_bits(stream.run(x), lstm(x)[0])


def test_messages_for_one_row(lstm: fastlstm.LSTM) -> None:
    stream = lstm.stream()
    with pytest.raises(ValueError, match=r"^x: expected \(T, 5\) or \(T, 1, 5\), got \(6, 2, 5\)"):
        stream.run(np.ones((6, 2, I), "f4"))
    with pytest.raises(ValueError, match=r"^out: .* array \(6, 4\) or \(6, 1, 4\)$"):
        stream.run(np.ones((6, I), "f4"), np.empty((5, H), "f4"))


def test_masked_values_are_refused(lstm: fastlstm.LSTM, x: Array) -> None:
    stream, masked = lstm.stream(B), np.ma.masked_array(x.copy())
    masked[1, 0, 0] = np.ma.masked
    with pytest.raises(ValueError, match="x: expected an array without masked values"):
        stream.run(masked)
    with pytest.raises(ValueError, match="x_t: expected an array without masked values"):
        stream.step(masked[1])


@pytest.mark.parametrize("batch", [1, 16])
def test_numbers_of_threads(rng: Generator, batch: int) -> None:
    """Work for a team, which shares units or rows; their number may change between blocks."""
    before = fastlstm.get_num_threads()
    lstm = fastlstm.LSTM(64, 256, 2, seed=1)
    x = rng.standard_normal((30, batch, 64)).astype("f4")
    stream, out = lstm.stream(batch), np.empty((30, batch, 256), "f4")
    try:
        for number, at in enumerate(range(0, 30, 10)):
            fastlstm.set_num_threads((1, 2, 1)[number])
            stream.run(x[at : at + 9], out[at : at + 9])
            stream.step(x[at + 9], out[at + 9])
    finally:
        fastlstm.set_num_threads(before)
    assert same_bits(out, lstm(x)[0])
