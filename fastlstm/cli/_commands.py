"""What the commands generate, quantize and info do, and what all of them share."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

import fastlstm
from fastlstm._io import tensor_file
from fastlstm._io.atomic import check_replaceable
from fastlstm._layers.cells import CELLS
from fastlstm._layers.config import WEIGHT_TYPES
from fastlstm.models import History, LanguageModel
from fastlstm.models._progress import ProgressDisplay
from fastlstm.training._interrupt import deferred_interrupt

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
    "shards": "--shards",
}


def generate(args: Namespace) -> None:
    """Write text with a saved model."""
    model = LanguageModel.load(args.model)
    start = _start_of_line(model) if args.prompt is None else args.prompt
    text = go_on(model, start, args.n, args.temperature, args.seed)
    show((args.prompt or "") + text)


def quantize(args: Namespace) -> None:
    """Save a model or a layer again, with weights of fewer bits."""
    check_replaceable(args.output)
    size = os.path.getsize(args.model)
    source = load(args.model)
    if source.weights_dtype in WEIGHT_TYPES[1:]:
        raise ValueError(
            f"{args.model}: expected weights of float32, got {source.weights_dtype}: "
            "it has been quantized already"
        )
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


def fit(
    model: LanguageModel,
    text: str,
    path: str | None,
    goes_on: str = "",
    sample: Callable[[], str] | None = None,
    **options: Any,
) -> History:
    """Train and, if there is a path, save the model; `goes_on` says how a run does that ends.

    `sample` is as for `ProgressDisplay`.
    """
    progress = ProgressDisplay(sample)
    try:
        with progress, naming_options():
            history = model.fit(text, progress=progress, **options)
        if history.stopped:
            print(f"stopped by Ctrl-C; what was learned is kept{goes_on}", flush=True)
    except KeyboardInterrupt:
        if path and progress.steps:  # the second Ctrl-C, which does not wait for a measurement
            _save(model, path)
        raise
    if path:
        _save(model, path)
    return history


def load(path: str) -> Any:
    """The language model or the layer of a file."""
    kinds: dict[str, Any] = {"LanguageModel": LanguageModel}
    kinds |= {layer.__name__: layer for layer in CELLS.values()}
    kind = tensor_file.kind_of(path)
    if kind not in kinds:
        raise ValueError(f"{path}: expected one of {', '.join(kinds)}, got fastlstm.{kind:.60}")
    return kinds[kind].load(path)


def _save(model: Any, path: str) -> None:
    """Save the model; Ctrl-C has no effect until it is there."""
    with deferred_interrupt(second_raises=False):
        model.save(path)
        print(f"saved as {path}", flush=True)


@contextlib.contextmanager
def naming_options() -> Iterator[None]:
    """In messages, replace the arguments of LanguageModel by the options they come from."""
    try:
        yield
    except ValueError as error:
        names, _, rest = str(error).partition(": ")
        options = dict.fromkeys(_OPTION_OF.get(name, "") for name in names.split(", "))
        if "" in options:
            raise
        raise ValueError(f"{', '.join(options)}: {rest}") from None


def describe(model: LanguageModel, source: str, n_text: int, n_held_out: int) -> None:
    weights = sum(parameters.flat.size for parameters in model.trainable)
    lstm = model.lstm
    kind = type(lstm).__name__
    layers = f"{lstm.num_layers} x {lstm.hidden_size}" if lstm.num_layers > 1 else lstm.hidden_size
    show(
        f"fastlstm {fastlstm.__version__}, {lstm.isa}, {fastlstm.get_num_threads()} threads\n"
        f"text: {source}, {n_text:,} characters and {n_held_out:,} held out\n"
        f"model: embedding {lstm.input_size}, {kind} {layers}, {len(model.alphabet)} characters, "
        f"{weights:,} weights"
    )


def _start_of_line(model: LanguageModel) -> str:
    """What stands before a line, or else before a word, or any character the model knows."""
    return next(c for c in ("\n", " ", model.alphabet[0]) if c in model.alphabet)


def go_on(model: LanguageModel, prompt: str, n: int, *options: Any) -> str:
    with naming_options():
        return model.generate(prompt, n, *options)


def show(text: str) -> None:
    """Print a text, broken between words where a terminal would break lines anywhere.

    What the encoding of standard output does not have is a question mark.
    """
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(_broken(line, width) for line in text.split("\n"))
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


def _broken(line: str, width: int) -> str:
    """A line as several; one that fits stays as it is, with all of its spaces."""
    if len(line) <= width:
        return line
    return textwrap.fill(
        line, width, expand_tabs=False, replace_whitespace=False,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def sum_up(history: History, bits: float) -> None:
    last = history.records[-1]
    measured = "nothing held out" if math.isnan(bits) else f"held-out {bits:.3f} bits per character"
    show(
        f"{measured}, {history.characters_per_second:,.0f} characters per second "
        f"({last.seconds:.1f} s)"
    )
