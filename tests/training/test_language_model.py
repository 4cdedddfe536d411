"""The language model: its gradients, its training, what it measures and what it writes."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastlstm import reference
from fastlstm.models import History, LanguageModel, Record, _language_model
from fastlstm.models._text import Alphabet, Stretches
from fastlstm.training import _loop
from fastlstm.training._batches import TrainingRows

TEXT = "the cat sat on the mat, the dog lay on the log. " * 60
SMALL: dict[str, Any] = {"embedding_size": 5, "hidden_size": 8}


def small_model(seed: int = 1, **options: Any) -> LanguageModel:
    return LanguageModel(TEXT, **{**SMALL, "seed": seed, **options})


def weights_of(model: LanguageModel) -> np.ndarray:
    return np.concatenate([parameters.flat for parameters in model.trainable])


def reference_logits(model: LanguageModel, codes: np.ndarray, shift: Any = 0.0) -> np.ndarray:
    """Logits [T, B, V] of a one-layer model in float64, its weights moved by `shift`."""
    flat = weights_of(model).astype(np.float64) + shift
    arrays, start = {}, 0
    for parameters in model.trainable:
        for name, array in parameters.items():
            arrays[name] = flat[start : start + array.size].reshape(array.shape)
            start += array.size
    lstm = reference.LSTM(model.lstm.input_size, model.lstm.hidden_size)
    lstm.load_state_dict({name: arrays[name] for name in lstm.parameters})
    y, _ = lstm(arrays["embedding.weight"][codes])
    return y @ arrays["linear.weight"].T + arrays["linear.bias"]


def mean_nll(logits: np.ndarray, targets: np.ndarray) -> float:
    top = logits.max(axis=-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
    return float(-np.take_along_axis(log_p, targets[..., None], axis=-1).mean())


def test_loss_and_gradients_are_those_of_the_reference() -> None:
    model, rng = small_model(), np.random.default_rng(2)
    # 3 of the characters occur, some many times.
    codes = rng.choice([1, 4, 7], size=(12, 5))
    inputs, targets = codes[:-1], codes[1:]
    loss, grads, _ = model.gradients(inputs, targets, None)
    assert loss == pytest.approx(mean_nll(reference_logits(model, inputs), targets), rel=1e-6)
    flat = np.concatenate([g.flat for g in grads])
    for part in np.split(np.arange(flat.size), [model.lstm.parameters.flat.size]):
        for _ in range(4):
            direction = np.zeros(flat.size)
            direction[part] = rng.standard_normal(part.size)
            above, below = (
                mean_nll(reference_logits(model, inputs, sign * 1e-5 * direction), targets)
                for sign in (1, -1)
            )
            assert flat @ direction == pytest.approx((above - below) / 2e-5, rel=1e-4, abs=1e-6)


def test_every_name_has_its_gradient() -> None:
    model, rng = small_model(), np.random.default_rng(3)
    codes = rng.integers(len(model.alphabet), size=(12, 5))
    _, (lstm, heads), _ = model.gradients(codes[:-1], codes[1:], None)
    assert list(lstm) == list(model.lstm.parameters)
    assert list(heads) == ["embedding.weight", "linear.weight", "linear.bias"]
    assert all(np.abs(g).max() > 0 for g in [*lstm.values(), *heads.values()])


def test_large_logits_do_not_overflow() -> None:
    model = small_model()
    bias = np.zeros(len(model.alphabet), np.float32)
    bias[[2, 3]] = 1e4, -1e4
    model.parameters["linear.bias"] = bias
    codes = np.full((4, 2), 2)
    loss, grads, _ = model.gradients(codes[:-1], codes[1:], None)
    assert loss == 0
    assert all(np.isfinite(g.flat).all() for g in grads)


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
    model.fit(TEXT, held_out=0, steps=steps, batch_size=4, chunk=16, clip=0.05,
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


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 999, 1000])
@pytest.mark.parametrize("rows", [1, 2, 7, 32])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_stretches_measure_each_character_once(length: int, rows: int, warmup: int) -> None:
    stretches = Stretches.of(length, rows, warmup)
    assert stretches.rows == max(1, min(rows, length // max(1, 2 * warmup)))
    measured = np.zeros(stretches.rows * stretches.steps + 1, int)
    for start in range(0, stretches.steps, 7):
        places, counts = stretches.places(start, min(start + 7, stretches.steps))
        np.add.at(measured, places[counts], 1)
        assert (counts[:, 0]).all()
        assert not counts[: max(0, min(warmup - start, 7)), 1:].any()
    assert (measured[:length] == 1).all()


def test_a_uniform_model_needs_log2_of_the_alphabet() -> None:
    model = small_model()
    for name in ("linear.weight", "linear.bias"):
        model.parameters[name] = np.zeros_like(model.parameters[name])
    bits = math.log2(len(model.alphabet))
    assert model.bits_per_character(TEXT) == pytest.approx(bits, rel=1e-6)
    assert model.bits_per_character(TEXT, rows=7) == pytest.approx(bits, rel=1e-6)
    assert model.perplexity(TEXT) == pytest.approx(len(model.alphabet), rel=1e-5)


def test_bits_are_those_of_the_reference_and_rows_change_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_model()
    model.fit(TEXT, steps=40, batch_size=4, chunk=16, lr=0.02)
    text = TEXT[7:2300]
    codes = np.array([model.alphabet.index(c) for c in text])
    exact = mean_nll(reference_logits(model, codes[:-1, None])[:, 0], codes[1:]) / math.log(2)
    assert model.bits_per_character(text) == pytest.approx(exact, rel=1e-5)
    assert model.bits_per_character(text, rows=5) == pytest.approx(exact, rel=1e-3)
    assert model.bits_per_character(text, rows=10_000) == pytest.approx(exact, rel=1e-3)
    monkeypatch.setattr(_language_model, "_WARMUP", 0)
    assert model.bits_per_character(text, rows=100) > exact * 1.01


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

    class Watched(_loop.Adam):
        def step(self, grads: Any) -> None:
            rates.append(self.lr)
            super().step(grads)

    monkeypatch.setattr(_loop, "Adam", Watched)
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


def test_generate_repeats_with_a_seed() -> None:
    model = small_model()
    # So that the prompt counts, without training.
    model.parameters["linear.weight"] = model.parameters["linear.weight"] * 20
    text = model.generate("the ", 50, seed=3)
    assert len(text) == 50
    assert set(text) <= set(model.alphabet)
    assert model.generate("the ", 50, seed=3) == text
    assert model.generate("the ", 50, seed=4) != text
    assert model.generate("cat ", 50, seed=3) != text
    assert model.generate("the ", 20, seed=3) == text[:20]
    assert model.generate("the ", 0) == ""
    assert model.generate("the ", 50) != model.generate("the ", 50)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_models_of_their_own(copied: Any) -> None:
    model = small_model()
    codes = np.arange(8).reshape(4, 2)
    before = model.gradients(codes[:-1], codes[1:], None)[0]
    twin = copied(model)
    for parameters in twin.trainable:
        parameters.flat = parameters.flat * 3
    assert model.gradients(codes[:-1], codes[1:], None)[0] == before
    expected = mean_nll(reference_logits(twin, codes[:-1]), codes[1:])
    assert twin.gradients(codes[:-1], codes[1:], None)[0] == pytest.approx(expected, rel=1e-5)


def test_temperature_0_takes_the_likeliest() -> None:
    model = small_model()
    model.fit(TEXT, steps=30, batch_size=4, chunk=16, lr=0.02)
    prompt = "the d"
    text = prompt + model.generate(prompt, 12, temperature=0)
    assert text == prompt + model.generate(prompt, 12, temperature=1e-300, seed=1)
    codes = np.array([model.alphabet.index(c) for c in text])
    best = reference_logits(model, codes[:-1, None])[:, 0].argmax(axis=-1)
    assert best[len(prompt) - 1 :].tolist() == codes[len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1e300])
def test_samples_follow_the_probabilities(temperature: float) -> None:
    model = LanguageModel("abc", **SMALL)
    p = np.array([0.5, 0.3, 0.2])
    model.parameters["linear.weight"] = np.zeros_like(model.parameters["linear.weight"])
    model.parameters["linear.bias"] = np.log(p)
    text = model.generate("a", 4000, temperature, seed=5)
    expected = p ** (1 / temperature)
    expected /= expected.sum()
    for character, share in zip("abc", expected, strict=True):
        # 5 standard deviations
        assert text.count(character) / 4000 == pytest.approx(share, abs=2.5 / math.sqrt(4000))


def test_alphabet() -> None:
    alphabet = Alphabet("na\N{GRINNING FACE}\ud800b\n")
    assert alphabet.characters == "\nabn\ud800\N{GRINNING FACE}"
    text = "\N{GRINNING FACE}ban\ud800\n"
    assert alphabet.decode(alphabet.encode(text)) == text
    many = "".join(map(chr, range(300)))
    assert Alphabet(many).encode(many).tolist() == list(range(300))


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda m: LanguageModel(""), ValueError, "alphabet: expected at least one character"),
    (lambda m: LanguageModel(b"ab"), TypeError, "alphabet: expected str, got bytes"),
    (
        lambda m: LanguageModel("ab", hidden_size=0),
        ValueError,
        "hidden_size: expected at least 1, got 0",
    ),
    (lambda m: LanguageModel("ab", embedding_size=2.5), TypeError, "embedding_size: expected"),
    (lambda m: LanguageModel("ab", num_layers=-1), ValueError, "num_layers: expected"),
    (lambda m: LanguageModel("ab", dropout=2), ValueError, "dropout: expected"),
    (lambda m: m.fit("the Cat", steps=1), ValueError, r"text: 'C' \(character 5\) is not one of"),
    (lambda m: m.fit("the \xe9", steps=1), ValueError, r"text: '\xe9' \(character 5\) is not"),
    (lambda m: m.fit(b"the", steps=1), TypeError, "text: expected str, got bytes"),
    (lambda m: m.fit(TEXT, held_out="Z", steps=1), ValueError, "held_out: 'Z'"),
    (lambda m: m.fit(TEXT, held_out="t", steps=1), ValueError, "held_out: expected at least 2"),
    (lambda m: m.fit(TEXT, held_out=1, steps=1), ValueError, "held_out: expected a text or a part"),
    (lambda m: m.fit(TEXT, held_out=-1, steps=1), ValueError, "held_out: expected a number >= 0"),
    (lambda m: m.fit("the", held_out=0.6, steps=1), ValueError, "held_out: expected at least 2"),
    (lambda m: m.fit("t", held_out=0, steps=1), ValueError, "text: expected at least 2 char"),
    (lambda m: m.fit("", held_out=0, steps=1), ValueError, "text: expected at least 2 char"),
    (lambda m: m.fit(TEXT), ValueError, "steps, seconds, epochs: expected one of them, got 0"),
    (
        lambda m: m.fit(TEXT, steps=1, seconds=1),
        ValueError,
        "steps, seconds, epochs: expected one of them, got 2",
    ),
    (lambda m: m.fit(TEXT, steps=0), ValueError, "steps: expected at least 1, got 0"),
    (lambda m: m.fit(TEXT, seconds=0), ValueError, "seconds: expected a finite number > 0, got 0"),
    (lambda m: m.fit(TEXT, epochs=math.inf), ValueError, "epochs: expected a finite number > 0"),
    (lambda m: m.fit(TEXT, steps=1, batch_size=0), ValueError, "batch_size: expected"),
    (lambda m: m.fit(TEXT, steps=1, batch_size=10**15), ValueError, "batch_size, chunk: too large"),
    (lambda m: m.fit(TEXT, steps=1, chunk=1.5), TypeError, "chunk: expected an integer, got float"),
    (lambda m: m.fit(TEXT, steps=1, lr=-1), ValueError, "lr: expected a number >= 0, got -1"),
    (lambda m: m.fit(TEXT, steps=1, lr=math.inf), ValueError, "lr: expected a finite number, got"),
    (lambda m: m.fit(TEXT, steps=1, clip=math.nan), ValueError, "clip: expected a number >= 0"),
    (lambda m: m.fit(TEXT, steps=1, clip=-1), ValueError, "clip: expected a number >= 0, got -1"),
    (lambda m: m.fit(TEXT, steps=1, evaluations=0), ValueError, "evaluations: expected"),
    (lambda m: m.bits_per_character("t"), ValueError, "text: expected at least 2 characters, got"),
    (lambda m: m.bits_per_character("the", rows=0), ValueError, "rows: expected"),
    (lambda m: m.generate("", 5), ValueError, "prompt: expected at least one character"),
    (lambda m: m.generate("The", 5), ValueError, r"prompt: 'T' \(character 1\) is not one of the"),
    (lambda m: m.generate("the", -1), ValueError, "n: expected at least 0, got -1"),
    (lambda m: m.generate("the", 10**20), ValueError, "n: too large, 100000000000000000000 values"),
    (lambda m: m.generate("the", 1.0), TypeError, "n: expected an integer, got float"),
    (lambda m: m.generate("the", 5, seed=-1), ValueError, "seed: expected at least 0, got -1"),
    (lambda m: LanguageModel("ab", seed=0.5), TypeError, "seed: expected an integer, got float"),
    (lambda m: m.generate("the", 5, -1), ValueError, "temperature: expected a number >= 0"),
    (lambda m: m.generate("the", 5, math.inf), ValueError, "temperature: expected a finite"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=itertools.count())
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    model = small_model()
    before = weights_of(model)
    with pytest.raises(error, match=message):
        call(model)
    assert np.array_equal(weights_of(model), before)
