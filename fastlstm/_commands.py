"""What the commands demo, train and generate do."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import fastlstm
from fastlstm import _corpus
from fastlstm._files import check_replaceable
from fastlstm._progress import ProgressDisplay
from fastlstm.models import History, LanguageModel

PROMPT = "John gave Mary a puppy."

_SHORTEST = 20  # characters: the last tenth has two then, and something can be predicted


def demo(args: Namespace) -> None:
    """Train on text that comes with Python, write from prompts, sum up."""
    if args.save:
        check_replaceable(args.save)
    corpus = _corpus.load(args.corpus)
    model = LanguageModel(corpus.text + corpus.held_out, seed=args.seed)
    prompts = args.prompt or [PROMPT, _a_prompt(corpus.held_out)]
    for prompt in prompts:
        model.generate(prompt, 0)  # a character it cannot know is an error now, not in a minute
    _describe(model, corpus.description, len(corpus.text), len(corpus.held_out))
    history = _fit(model, corpus.text, held_out=corpus.held_out, seconds=args.seconds)
    if args.save:
        model.save(args.save)
        print(f"saved as {args.save}")
    for prompt in prompts:
        print(f"\n--- prompt: {_printable(prompt)}\n")
        _write(model, prompt, 400, 0.7, args.seed)
    print()
    _sum_up(history, model.bits_per_character(corpus.held_out))


def train(args: Namespace) -> None:
    """Train on a file and save the model."""
    check_replaceable(args.output)
    text = _read_text(args.file)
    model = LanguageModel(
        text,
        embedding_size=args.embedding,
        hidden_size=args.hidden,
        num_layers=args.layers,
        dropout=args.dropout,
        seed=args.seed,
    )
    held_out = int(len(text) * args.held_out)
    _describe(model, args.file, len(text) - held_out, held_out)
    by_time = args.epochs is None and args.steps is None
    history = _fit(
        model,
        text,
        held_out=args.held_out,
        epochs=args.epochs,
        steps=args.steps,
        seconds=args.seconds if by_time else None,
        batch_size=args.batch_size,
        chunk=args.chunk,
        lr=args.lr,
    )
    model.save(args.output)
    print(f"saved as {args.output}")
    _sum_up(history, history.records[-1].held_out_bits)


def generate(args: Namespace) -> None:
    """Write text with a saved model."""
    model = LanguageModel.load(args.model)
    _write(model, args.prompt, args.n, args.temperature, args.seed)


def _fit(model: LanguageModel, text: str, **options: Any) -> History:
    with ProgressDisplay() as progress:
        history = model.fit(text, progress=progress, **options)
    if history.stopped:
        print("stopped by Ctrl-C; what was learned is kept", flush=True)
    return history


def _read_text(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 (at byte {error.start + 1})") from None
    if len(text) < _SHORTEST:
        raise ValueError(f"{path}: expected at least {_SHORTEST} characters, got {len(text)}")
    return text


def _a_prompt(held_out: str) -> str:
    """The first line of the second paragraph: the first one is cut off at its start."""
    return held_out.split("\n\n")[1].strip().partition("\n")[0]


def _describe(model: LanguageModel, source: str, n_text: int, n_held_out: int) -> None:
    weights = sum(parameters.flat.size for parameters in model.trainable)
    lstm = model.lstm
    layers = f"{lstm.num_layers} x {lstm.hidden_size}" if lstm.num_layers > 1 else lstm.hidden_size
    print(
        f"fastlstm {fastlstm.__version__}, {lstm.isa}, {fastlstm.get_num_threads()} threads\n"
        f"text: {_printable(source)}, {n_text:,} characters and {n_held_out:,} held out\n"
        f"model: embedding {lstm.input_size}, LSTM {layers}, {len(model.alphabet)} characters, "
        f"{weights:,} weights",
        flush=True,
    )


def _write(model: LanguageModel, prompt: str, n: int, temperature: float, seed: int | None) -> None:
    print(_printable(prompt + model.generate(prompt, n, temperature, seed)))


def _printable(text: str) -> str:
    """The text, with a question mark for what the terminal's encoding does not have."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _sum_up(history: History, bits: float) -> None:
    last = history.records[-1]
    measured = "nothing held out" if math.isnan(bits) else f"held-out {bits:.3f} bits per character"
    print(
        f"{measured}, {history.characters_per_second:,.0f} characters per second "
        f"({last.seconds:.1f} s)"
    )
