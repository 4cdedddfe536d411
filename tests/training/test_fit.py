"""Training a language model: the order of the text, records, time, Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.language_models import TEXT, small_model, weights_of

from fastlstm.models import History, LanguageModel, Record, _training
from fastlstm.models._text import Alphabet
from fastlstm.training import _loop
from fastlstm.training._batches import TrainingRows


@pytest.mark.peer
def test_training_follows_torch() -> None:
    torch = pytest.importorskip("torch")
    model, steps = LanguageModel(TEXT, embedding_size=16, hidden_size=32, seed=4), 60
    names = ("embedding", "lstm", "linear")
    count = len(model.alphabet)
    peer = torch.nn.ModuleDict(
        zip(names, (torch.nn.Embedding(count, 16), torch.nn.LSTM(16, 32),
                    torch.nn.Linear(32, count)), strict=True)
    )  # fmt: skip
    ours = {f"lstm.{name}": value for name, value in model.lstm.parameters.items()}
    ours |= dict(model.parameters)
    peer.load_state_dict({name: torch.tensor(value) for name, value in ours.items()})
    optimizer = torch.optim.Adam(peer.parameters(), 3e-3)

    losses: list[float] = []
    model.fit(TEXT, held_out=0, steps=steps, batch_size=4, chunk=16, clip_norm=0.05,
              progress=lambda record: losses.append(record.loss), evaluations=1)  # fmt: skip

    codes = torch.tensor(Alphabet(TEXT).encode(TEXT).astype(int))
    starts = torch.arange(4) * len(codes) // 4
    state, expected = None, []
    for step in range(steps):
        places = (starts + step * 16 + torch.arange(17)[:, None]) % len(codes)
        y, state = peer["lstm"](peer["embedding"](codes[places[:-1]]), state)
        state = tuple(part.detach() for part in state)
        loss = torch.nn.functional.cross_entropy(
            peer["linear"](y).reshape(-1, count), codes[places[1:]].reshape(-1)
        )
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.05)
        optimizer.step()
        expected.append(loss.item())
    # The last record's loss is a mean over all steps.
    assert losses[:-1] == pytest.approx(expected[:-1], abs=1e-5)
    assert losses[-1] == pytest.approx(np.mean(expected), abs=1e-5)
    assert expected[-1] < expected[0] - 0.5


def test_rows_read_the_text_once_an_epoch_and_go_on() -> None:
    text = np.arange(103)
    rows = TrainingRows(text, 4, 5)
    inputs, targets = (np.concatenate(parts) for parts in zip(
        *(rows.next() for _ in range(11)), strict=True))  # fmt: skip
    for row, start in enumerate([0, 25, 51, 77]):
        assert inputs[:, row].tolist() == [(start + t) % 103 for t in range(55)]
    assert np.array_equal(targets, (inputs + 1) % 103)


@pytest.mark.parametrize("every", [1, 3, 7, None])
def test_rows_begin_anew_in_turn(every: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = small_model(), []
    gradients = model.gradients

    def watched(inputs: Any, targets: Any, state: Any) -> Any:
        given.append(state and [array.copy() for array in state])
        return gradients(inputs, targets, state)

    monkeypatch.setattr(model, "gradients", watched)
    model.fit(TEXT, held_out=0, steps=15, batch_size=5, chunk=4, reset_every=every)
    assert given[0] is None  # zero
    for step, state in enumerate(given[1:], 1):
        for row in range(5):
            new = every is not None and row % every == step % every
            assert all((array[:, row] == 0).all() == new for array in state)


def test_fit_learns_and_tells() -> None:
    model, seen = small_model(), list[Record]()
    history = model.fit(TEXT, steps=50, batch_size=4, chunk=16, lr=0.03, evaluations=5,
                        progress=seen.append)  # fmt: skip
    assert [record.step for record in seen] == list(range(1, 51))
    assert [record.step for record in history.records] == [10, 20, 30, 40, 50]
    assert [record.characters for record in history.records] == [640, 1280, 1920, 2560, 3200]
    assert not history.stopped
    bits = [record.held_out_bits for record in history.records]
    assert bits[-1] < bits[0] - 1
    assert bits[-1] == model.bits_per_character(TEXT[-(len(TEXT) // 10) :], rows=4)
    losses = [record.loss for record in seen if record.step % 10]
    for segment, record in enumerate(history.records):
        nine = losses[9 * segment : 9 * segment + 9]  # the tenth is part of the mean only
        assert record.loss == pytest.approx(np.mean(nine), rel=0.05)
    last = history.records[-1]
    assert last.done == 1
    assert history.characters_per_second == last.characters / last.seconds


def test_held_out_part_and_text_are_the_same() -> None:
    place = len(TEXT) - len(TEXT) // 5
    options: Any = {"steps": 10, "batch_size": 4, "chunk": 16}
    part, text = small_model(), small_model()
    one = part.fit(TEXT, held_out=0.2, **options)
    two = text.fit(TEXT[:place], held_out=TEXT[place:], **options)
    assert [r.held_out_bits for r in one.records] == [r.held_out_bits for r in two.records]
    assert np.array_equal(weights_of(part), weights_of(text))


def test_without_held_out_nothing_is_measured() -> None:
    history = small_model().fit(TEXT, held_out=0, steps=3, batch_size=4, chunk=16)
    assert all(math.isnan(record.held_out_bits) for record in history.records)


def test_epochs_are_steps() -> None:
    history = small_model().fit(TEXT, held_out=0, epochs=0.5, batch_size=4, chunk=16)
    assert history.records[-1].step == math.ceil(0.5 * len(TEXT) / 64)


class FakeClock:
    """Half a second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.5
        return self.now


def test_time_and_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Watched(_training.Adam):
        def step(self, grads: Any) -> None:
            rates.append(self.lr)
            super().step(grads)

    monkeypatch.setattr(_training, "Adam", Watched)
    monkeypatch.setattr(_loop, "time", FakeClock())
    history = small_model().fit(TEXT, seconds=2, batch_size=4, chunk=16, lr=0.1)
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert history.records[-1].seconds == 2
    rates.clear()
    small_model().fit(TEXT, steps=5, batch_size=4, chunk=16, lr=0.1)
    assert rates == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])


def test_state_is_carried_from_chunk_to_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    given, returned = [], []
    gradients = LanguageModel.gradients

    def watched(self: LanguageModel, inputs: Any, targets: Any, state: Any) -> Any:
        given.append(state)
        result = gradients(self, inputs, targets, state)
        returned.append(result[2])
        return result

    monkeypatch.setattr(LanguageModel, "gradients", watched)
    small_model().fit(TEXT, steps=3, batch_size=4, chunk=16)
    assert given[0] is None
    assert given[1] is returned[0]
    assert given[2] is returned[1]


def test_seed_repeats_everything() -> None:
    runs = []
    for seed in (1, 1, 2):
        model = small_model(seed, num_layers=2, dropout=0.3)
        history = model.fit(TEXT, steps=5, batch_size=4, chunk=16)
        runs.append(([r.loss for r in history.records], weights_of(model)))
    assert runs[0][0] == runs[1][0] != runs[2][0]
    assert np.array_equal(runs[0][1], runs[1][1])


@pytest.fixture
def default_ctrl_c() -> Iterator[None]:
    """Undo what a shell does to its background jobs: they ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_keeps_whole_steps() -> None:
    third: list[np.ndarray] = []
    whole = small_model()
    whole.fit(TEXT, steps=10, batch_size=4, chunk=16,
              progress=lambda r: third.append(weights_of(whole)) if r.step == 3 else None,
              )  # fmt: skip
    model = small_model()

    def interrupt(record: Record) -> None:
        if record.step == 2:
            signal.raise_signal(signal.SIGINT)

    history = model.fit(TEXT, steps=10, batch_size=4, chunk=16, evaluations=1, progress=interrupt)
    assert history.stopped
    assert [record.step for record in history.records] == [3]
    assert not math.isnan(history.records[0].held_out_bits)
    assert np.array_equal(weights_of(model), third[0])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("default_ctrl_c")
def test_second_ctrl_c_does_not_wait() -> None:
    def interrupt(record: Record) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        small_model().fit(TEXT, steps=10, batch_size=4, chunk=16, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_fit_leaves_other_handlers_and_threads_alone() -> None:
    def handler(*_: Any) -> None: ...

    before = signal.signal(signal.SIGINT, handler)
    try:
        seen = []
        small_model().fit(TEXT, steps=1, batch_size=4, chunk=16,
                          progress=lambda _: seen.append(signal.getsignal(signal.SIGINT)),
                          )  # fmt: skip
        assert seen == [handler]
    finally:
        signal.signal(signal.SIGINT, before)
    histories: list[History] = []
    thread = threading.Thread(
        target=lambda: histories.append(small_model().fit(TEXT, steps=2, batch_size=4, chunk=16))
    )
    thread.start()
    thread.join()
    assert histories[0].records[-1].step == 2


def test_divergence_is_an_error() -> None:
    model = small_model()
    model.parameters["linear.bias"] = np.full(len(model.alphabet), np.nan)
    with pytest.raises(FloatingPointError, match="the training loss is nan after 0 steps"):
        model.fit(TEXT, steps=5, batch_size=4, chunk=16)
