"""Signals: a long call looks for them, and a handler may use what it interrupts."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
from support.compare import same_bits
from support.processes import needs_openmp, python

import fastlstm
from fastlstm.heads import CRF, ctc_decode, ctc_loss

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")

SIZES = {"few rows": 1, "many rows": 16}  # two workers share units, or rows
STEPS = 60_000


class Stop(Exception):
    """What a handler raises."""


class Alarm:
    """A signal that comes every 20 ms; counts the runs of its handler, and raises in the n-th."""

    def __init__(self) -> None:
        self.runs = 0
        self.last = sys.maxsize

    def handle(self, *_: object) -> None:
        self.runs += 1
        if self.runs == self.last:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Stop

    def runs_during(self, call: Callable[[], object], last: int = sys.maxsize) -> int:
        """How often the handler runs before a call returns or is ended; at the last run it is."""
        self.runs, self.last = 0, last
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        try:
            if last == sys.maxsize:
                call()
            else:
                with pytest.raises(Stop):
                    call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.runs


@pytest.fixture
def alarm() -> Generator[Alarm, None, None]:
    alarm = Alarm()
    before = signal.signal(signal.SIGALRM, alarm.handle)
    yield alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=[1, pytest.param(2, marks=needs_openmp)])
def threads(request: pytest.FixtureRequest) -> Generator[int, None, None]:
    before = fastlstm.get_num_threads()
    fastlstm.set_num_threads(request.param)
    yield request.param
    fastlstm.set_num_threads(before)


def long_call(rows: int) -> tuple[fastlstm.LSTM, Any]:
    """A layer, and input for a second or more; the rows are one row in memory."""
    steps = STEPS * 2 // (1 + rows)
    x = np.random.default_rng(0).random((steps, 1, 8), np.float32)
    return fastlstm.LSTM(8, 256, seed=0), np.broadcast_to(x, (steps, rows, 8))


@pytest.mark.parametrize("rows", SIZES.values(), ids=SIZES.keys())
def test_handlers_run_during_a_call(alarm: Alarm, threads: int, rows: int) -> None:
    """Many in one call: without looking, signals add up to one run, after its end."""
    lstm, x = long_call(rows)
    y: list[Any] = []
    assert alarm.runs_during(lambda: y.append(lstm(x)[0])) >= 3
    half = len(x) // 2
    first, state = lstm(x[:half])
    assert same_bits(y[0], np.concatenate([first, lstm(x[half:], state)[0]]))


@pytest.mark.parametrize(
    ("options", "rows"),
    [({}, 1), ({}, 16), ({"bidirectional": True}, 1), ({"num_layers": 3}, 1)],
)
def test_a_call_can_be_ended(alarm: Alarm, threads: int, options: Any, rows: int) -> None:
    _, x = long_call(rows)
    lstm = fastlstm.LSTM(8, 256, seed=0, **options)
    assert alarm.runs_during(lambda: lstm(x), last=2) == 2
    y = lstm(x[:10])[0]  # the layer is as before
    assert same_bits(y, fastlstm.LSTM(8, 256, seed=0, **options)(x[:10])[0])


def test_a_stream_stays_where_it_was(alarm: Alarm, threads: int) -> None:
    lstm, x = long_call(1)
    stream, same = lstm.stream(), lstm.stream()
    stream.run(x[:5])
    same.run(x[:5])
    assert alarm.runs_during(lambda: stream.run(x), last=2) == 2
    assert same_bits(stream.step(x[0]), same.step(x[0]))
    assert same_bits(stream.run(x[:5]), same.run(x[:5]))


@pytest.mark.parametrize("rows", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("checkpoint_every", [None, 1024])
def test_backward_can_be_ended(
    alarm: Alarm, threads: int, rows: int, checkpoint_every: int | None
) -> None:
    lstm, x = long_call(rows)
    x = x[: len(x) // 3]
    y, _, tape = lstm.forward(x, checkpoint_every=checkpoint_every)
    assert alarm.runs_during(lambda: lstm.backward(tape, y), last=2) == 2
    dx, _, grads = lstm.backward(tape, y)  # the tape is as before
    same = fastlstm.LSTM(8, 256, seed=0)
    expected = same.backward(same.forward(x)[2], y)
    assert dx is not None
    assert expected[0] is not None
    assert same_bits(dx, expected[0])
    assert same_bits(grads.flat, expected[2].flat)


def of_heads(name: str) -> Callable[..., Any]:
    """A call of half a second or more, or with a number of steps, over so many."""
    crf, rng = CRF(1000, seed=0), np.random.default_rng(0)
    emissions, logits = rng.random((1000, 12, 1000), np.float32), rng.random((4000, 16, 50))
    tags, targets = rng.integers(0, 1000, (1000, 12)), rng.integers(1, 50, (16, 500))
    return {
        "loss": lambda n=1000: crf.loss(emissions[:n], tags[:n])[1],
        "marginals": lambda n=1000: crf.marginals(emissions[:n]),
        "decode": lambda n=1000: np.stack(crf.decode(np.repeat(emissions[:n], 8, axis=1))),
        "ctc_loss": lambda n=4000: ctc_loss(logits[:n], targets[:, : n // 8])[1],
        "ctc_decode": lambda n=4000: ctc_decode(logits[:n, 0], beam=500),
    }[name]


@pytest.mark.parametrize("name", ["loss", "marginals", "decode", "ctc_loss", "ctc_decode"])
def test_heads_can_be_ended(alarm: Alarm, threads: int, name: str) -> None:
    call = of_heads(name)
    expected = call(20)
    assert alarm.runs_during(call, last=1) == 1
    assert same_bits(call(20), expected)


def test_other_threads_do_not_handle_signals(alarm: Alarm) -> None:
    lstm, x = long_call(1)
    y: list[Any] = []
    thread = threading.Thread(target=lambda: y.append(lstm(x)[0]))
    thread.start()
    alarm.runs_during(thread.join)
    assert same_bits(y[0][-1], lstm(x)[0][-1])


def test_a_handler_uses_the_layer_that_it_interrupts(threads: int) -> None:
    lstm, x = long_call(1)
    seen: list[Any] = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(lstm(x[:20])[0]))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        y = lstm(x)[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) >= 3
    assert all(same_bits(part, y[:20]) for part in seen)


def test_a_handler_that_moves_the_tape_it_interrupts() -> None:
    """It would leave the call gradients of other steps: the call raises."""
    lstm, x = long_call(1)
    y, _, tape = lstm.forward(x[:20_000], checkpoint_every=8192)
    inside: list[int] = []

    def handle(*_: object) -> None:
        if not inside:
            inside.append(1)
            lstm.backward(tape, y)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(RuntimeError, match="tape: a signal handler"):
            lstm.backward(tape, y)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert same_bits(lstm.backward(tape, y)[2].flat, lstm.backward(tape, y)[2].flat)


HANDLER_IN_AN_UPDATE = """
import signal
import numpy as np
import fastlstm
lstm, seen = fastlstm.LSTM(3, 5, seed=0), []
x = np.ones((1, 3), "f4")
signal.signal(signal.SIGUSR1, lambda *_: seen.append(lstm(x)[0]))
before = lstm(x)[0]
with lstm.parameters.update() as flat:
    signal.raise_signal(signal.SIGUSR1)
    flat *= 2
print((seen[0] == before).all(), (lstm(x)[0] == before).all())
"""


def test_a_handler_in_the_middle_of_an_update() -> None:
    """It must not wait for a lock that the thread it interrupts holds."""
    assert python(HANDLER_IN_AN_UPDATE) == "True False"
