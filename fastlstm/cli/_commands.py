"""What the commands demo, train, generate, quantize and info do."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import fastlstm
from fastlstm._io import tensor_file
from fastlstm._io.atomic import check_replaceable
from fastlstm._layers.cells import CELLS
from fastlstm._layers.config import WEIGHT_TYPES
from fastlstm.cli import _demo_text
from fastlstm.models import History, LanguageModel
from fastlstm.training._interrupt import deferred_interrupt
from fastlstm.training._progress import ProgressDisplay

PROMPT = "John gave Mary a puppy."

# Arguments of LanguageModel, and where they come from.
_OPTION_OF = {
    "input_size": "--embedding",
    "embedding_size": "--embedding",
    "hidden_size": "--hidden",
    "num_layers": "--layers",
    "batch_size": "--batch-size",
    "chunk": "--chunk",
    "held_out": "--held-out",
    "prompt": "--prompt",
    "n": "-n",
    "dropout": "--dropout",
    "text": "FILE",
    "alphabet": "FILE",
    "steps": "--steps",
    "seconds": "--seconds",
    "lr": "--lr",
}

_SHORTEST = 20  # characters: the last tenth has two then, and something can be predicted


def demo(args: Namespace) -> None:
    """Train on text that comes with Python, write from prompts, sum up."""
    if args.save:
        check_replaceable(args.save)
    corpus = _demo_text.load(args.corpus)
    model = LanguageModel(corpus.text + corpus.held_out, seed=args.seed)
    prompts = args.prompt or [PROMPT, _a_prompt(corpus.held_out)]
    for prompt in prompts:
        _go_on(model, prompt, 0)  # a character it cannot know is an error now, not in a minute
    _describe(model, corpus.description, len(corpus.text), len(corpus.held_out))
    history = _fit(model, corpus.text, args.save, held_out=corpus.held_out, seconds=args.seconds)
    for prompt in prompts:
        print(f"\n--- prompt: {_printable(prompt)}\n")
        print(_printable(prompt + _go_on(model, prompt, 400, 0.7, args.seed)))
    print()
    _sum_up(history, model.bits_per_character(corpus.held_out))


def train(args: Namespace) -> int:
    """Train on a file and save the model; the exit status, of a signal too."""
    check_replaceable(args.output)
    text = _read_text(args.file, args.output)
    _check_checkpoint(args)
    if args.dropout and args.layers == 1:
        print("fastlstm: --dropout: no effect with one layer, it acts between layers",
              file=sys.stderr)  # fmt: skip
    with _naming_options():
        model = LanguageModel(
            text,
            embedding_size=args.embedding,
            hidden_size=args.hidden,
            num_layers=args.layers,
            dropout=args.dropout if args.layers > 1 else 0.0,
            seed=args.seed,
        )
    held_out = int(len(text) * args.held_out)
    _describe(model, _source(args.file), len(text) - held_out, held_out)
    by_time = args.epochs is None and args.steps is None
    options = {
        "held_out": args.held_out,
        "epochs": args.epochs,
        "steps": args.steps,
        "seconds": args.seconds if by_time else None,
        "batch_size": args.batch_size,
        "chunk": args.chunk,
        "lr": args.lr,
        "checkpoint": args.checkpoint,
        "checkpoint_every": args.checkpoint_every,
        "resume": args.resume == "yes" or args.resume or False,
    }
    try:
        history = _fit(model, text, args.output, **options)
    except SystemExit as stop:
        status = int(str(stop))
        name = signal.Signals(status - 128).name
        print(f"stopped by {name}{_how_to_go_on(**options)}", flush=True)
        return status
    _sum_up(history, history.records[-1].held_out_bits)
    return 0


def generate(args: Namespace) -> None:
    """Write text with a saved model."""
    model = LanguageModel.load(args.model)
    start = _start_of_line(model) if args.prompt is None else args.prompt
    text = _go_on(model, start, args.n, args.temperature, args.seed)
    print(_printable((args.prompt or "") + text))


def quantize(args: Namespace) -> None:
    """Save a model or a layer again, with weights of fewer bits."""
    check_replaceable(args.output)
    size = os.path.getsize(args.model)
    source = _load(args.model)
    try:
        small = source.quantize(args.weights)
    except ValueError as error:
        raise ValueError(f"{args.model}: {error}") from None
    _save(small, args.output)
    now = os.path.getsize(args.output)
    print(f"{now:,} bytes with {args.weights} weights, {now / size:.0%} of {size:,} with float32")


def info(args: Namespace) -> None:
    """Print what a bug report needs, and the plans of an LSTM."""
    fastlstm.show_config()
    if args.plan:
        layers, inputs, hidden, rows, steps = args.plan
        lstm = fastlstm.LSTM(inputs, hidden, layers)
        for training in (False, True):
            print(f"\n{lstm.plan(steps, rows, training=training)}")


def _fit(model: LanguageModel, text: str, path: str | None, **options: Any) -> History:
    """Train and, if there is a path, save the model."""
    progress = ProgressDisplay()
    try:
        with progress, _naming_options():
            history = model.fit(text, progress=progress, **options)
        if history.stopped:
            kept = _how_to_go_on(**options)
            print(f"stopped by Ctrl-C; what was learned is kept{kept}", flush=True)
    except KeyboardInterrupt:
        if path and progress.steps:  # the second Ctrl-C, which does not wait for a measurement
            _save(model, path)
        raise
    if path:
        _save(model, path)
    return history


def _how_to_go_on(checkpoint: str | None = None, resume: bool | str = False, **_: Any) -> str:
    """The end of a line that says that training was stopped."""
    if checkpoint is None:
        return ""
    command = "the same command" if resume else "the same command with --resume auto"
    return f"; the training is saved as {checkpoint}, {command} goes on"


def _load(path: str) -> Any:
    """The language model or the layer of a file, whose weights are not of fewer bits."""
    kinds: dict[str, Any] = {"LanguageModel": LanguageModel}
    kinds |= {layer.__name__: layer for layer in CELLS.values()}
    kind = tensor_file.kind_of(path)
    if kind not in kinds:
        raise ValueError(f"{path}: expected one of {', '.join(kinds)}, got fastlstm.{kind:.60}")
    found = kinds[kind].load(path)
    if found.weights_dtype in WEIGHT_TYPES[1:]:
        raise ValueError(
            f"{path}: expected weights of float32, got {found.weights_dtype}: "
            "it has been quantized already"
        )
    return found


def _save(model: Any, path: str) -> None:
    """Save the model; Ctrl-C has no effect until it is there."""
    with deferred_interrupt(second_raises=False):
        model.save(path)
        print(f"saved as {path}", flush=True)


@contextlib.contextmanager
def _naming_options() -> Iterator[None]:
    """In messages, replace the arguments of LanguageModel by the options they come from."""
    try:
        yield
    except ValueError as error:
        names, _, rest = str(error).partition(": ")
        options = dict.fromkeys(_OPTION_OF.get(name, "") for name in names.split(", "))
        if "" in options:
            raise
        raise ValueError(f"{', '.join(options)}: {rest}") from None


def _read_text(path: str, output: str) -> str:
    """The text of a file, which is not the one to write, or of standard input."""
    source, name = 0 if path == "-" else path, _source(path)
    if _same_file(source, output):
        raise ValueError(f"-o: expected another file than that of the text, got {output}")
    try:
        with open(source, encoding="utf-8-sig", closefd=path != "-") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not text in UTF-8 (at byte {error.start + 1})") from None
    if len(text) < _SHORTEST:
        raise ValueError(f"{name}: expected at least {_SHORTEST} characters, got {len(text)}")
    return text


def _check_checkpoint(args: Namespace) -> None:
    """Refuse options that only mean something with --checkpoint, and a file in use as another."""
    given = {"--checkpoint-every": args.checkpoint_every, "--resume": args.resume}
    path = args.checkpoint
    for option, value in given.items():
        if value is not None and path is None:
            raise ValueError(f"--checkpoint: expected a file with {option}, got none")
    for what, other in {
        "the text": 0 if args.file == "-" else args.file,
        "-o": args.output,
    }.items():
        if path is not None and _same_file(path, other):
            raise ValueError(f"--checkpoint: expected another file than that of {what}, got {path}")


def _same_file(one: str | int, other: str | int) -> bool:
    """Whether two paths or descriptors are of one file, be it there or not."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        paths = [os.path.realpath(path) for path in (one, other) if isinstance(path, str)]
        return len(paths) == 2 and paths[0] == paths[1]


def _source(path: str) -> str:
    return "standard input" if path == "-" else path


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


def _start_of_line(model: LanguageModel) -> str:
    """What stands before a line, or else before a word, or any character the model knows."""
    return next(c for c in ("\n", " ", model.alphabet[0]) if c in model.alphabet)


def _go_on(model: LanguageModel, prompt: str, n: int, *options: Any) -> str:
    with _naming_options():
        return model.generate(prompt, n, *options)


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
