"""Training in several processes, which are threads here: the bits of one, and the errors of all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.groups import ThreadGroup, in_threads, outcomes
from support.language_models import TEXT, small_model, weights_of

from fastlstm import distributed, optim
from fastlstm.models import History, LanguageModel, Record, _training
from fastlstm.training import _loop

RUN: dict[str, Any] = {"steps": 12, "batch_size": 6, "chunk": 16, "lr": 0.03, "evaluations": 3}


def model(seed: int = 1) -> LanguageModel:
    return small_model(seed, num_layers=2, dropout=0.3)


def fitted(group: distributed.Group | None, **options: Any) -> tuple[np.ndarray, History]:
    """A model of this process, its weights and its history; other processes begin with others."""
    own = model(1 + group.rank if group else 1)
    history = own.fit(TEXT, group=group, **{**RUN, "shards": 8, **options})
    return weights_of(own), history


def told(history: History) -> list[Record]:
    return [record._replace(seconds=0) for record in history.records]


@pytest.mark.parametrize("shards", [1, 4, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_the_bits_of_one_process(size: int, shards: int) -> None:
    """Six rows: shards of none, one and more, and processes without shards."""
    weights, history = fitted(None, shards=shards)
    ends = in_threads(size, lambda group: fitted(group, shards=shards))
    for own, own_history in ends:
        assert np.array_equal(own, weights)
        assert told(own_history) == told(history)
        assert own_history == ends[0][1]


def test_shards_change_roundings_only() -> None:
    weights, history = fitted(None, shards=None)
    for shards in (1, 2, 8):
        other, other_history = fitted(None, shards=shards)
        assert np.array_equal(other, weights) == (shards == 1)
        np.testing.assert_allclose(other, weights, atol=1e-3)
        for one, two in zip(history.records, other_history.records, strict=True):
            assert (one.loss, one.held_out_bits) == pytest.approx(two[-2:], abs=1e-3)


class Stop(Exception):
    """What ends a run."""


def stop_after(step: int) -> Callable[[Record], None]:
    def stop(record: Record) -> None:
        if record.step == step:
            raise Stop

    return stop


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (8, 1), (2, 5)])
def test_any_number_of_processes_goes_on(tmp_path: Path, before: int, after: int) -> None:
    weights, history = fitted(None)
    path = tmp_path / "run.ckpt"
    saved = {"checkpoint": path, "checkpoint_every": 1, "resume": "auto"}
    ends = outcomes(before, lambda group: fitted(group, progress=stop_after(7), **saved))
    assert isinstance(ends[0], Stop)
    assert [str(end) for end in ends[1:]] == ["rank 0: Stop: "] * (before - 1)
    steps: list[int] = []
    saved["progress"] = lambda record: steps.append(record.step)
    for own, own_history in in_threads(after, lambda group: fitted(group, **saved)):
        assert np.array_equal(own, weights)
        assert told(own_history) == told(history)
    assert steps == list(range(8, 13))  # once each: of process 0
    files = [path.read_bytes()]
    for own, _ in in_threads(2, lambda group: fitted(group, **saved)):  # it had come to its end
        assert np.array_equal(own, weights)
    assert [path.read_bytes()] == files
    assert os.listdir(tmp_path) == [path.name]


def test_process_0_has_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks of different speeds, learning rates that are the same."""
    speed = threading.local()

    class Clocks:
        def perf_counter(self) -> float:
            speed.now = getattr(speed, "now", 0.0) + speed.tick
            return float(speed.now)

    rates: list[list[float]] = [[], [], []]

    class Adam(_training.Adam):
        def step(self, grads: Any) -> None:
            rates[speed.rank].append(self.lr)
            super().step(grads)

    monkeypatch.setattr(_loop, "time", Clocks())
    monkeypatch.setattr(_training, "Adam", Adam)

    def work(group: ThreadGroup) -> History:
        speed.rank, speed.tick = group.rank, 1.0 + group.rank
        return fitted(group, steps=None, seconds=10)[1]

    histories = in_threads(3, work)
    assert rates[0] == pytest.approx([0.03 * (1 - i / 10) for i in range(10)])
    assert rates[0] == rates[1] == rates[2]
    assert histories[0] == histories[1] == histories[2]


def everywhere(size: int, **options: Any) -> list[str]:
    """The errors of all processes."""
    ends = outcomes(size, lambda group: fitted(group, **options))
    assert all(isinstance(end, Exception) for end in ends), ends
    return [f"{type(end).__name__}: {end}" for end in ends]


def test_an_error_in_one_process_is_one_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = LanguageModel.shard_gradients

    def fail(self: LanguageModel, inputs: Any, targets: Any, state: Any, shards: Any) -> Any:
        if state is not None and shards.first > 0 and shards.end < 8:
            raise MemoryError("no more")
        return gradients(self, inputs, targets, state, shards)

    monkeypatch.setattr(LanguageModel, "shard_gradients", fail)
    told = "RuntimeError: rank 1: MemoryError: no more"
    assert everywhere(3) == [told, "MemoryError: no more", told]


def test_an_error_of_process_0_is_one_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it measures, or writes or reads a checkpoint."""
    path = tmp_path / "run.ckpt"

    def fail(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "_mean_bits", fail)
        errors = everywhere(2)
    assert errors[1] == f"RuntimeError: rank 0: {errors[0]}"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        errors = everywhere(2, checkpoint=path)
    assert errors[0] == f"OSError: {path}: No space left on device"
    assert errors[1] == f"RuntimeError: rank 0: {errors[0]}"
    path.write_bytes(b"damaged")
    errors = everywhere(3, checkpoint=path, resume=True)
    assert errors[0].startswith(f"ValueError: {path}: not a safetensors file")
    assert errors[1:] == [f"RuntimeError: rank 0: {errors[0]}"] * 2


def test_an_error_of_progress_is_one_in_all() -> None:
    """Of the last step, too."""
    for step in (1, 11, 12):
        ends = outcomes(3, lambda group, step=step: fitted(group, progress=stop_after(step)))
        assert isinstance(ends[0], Stop)
        assert [str(end) for end in ends[1:]] == ["rank 0: Stop: "] * 2


def test_a_diverging_run_is_an_error_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the losses of one shard."""
    gradients = LanguageModel.shard_gradients

    def diverge(self: LanguageModel, *arguments: Any) -> Any:
        losses, *rest = gradients(self, *arguments)
        return (losses * np.nan if arguments[-1].first else losses), *rest

    monkeypatch.setattr(LanguageModel, "shard_gradients", diverge)
    message = "FloatingPointError: the training loss is nan after 0 steps: try a smaller learning"
    assert [error[: len(message)] for error in everywhere(2)] == [message] * 2


def test_different_arguments_are_an_error_in_all(tmp_path: Path) -> None:
    def errors(options: list[dict[str, Any]]) -> list[str]:
        ends = outcomes(2, lambda group: fitted(group, **options[group.rank]))
        return [f"{type(end).__name__}: {end}" for end in ends]

    for one, two, message in [
        ({}, {"lr": 0.02}, "lr: 0.03 on rank 0, 0.02 on rank 1"),
        ({}, {"shards": 4}, "shards: 8 on rank 0, 4 on rank 1"),
        ({}, {"held_out": 0.2}, "text: '2,592 characters"),
        ({}, {"checkpoint": tmp_path / "x"}, "checkpoint_every: None on rank 0, 1000 on rank 1"),
    ]:
        for error in errors([one, two]):
            assert error.startswith("ValueError: expected equal processes, got ")
            assert message in error
    assert os.listdir(tmp_path) == []
    assert errors([{}, {"chunk": 0}]) == [
        "RuntimeError: rank 1: ValueError: chunk: expected at least 1, got 0",
        "ValueError: chunk: expected at least 1, got 0",
    ]


def test_weights_that_part_are_an_error_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a bit that a machine flipped: seen after 100 steps, or at the end."""

    def disturb(last: int) -> type[optim.Adam]:
        class Adam(optim.Adam):
            def step(self, grads: Any) -> None:
                super().step(grads)
                if self._steps == last and threading.current_thread().name.endswith("_1"):
                    parameters = self._parameters[0]
                    parameters.flat = np.nextafter(parameters.flat, np.float32(9))

        return Adam

    for at, steps, seen in ((5, 300, 100), (150, 300, 200), (12, 12, 12)):
        monkeypatch.setattr(_training, "Adam", disturb(at))
        for error in everywhere(2, steps=steps, held_out=0):
            assert error.startswith(f"RuntimeError: weights after {seen} steps: expected the same")


def test_wrong_arguments() -> None:
    group: Any = distributed.alone()
    for options, error, message in [
        ({"group": group}, ValueError, "shards: expected a power of two with a group, got None"),
        ({"group": 3, "shards": 2}, TypeError, "group: expected a fastlstm.distributed.Group, got"),
        ({"shards": 3}, ValueError, "shards: expected a power of two, got 3"),
        ({"shards": 0}, ValueError, "shards: expected at least 1, got 0"),
        ({"shards": 2.0, "group": group}, TypeError, "shards: expected an integer, got float"),
    ]:
        with pytest.raises(error, match=message):
            model().fit(TEXT, **RUN, **options)


def test_a_checkpoint_of_other_shards_is_an_error(tmp_path: Path) -> None:
    saved = {"checkpoint": tmp_path / "run.ckpt", "resume": "auto"}
    fitted(None, **saved)
    for shards in (4, None):
        with pytest.raises(ValueError, match=f"^shards: expected 8 as in .*run.ckpt, got {shards}"):
            fitted(None, **{**saved, "shards": shards})
