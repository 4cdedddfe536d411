"""The numerics contract, bit for bit: a row's results depend on that row and on nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, Arrays, check_bits, random_call, results, same_bits
from support.teams import LAYERS, TEAMS

import fastlstm

every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
every_team = pytest.mark.parametrize("team", TEAMS.values(), ids=TEAMS)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """`set_num_threads` for one test, as if this machine had a processor for each."""
    before = fastlstm.get_num_threads()
    monkeypatch.setattr(fastlstm._core.library, "PROCESSORS", 4)
    yield fastlstm.set_num_threads
    fastlstm.set_num_threads(before)


def of_rows(named: Arrays, rows: Any) -> Arrays:
    """These rows of all that has rows: axis 1 of sequences and of states."""
    return {name: array[:, rows] for name, array in named.items() if not name.startswith("d ")}


@every_dtype
@every_layer
def test_rows_alone_together_and_permuted(
    rng: Generator, isa: str, layer: dict[str, Any], dtype: str
) -> None:
    lstm, B = fastlstm.LSTM(**layer, dtype=dtype, seed=1), 13
    v = random_call(rng, lstm, 6, B)
    together = results(lstm, v)
    alone = [slice(b, b + 1) for b in range(B)]
    for rows in [*alone, slice(3, 10), slice(None, None, -2), rng.permutation(B)]:
        check_bits(of_rows(results(lstm, of_rows(v, rows)), ...), of_rows(together, rows))


@every_dtype
@every_team
def test_threads(
    rng: Generator, isa: str, team: tuple[Any, int, int], dtype: str, threads: Callable[[int], None]
) -> None:
    """All of forward and backward, weight gradients and dropout masks too, and inference."""
    options, T, B = team
    lstm = fastlstm.LSTM(**options, dtype=dtype, seed=1)
    v = random_call(rng, lstm, T, B)
    threads(1)
    expected, inferred = results(copy.deepcopy(lstm), v), lstm(v["x"])[0]
    for n in (2, 3, 4):
        threads(n)
        check_bits(results(copy.deepcopy(lstm), v), expected)
        assert same_bits(lstm(v["x"])[0], inferred)


@every_dtype
@pytest.mark.parametrize("layers", [1, 3])
def test_chunks_of_time(rng: Generator, isa: str, layers: int, dtype: str) -> None:
    """The state passed on from chunk to chunk, in training and in inference."""
    lstm, T = fastlstm.LSTM(20, 50, layers, dtype=dtype, seed=1), 60
    v = random_call(rng, lstm, T, 5)
    start = (v["h_0"], v["c_0"])
    y, state_n, _ = lstm.forward(v["x"], start)
    for count in (1, 4, 20):
        edges = np.sort(rng.integers(0, T, count))  # chunks may be empty
        for call in (lstm, lambda *args: lstm.forward(*args)[:2]):
            state, parts = start, []
            for chunk in np.split(v["x"], edges):
                part, state = call(chunk, state)
                parts.append(part)
            assert same_bits(np.concatenate(parts), y)
            assert all(map(same_bits, state, state_n))


@every_dtype
@every_layer
def test_instruction_sets(
    rng: Generator, layer: dict[str, Any], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that fuse multiply and add; the baseline does not."""
    isas = [isa for isa in fastlstm.isas() if isa != "baseline"]
    if len(isas) < 2:
        pytest.skip(f"one instruction set to compare: {isas}")
    found = []
    for isa in isas:
        monkeypatch.setenv("FASTLSTM_ISA", isa)
        lstm = fastlstm.LSTM(**layer, dtype=dtype, seed=1)
        assert lstm.isa == isa
        found.append(results(lstm, random_call(np.random.default_rng(1), lstm, 60, 7)))
    check_bits(found[0], found[1])


@every_dtype
@pytest.mark.parametrize("batch", [1, 7])
def test_streams(rng: Generator, isa: str, batch: int, dtype: str) -> None:
    """Steps, chunks of any sizes, both mixed, and the whole sequence at once."""
    lstm, T = fastlstm.LSTM(20, 50, 2, dtype=dtype, seed=1), 40
    v = random_call(rng, lstm, T, batch)
    start = (v["h_0"], v["c_0"])
    y, state_n = lstm(v["x"], start)

    def mixed(stream: Any) -> Array:
        parts, t = [], 0
        while t < T:
            n = int(rng.integers(1, 9))
            parts.append(stream.step(v["x"][t])[None] if n == 1 else stream.run(v["x"][t : t + n]))
            t += n
        return np.concatenate(parts)

    ways: list[Callable[[Any], Array]] = [
        lambda stream: stream.run(v["x"]),
        lambda stream: np.stack([stream.step(x_t) for x_t in v["x"]]),
        mixed,
    ]
    for way in ways:
        stream = lstm.stream(batch, start)
        assert same_bits(way(stream), y)
        assert all(map(same_bits, stream.state, state_n))


@every_dtype
@every_layer
def test_batch_first_and_unbatched(rng: Generator, layer: dict[str, Any], dtype: str) -> None:
    """Only axes move."""
    lstm = fastlstm.LSTM(**layer, dtype=dtype, seed=1)
    turned = fastlstm.LSTM(**layer, dtype=dtype, seed=1, batch_first=True)
    v = random_call(rng, lstm, 6, 5)
    expected = results(lstm, v)
    swapped = {"x", "y", "dx", "dy"}

    def swap(named: Arrays) -> Arrays:
        return {n: a.swapaxes(0, 1) if n in swapped else a for n, a in named.items()}

    check_bits(swap(results(turned, swap(v))), expected)
    for model in (lstm, turned):
        got = results(model, {name: array[:, 0] for name, array in v.items()})
        one = results(lstm, of_rows(v, slice(0, 1)))
        one |= {name: array[:, 0] for name, array in of_rows(one, ...).items()}
        check_bits(got, one)


def read_only(a: Array) -> Array:
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "fortran": np.asfortranarray,
    "rows-first": lambda a: a.swapaxes(0, 1).copy().swapaxes(0, 1),
    "padded": lambda a: np.pad(a, 3)[3:-3, 3:-3, 3:-3],
    "every-other": lambda a: a.repeat(2, 0).repeat(2, 1)[::2, ::2],
    "every-other-feature": lambda a: a.repeat(2, 2)[:, :, ::2],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "backwards-features": lambda a: a[:, :, ::-1].copy()[:, :, ::-1],
    "read-only": read_only,
    "unaligned": lambda a: np.frombuffer(b"?" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
}


@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_in_memory(rng: Generator, layout: Callable[[Array], Array], dtype: str) -> None:
    lstm = fastlstm.LSTM(**LAYERS["both-ways"], dtype=dtype, seed=1)
    v = random_call(rng, lstm, 6, 5)
    laid_out = {name: layout(array) for name, array in v.items()}
    check_bits(laid_out, v)
    check_bits(results(lstm, laid_out), results(lstm, v))
    check_bits(laid_out, v)  # nothing was written to


@every_dtype
@every_layer
def test_inference_and_training(
    rng: Generator, isa: str, layer: dict[str, Any], dtype: str
) -> None:
    """Calling the layer and `forward`; sizes that make both work in pieces."""
    lstm = fastlstm.LSTM(**layer, dtype=dtype, seed=1)
    for T, B in [(60, 1), (40, 30)]:
        v = random_call(rng, lstm, T, B)
        y, state = lstm(v["x"], (v["h_0"], v["c_0"]))
        y_training, state_training, _ = lstm.forward(v["x"], (v["h_0"], v["c_0"]))
        assert same_bits(y, y_training)
        assert all(map(same_bits, state, state_training))


@every_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "h_0", "c_0", "dy", "dh_n", "dc_n"])
def test_nan_stays_in_its_row(
    rng: Generator, isa: str, where: str, value: float, dtype: str
) -> None:
    lstm, B, bad = fastlstm.LSTM(**LAYERS["both-ways"], dtype=dtype, seed=1), 8, 4
    v = random_call(rng, lstm, 5, B)
    others = [b for b in range(B) if b != bad]
    expected = of_rows(results(lstm, v), others)
    v[where][:, bad] = value
    got = results(lstm, v)
    check_bits(of_rows(got, others), expected)
    if np.isnan(value):
        assert np.isnan(got["dx"][:, bad]).all()
        assert np.isnan(got["y"][:, bad]).any() == (where in ("x", "h_0", "c_0"))


@every_dtype
@every_layer
def test_earlier_calls_leave_nothing_behind(
    rng: Generator, isa: str, layer: dict[str, Any], dtype: str
) -> None:
    """Work space and tapes are used again: here after a larger call that was all NaN."""
    lstm = fastlstm.LSTM(**layer, dtype=dtype, seed=1)
    v = random_call(rng, lstm, 5, 3)
    expected = results(lstm, v)
    large = random_call(rng, lstm, 9, 8)
    results(lstm, {name: np.full_like(array, np.nan) for name, array in large.items()})
    check_bits(results(lstm, v), expected)
