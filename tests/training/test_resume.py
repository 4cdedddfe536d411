"""Training that is stopped and goes on: the bits of the run that was never stopped."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.language_models import TEXT, small_model, weights_of
from support.signals import default_signals, defaults, needs_posix_signals

import fastlstm
from fastlstm._io import tensor_file
from fastlstm.models import History, LanguageModel, Record, _training
from fastlstm.training import _loop

RUN: dict[str, Any] = {"batch_size": 4, "chunk": 16, "lr": 0.03, "evaluations": 4, "reset_every": 3}
STEPS: dict[str, Any] = {**RUN, "steps": 20}


def model(seed: int = 1) -> LanguageModel:
    return small_model(seed, num_layers=2, dropout=0.3)


def told(history: History) -> list[Record]:
    """The records, but for what a clock decides."""
    return [record._replace(seconds=0) for record in history.records]


class Killed(Exception):
    """What a process does not live to see."""


def killed_after(step: int, path: Path, **options: Any) -> None:
    """A run that ends after a step, as far as the file can tell."""

    def kill(record: Record) -> None:
        if record.step == step:
            raise Killed

    with pytest.raises(Killed):
        model().fit(TEXT, checkpoint=path, progress=kill, **options)


def assert_same_run(one: LanguageModel, other: LanguageModel) -> None:
    assert np.array_equal(weights_of(one), weights_of(other))
    states = [m.lstm._dropout_keys.bit_generator.state for m in (one, other)]
    assert states[0] == states[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.ckpt"


@pytest.fixture
def default_handlers() -> Iterator[None]:
    with defaults():
        yield


@pytest.mark.parametrize("length", [{"steps": 20}, {"epochs": 0.49}], ids=["steps", "epochs"])
@pytest.mark.parametrize("step", [1, 4, 5, 6, 19])
def test_a_resumed_run_has_the_bits_of_one_never_stopped(
    path: Path, length: dict[str, Any], step: int
) -> None:
    """Stopped before, at and after an evaluation."""
    whole, resumed, finished = model(), model(seed=7), model(seed=8)
    history = whole.fit(TEXT, **RUN, **length)
    killed_after(step, path, checkpoint_every=1, **RUN, **length)
    seen: list[int] = []
    again = resumed.fit(TEXT, checkpoint=path, resume=True,
                        progress=lambda now: seen.append(now.step), **RUN, **length)  # fmt: skip
    assert told(again) == told(history)
    assert seen == list(range(step + 1, 21))
    assert_same_run(resumed, whole)
    assert finished.fit(TEXT, checkpoint=path, resume="auto", **RUN, **length) == again
    assert_same_run(finished, whole)


def test_losses_and_time_since_the_start_are_kept(path: Path) -> None:
    killed_after(7, path, checkpoint_every=7, **STEPS)
    records: list[Record] = []
    model().fit(TEXT, checkpoint=path, resume=True, progress=records.append, **STEPS)
    expected: list[Record] = []
    model().fit(TEXT, progress=expected.append, **STEPS)
    assert [r._replace(seconds=0) for r in records] == [r._replace(seconds=0) for r in expected[7:]]


class Clock:
    """Half a second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        self.now += 0.5
        return self.now


def test_time_already_spent_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop, "time", Clock())
    options: dict[str, Any] = {**RUN, "seconds": 20, "checkpoint_every": 2}
    killed_after(6, path, **options)
    monkeypatch.setattr(_loop, "time", Clock())  # another process, another start
    rates: list[float] = []

    class Adam(_training.Adam):
        def step(self, grads: Any) -> None:
            rates.append(self.lr)
            super().step(grads)

    monkeypatch.setattr(_training, "Adam", Adam)
    records: list[Record] = []
    history = model().fit(TEXT, checkpoint=path, resume=True, progress=records.append, **options)
    assert records[0].step == 7
    assert 4 < records[0].seconds < 7
    assert rates[0] == pytest.approx(0.03 * (1 - 5 / 20), rel=0.1)
    assert history.records[-1].seconds == pytest.approx(20, abs=1)
    assert len(history.records) == 4


def test_without_resume_a_run_begins(path: Path) -> None:
    killed_after(7, path, checkpoint_every=7, **STEPS)
    whole, begun = model(), model()
    whole.fit(TEXT, **STEPS)
    steps: list[int] = []
    begun.fit(TEXT, checkpoint=path, progress=lambda r: steps.append(r.step), **STEPS)
    assert steps[0] == 1
    assert_same_run(begun, whole)


def test_auto_begins_where_there_is_no_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run\.ckpt"):
        model().fit(TEXT, checkpoint=path, resume=True, **STEPS)
    assert model().fit(TEXT, checkpoint=path, resume="auto", **STEPS).records[-1].step == 20
    assert path.exists()


def test_checkpoints_are_written_as_often_as_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = _loop.Checkpoints.write

    def watched(self: Any, moment: Any) -> None:
        written.append(moment.step)
        write(self, moment)

    monkeypatch.setattr(_loop.Checkpoints, "write", watched)
    model().fit(TEXT, checkpoint=path, checkpoint_every=6, **STEPS)
    assert written == [1, 6, 12, 18, 20]
    written.clear()
    model().fit(TEXT, checkpoint=path, **STEPS)
    assert written == [1, 20]
    written.clear()
    small_model().fit(TEXT, checkpoint=path, steps=1001, batch_size=1, chunk=1)
    assert written == [1, 1000, 1001]


@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("step", [3, 10])
def test_ctrl_c_saves_and_returns(path: Path, step: int) -> None:
    """In the middle between evaluations, and at one."""
    whole, stopped, resumed = model(), model(), model(seed=5)
    history = whole.fit(TEXT, **STEPS)

    def press(record: Record) -> None:
        if record.step == step - 1:
            signal.raise_signal(signal.SIGINT)

    short = stopped.fit(TEXT, checkpoint=path, progress=press, **STEPS)
    assert (short.stopped, short.records[-1].step) == (True, step)
    assert not math.isnan(short.records[-1].held_out_bits)
    assert len(short.records) == step // 5 + (step % 5 > 0)
    again = resumed.fit(TEXT, checkpoint=path, resume=True, **STEPS)
    assert (again.stopped, told(again)) == (False, told(history))
    assert_same_run(resumed, whole)


@pytest.mark.usefixtures("default_handlers")
def test_a_second_ctrl_c_does_not_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for the file, which then is the one before."""
    killed_after(7, path, checkpoint_every=7, **STEPS)
    before, sync = path.read_bytes(), os.fsync

    def press(file: int) -> None:
        sync(file)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "fsync", press)
    with pytest.raises(KeyboardInterrupt):
        model().fit(TEXT, checkpoint=path, checkpoint_every=9, resume=True, **STEPS)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@needs_posix_signals
@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("step", [1, 5, 12, 20])
def test_a_signal_that_ends_the_process_saves_first(path: Path, name: str, step: int) -> None:
    whole, resumed, number = model(), model(seed=5), getattr(signal, name)
    history = whole.fit(TEXT, **STEPS)

    calls = itertools.count(1)

    def gradients(*arguments: Any) -> Any:
        if next(calls) == step:
            signal.raise_signal(number)
        return of_model(*arguments)

    of_model = LanguageModel.gradients
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModel, "gradients", gradients)
        with pytest.raises(SystemExit) as stop:
            model().fit(TEXT, checkpoint=path, **STEPS)
    assert stop.value.code == 128 + number
    assert signal.getsignal(number) is signal.SIG_DFL
    steps: list[int] = []
    again = resumed.fit(TEXT, checkpoint=path, resume=True,
                        progress=lambda record: steps.append(record.step), **STEPS)  # fmt: skip
    assert steps == list(range(step + 1, 21))
    assert told(again) == told(history)
    assert_same_run(resumed, whole)


@needs_posix_signals
@pytest.mark.usefixtures("default_handlers")
def test_a_signal_during_the_last_checkpoint_ends_the_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, itertools.count()

    def send(file: int) -> None:
        if next(calls) > 1:  # the file and its folder, after the first step
            signal.raise_signal(signal.SIGTERM)
        sync(file)

    monkeypatch.setattr(os, "fsync", send)
    with pytest.raises(SystemExit) as stop:
        model().fit(TEXT, checkpoint=path, **STEPS)
    assert stop.value.code == 128 + signal.SIGTERM
    assert model().fit(TEXT, checkpoint=path, resume=True, **STEPS).records[-1].step == 20


@needs_posix_signals
@pytest.mark.usefixtures("default_handlers")
def test_signals_are_left_alone_without_a_checkpoint_or_default(path: Path) -> None:
    def handlers(**options: Any) -> list[Any]:
        seen: list[Any] = []
        model().fit(TEXT, **RUN, steps=1, **options, progress=lambda _: seen.extend(
            signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)))  # fmt: skip
        return seen

    assert handlers() == [signal.SIG_DFL, signal.SIG_DFL]

    def own(*_: Any) -> None: ...

    signal.signal(signal.SIGTERM, own)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert handlers(checkpoint=path) == [own, signal.SIG_IGN]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert handlers(checkpoint=path)[0] not in (own, signal.SIG_DFL)


@needs_posix_signals
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # from Python 3.12 on
@pytest.mark.usefixtures("default_handlers")
def test_a_forked_child_dies_of_a_signal(path: Path) -> None:
    """It has the handler of the process that trains, and no loop that would look at a flag."""
    ended: list[int] = []

    def fork(_: Record) -> None:
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    model().fit(TEXT, checkpoint=path, progress=fork, **RUN, steps=1)
    assert ended == [-signal.SIGTERM]


TRAIN = """
import sys
from support.language_models import TEXT, small_model
model = small_model(int(sys.argv[2]), num_layers=2, dropout=0.3)
model.fit(TEXT, steps=int(sys.argv[3]), batch_size=4, chunk=16, lr=0.03, evaluations=4,
          reset_every=3, checkpoint=sys.argv[1], checkpoint_every=1, resume="auto")
"""


@needs_posix_signals
def test_a_killed_process_leaves_a_checkpoint_that_loads(
    path: Path, rng: np.random.Generator, pytestconfig: pytest.Config
) -> None:
    """Killed again and again while it writes; the end is that of a run never stopped."""
    kills, step = pytestconfig.getoption("--kills"), 0
    options: dict[str, Any] = {**RUN, "steps": 100 * kills}
    for kill in range(kills):
        number = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1][kill % 4]
        command = [sys.executable, "-c", TRAIN, path, 1 if kill == 0 else 100 + kill]
        before = path.stat().st_mtime_ns if kill else None
        with subprocess.Popen(
            [*map(str, command), str(options["steps"])], preexec_fn=default_signals
        ) as process:
            while process.poll() is None and (
                not path.exists() or path.stat().st_mtime_ns == before
            ):
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(number)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert process.returncode == expected
        now = tensor_file.read(path, "checkpoint")[1]["step"]
        assert step < now < options["steps"]
        step = now
    whole, resumed = model(), model(seed=7)
    history = whole.fit(TEXT, **options)
    assert told(resumed.fit(TEXT, checkpoint=path, resume=True, **options)) == told(history)
    assert_same_run(resumed, whole)
    assert os.listdir(path.parent) == [path.name]


def test_a_run_that_was_killed_early_is_not_the_one_before(path: Path) -> None:
    """Whose file was there: after the first step it is this run's."""
    model(1).fit(TEXT, checkpoint=path, **STEPS)
    never = model(2)
    never.fit(TEXT, **STEPS)

    def kill(record: Record) -> None:
        if record.step == 3:
            raise Killed

    with pytest.raises(Killed):
        model(2).fit(TEXT, checkpoint=path, progress=kill, **STEPS)
    again = model(2)
    again.fit(TEXT, checkpoint=path, resume="auto", **STEPS)
    assert_same_run(again, never)


def test_a_run_goes_on_where_its_bits_can(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_after(3, path, **STEPS)
    monkeypatch.setenv("FASTLSTM_ISA", "baseline")
    if fastlstm.isas()[0] == "baseline":
        pytest.skip("this CPU has no other")
    with pytest.raises(
        ValueError, match=r"instruction set: expected fused .* as in .*, got baseline"
    ):
        model().fit(TEXT, checkpoint=path, resume=True, **STEPS)


def test_another_dropout_is_another_run(path: Path) -> None:
    killed_after(3, path, **STEPS)
    other = model()
    other.lstm.dropout = 0.1
    with pytest.raises(ValueError, match=r"dropout: expected 0\.3 as in .*, got 0\.1"):
        other.fit(TEXT, checkpoint=path, resume=True, **STEPS)
