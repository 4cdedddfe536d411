"""The language model: gradients, bits per character, generating, errors."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from support.language_models import SMALL, TEXT, mean_nll, reference_logits, small_model, weights_of

from fastlstm._shards import Shards
from fastlstm.models import LanguageModel, _evaluation
from fastlstm.models._evaluation import EvaluationWindows
from fastlstm.models._text import Alphabet


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


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 999, 1000])
@pytest.mark.parametrize("rows", [1, 2, 7, 32])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_windows_measure_each_character_once(length: int, rows: int, warmup: int) -> None:
    windows = EvaluationWindows.of(length, rows, warmup)
    assert windows.rows == max(1, min(rows, length // max(1, 2 * warmup)))
    measured = np.zeros(windows.rows * windows.steps + 1, int)
    for start in range(0, windows.steps, 7):
        places, counts = windows.places(start, min(start + 7, windows.steps))
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


def test_shards_without_rows_have_gradients_of_zero() -> None:
    """Of a process that has none: in memory that others have used before."""
    model, codes = small_model(), np.zeros((7, 4), int)
    for _ in range(3):
        model.gradients(codes, codes, None)
        none = Shards(3, 4, rank=0, size=4)
        losses, gradients, _ = model.shard_gradients(codes[:, :0], codes[:, :0], None, none)
        assert losses.tolist() == [0]
        assert [part.array.any() for part in gradients] == [False, False]


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
    monkeypatch.setattr(_evaluation, "_WARMUP", 0)
    assert model.bits_per_character(text, rows=100) > exact * 1.01


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
    (
        lambda m: m.fit(TEXT, steps=1, clip_norm=math.nan),
        ValueError,
        "clip_norm: expected a number >= 0",
    ),
    (
        lambda m: m.fit(TEXT, steps=1, clip_norm=-1),
        ValueError,
        "clip_norm: expected a number >= 0, got -1",
    ),
    (lambda m: m.fit(TEXT, steps=1, evaluations=0), ValueError, "evaluations: expected"),
    (
        lambda m: m.fit(TEXT, steps=1, reset_every=-1),
        ValueError,
        "reset_every: expected at least 1",
    ),
    (
        lambda m: m.fit(TEXT, steps=1, reset_every=2.5),
        TypeError,
        "reset_every: expected an integer",
    ),
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
