"""The plan of a call, in words and as the call has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.processes import needs_openmp

import fastlstm
from fastlstm import GRU, LSTM, RNN
from fastlstm._core import library, sequence
from fastlstm._core.caches import Caches
from fastlstm._layers.plan_text import plan_text

K, M = 1 << 10, 1 << 20
CACHES = Caches(48 * K, 2 * M, 32 * M)

FORWARD = {
    "threads": 2, "wanted": 2, "workers": 2, "most": 9, "split_units": 0, "layers": 1,
    "directions": 1, "steps": 60, "batch": 32, "chunk": 60, "ahead": 0, "segment": 0, "blocks": 16,
    "tile": {"rows": 6, "units": 16}, "scratch": 0, "weights": 2 * M,
}  # fmt: skip

LINES = {
    "threads": "2 of 2 share the rows, 16 each",
    "time": "60 steps",
    "input": "multiplied with its weights in each step",
    "tiles": "6 x 16 (rows x units) at most, 16 blocks of units",
    "work space": "0 bytes",
    "weights": "2 MiB: beyond L1d (48 KiB), within L2 (2 MiB)",
}


def lines_of(text: str) -> dict[str, str]:
    return {line[2:13].strip(): line[14:] for line in text.splitlines()[1:]}


def test_forward() -> None:
    text = plan_text(FORWARD, CACHES)
    assert text.startswith("forward\n  threads     2 of 2 share the rows, 16 each\n  time ")
    assert lines_of(text) == LINES


@pytest.mark.parametrize(
    ("change", "line", "text"),
    [
        ({"workers": 1, "wanted": 1, "threads": 1}, "threads", "1 of 1"),
        ({"workers": 1, "wanted": 1}, "threads", "1 of 2; more would not pay"),
        ({"batch": 33}, "threads", "2 of 2 share the rows, up to 17 each"),
        ({"threads": 8}, "threads", "2 of 8 share the rows, 16 each; more would not pay"),
        (
            {"threads": 8, "wanted": 4, "most": 2},
            "threads",
            "2 of 8 share the rows, 16 each; teams of more have lost time lately",
        ),
        (
            {"workers": 1},
            "threads",
            "1 of 2; the system refused more",
        ),
        (
            {"split_units": 1},
            "threads",
            "2 of 2 share the hidden units and meet after each step",
        ),
        ({"steps": 1, "chunk": 1}, "time", "1 step"),
        ({"chunk": 5}, "time", "60 steps in chunks of 5, each through all layers"),
        ({"ahead": 24}, "input", "multiplied with its weights 24 steps ahead"),
        ({"blocks": 1}, "tiles", "6 x 16 (rows x units) at most, 1 block of units"),
        ({"scratch": 3 * M // 2}, "work space", "1.5 MiB"),
        ({"tape": 12345}, "tape", "12.06 KiB"),
        ({"weights": 48 * K}, "weights", "48 KiB: within L1d (48 KiB)"),
        ({"weights": 40 * M}, "weights", "40 MiB: beyond L3 (32 MiB)"),
        (
            {"weights": 80 * M, "layers": 5},
            "weights",
            "80 MiB, 16 MiB a layer: beyond L2 (2 MiB), within L3 (32 MiB)",
        ),
        (
            {"weights": 8 * M, "directions": 2, "split_units": 1},
            "weights",
            "8 MiB, 4 MiB a layer and direction, 2 MiB a thread: "
            "beyond L1d (48 KiB), within L2 (2 MiB)",
        ),
    ],
    ids=str,
)
def test_a_line(change: dict[str, Any], line: str, text: str) -> None:
    assert lines_of(plan_text({**FORWARD, **change}, CACHES))[line] == text


def test_weights_without_an_l3() -> None:
    text = plan_text(FORWARD | {"weights": 3 * M}, CACHES._replace(l3=0))
    assert lines_of(text)["weights"] == "3 MiB: beyond L2 (2 MiB)"


def test_backward() -> None:
    plan = {**FORWARD, "segment": 8, "scratch": M}
    assert plan_text(plan, CACHES) == (
        "backward\n"
        "  threads     2 of 2 share the rows, 16 each\n"
        "  time        60 steps in segments of 8, each added to the gradients of the weights\n"
        "  work space  1 MiB\n"
        "  weights     2 MiB: beyond L1d (48 KiB), within L2 (2 MiB)"
    )
    assert lines_of(plan_text({**plan, "segment": 60}, CACHES))["time"] == "60 steps"


# Of layers.


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads on two processors, and caches that are known."""
    threads, caches = fastlstm.get_num_threads(), library.planned_caches()
    monkeypatch.setattr(library, "PROCESSORS", 2)
    library.set_caches(CACHES)
    fastlstm.set_num_threads(2)
    yield
    fastlstm.set_num_threads(threads)
    library.set_caches(caches)


@needs_openmp
@pytest.mark.usefixtures("two_threads")
def test_rows_or_units() -> None:
    lstm = LSTM(256, 256)
    assert "\n  threads     2 of 2 share the rows, 16 each\n" in lstm.plan(60, 32)
    assert "\n  threads     2 of 2 share the hidden units and meet" in lstm.plan(60, 1)
    assert "\n  threads     1 of 2; more would not pay\n" in LSTM(2, 3).plan(2, 1)
    fastlstm.set_num_threads(1)
    assert "\n  threads     1 of 1\n" in lstm.plan(60, 32)


@pytest.mark.usefixtures("two_threads")
def test_the_caches_are_those_that_are_planned_for() -> None:
    gru = GRU(8, 8)
    assert "within L1d (48 KiB)" in gru.plan(1, 1)
    library.set_caches(Caches(100, K, 1 << 30))
    assert "beyond L2 (1 KiB), within L3 (1 GiB)" in gru.plan(1, 1)


LAYERS = {
    "LSTM": lambda: LSTM(5, 40, seed=0),
    "stack": lambda: LSTM(5, 40, 3, dropout=0.5, seed=0),
    "bidirectional": lambda: GRU(5, 40, 2, bidirectional=True, dtype="float64", seed=0),
    "RNN": lambda: RNN(5, 40, seed=0),
    "recurrent dropout": lambda: LSTM(5, 40, recurrent_dropout=0.25, seed=0),
    "options": lambda: LSTM(5, 40, proj_size=7, layer_norm=True, zoneout=(0.1, 0.2), seed=0),
}


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("T", "B"), [(1, 1), (300, 3), (7, 33)])
def test_it_is_the_plan_of_the_call(kind: str, T: int, B: int, isa: str) -> None:
    """Seen by the memory that the calls take."""
    layer: Any = LAYERS[kind]()
    assert layer.isa == isa
    rates = layer._dropout_rates()
    dropout = (0, *rates, 0, 0) if rates else None

    def fields(training: bool) -> list[dict[str, Any]]:
        double = layer.dtype == np.float64
        config, threads = layer._core_config(), fastlstm.get_num_threads()
        return sequence.plan(
            isa, config, double, T, B, dropout if training else None, training, threads
        )

    def taken() -> int:
        cache, layer._scratch = layer._scratch, library.BufferCache()
        return cache.take(0).nbytes

    x = np.ones((T, B, 5), layer.dtype)
    [inference] = fields(False)
    forward, backward = fields(True)
    layer(x)
    assert taken() == inference["scratch"]
    y, _, tape = layer.forward(x)
    assert (taken(), tape.nbytes) == (forward["scratch"], forward["tape"])
    layer.backward(tape, y)
    assert taken() == backward["scratch"]
    words = "\n".join(plan_text(plan, CACHES) for plan in (forward, backward))
    assert layer.plan(T, B, training=True).endswith(f", training\n{words}")
    assert layer.plan(T, B).endswith(f"\n{plan_text(inference, CACHES)}")


def test_nothing_is_computed() -> None:
    lstm = LSTM(5, 40, 2, dropout=0.5, seed=0)
    before = lstm._dropout_keys.bit_generator.state
    text = lstm.plan(np.int64(10**6), 10**3, training=True)
    title = f"{lstm!r} with {lstm.isa}, T = 1000000, B = 1000, training\nforward\n"
    assert text.startswith(title)
    assert text.count("\nbackward\n") == 1
    assert "backward" not in lstm.plan(3, 4)
    assert lstm._packed is None
    assert lstm._dropout_keys.bit_generator.state == before


@pytest.mark.parametrize(("T", "B"), [(0, 3), (3, 0), (0, 0)])
def test_an_empty_call(T: int, B: int) -> None:
    rnn = RNN(2, 3)
    text = f"RNN(2, 3) with {rnn.isa}, T = {T}, B = {B}\nnothing to compute"
    assert rnn.plan(T, B) == text


@pytest.mark.parametrize(
    ("T", "B", "kind", "message"),
    [
        (-1, 1, ValueError, "T: expected at least 0, got -1"),
        (1, -1, ValueError, "B: expected at least 0, got -1"),
        (1.0, 1, TypeError, "T: expected an integer, got float"),
        (1, "2", TypeError, "B: expected an integer, got str"),
        (True, 1, TypeError, "T: expected an integer, got bool"),
        (1 << 40, 1 << 40, ValueError, f"T, B: too large, {3 << 80} values cannot be held in mem"),
    ],
)
def test_errors(T: Any, B: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        RNN(2, 3).plan(T, B)
