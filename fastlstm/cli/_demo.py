"""What the command demo does: train on stories, write, count what is remembered, and save."""

from __future__ import annotations

import os
import re
import shlex
from argparse import Namespace
from typing import Any

from fastlstm._io import tensor_file
from fastlstm._io.atomic import check_replaceable
from fastlstm.cli import _demo_text, _memory
from fastlstm.cli._commands import PROMPT, describe, fit, go_on, show, sum_up
from fastlstm.cli._demo_text import Corpus
from fastlstm.models import LanguageModel

_SIZES: dict[str, Any] = {"embedding_size": 32, "hidden_size": 128}  # on stories
# Each unit of the LSTM begins with a memory of its own length, up to so many characters.
_MEMORY: dict[str, Any] = {"forget_bias": "chrono", "max_lag": 100}
# Rows begin anew every 1,024 characters, so that a prompt is read as rightly as what comes later.
_OPTIONS: dict[str, Any] = {"batch_size": 32, "chunk": 64, "reset_every": 16}
_RATE = {"lstm": 0.01, "rnn": 0.003}  # of three tried, the one at which each learned most


def demo(args: Namespace) -> None:
    """Train on the text, write from prompts, measure, say what to do next."""
    _check_output(args.save)
    corpus = _demo_text.load(args.corpus)
    text, on_stories = corpus.text + corpus.held_out, args.corpus == "stories"
    model = LanguageModel(text, seed=args.seed, **({**_SIZES, **_MEMORY} if on_stories else {}))
    prompts = args.prompt or [PROMPT, _a_prompt(corpus)]
    for prompt in prompts:
        go_on(model, prompt, 0)  # a character it cannot know is an error now, not in a minute
    describe(model, corpus.description, len(corpus.text), len(corpus.held_out))
    options: dict[str, Any] = {"held_out": corpus.held_out}
    if on_stories:
        _tell(corpus)
        options |= {**_OPTIONS, "lr": _RATE["lstm"]}

    def sample() -> str:
        prompt: str = prompts[0]
        return prompt + go_on(model, prompt, 200, 0.5, args.seed)

    history = fit(model, corpus.text, args.save, "", sample, seconds=args.seconds, **options)
    for prompt in prompts:
        show(f"\n--- prompt: {prompt}\n\n{_written(model, prompt, args.seed, on_stories)}")
    print()
    if on_stories:
        _count(model, corpus, None if history.stopped else history.records[-1].step, args.seed)
    sum_up(history, model.bits_per_character(corpus.held_out))
    _say_what_is_next(args.save, prompts[0])


def _check_output(path: str) -> None:
    """Refuse what cannot be replaced, or is a file of something else."""
    check_replaceable(path)
    if not os.path.exists(path):
        return
    try:
        kind = tensor_file.kind_of(path)
    except ValueError:
        kind = ""
    if kind != "LanguageModel":
        raise ValueError(f"{path}: is there and no language model; --save M saves it as M")


def _tell(corpus: Corpus) -> None:
    """Show what is learned from: the first two short stories."""
    short = [line for line in corpus.text.split("\n") if 100 < len(line) < 240][:2]
    show("\n".join(["\nIt reads stories such as these:\n", *(f"{line}\n" for line in short)]))


def _a_prompt(corpus: Corpus) -> str:
    """The beginning of something held out."""
    if corpus.stories:
        return corpus.stories[0].text.partition(". ")[0] + "."
    # The first line of the second paragraph: the first one is cut off at its start.
    return corpus.held_out.split("\n\n")[1].strip().partition("\n")[0]


def _written(model: LanguageModel, prompt: str, seed: int | None, one_line: bool) -> str:
    """The prompt and what the model goes on with, to the end of a sentence or at least a word."""
    text = go_on(model, prompt, 400, 0.7, seed)
    if one_line and "\n" in text:
        return prompt + text.partition("\n")[0]
    end = max(text.rfind(". ") + 1, 0) or text.rfind(" ")
    return prompt + (text[:end] if end > 0 else text)


def _count(model: LanguageModel, corpus: Corpus, steps: int | None, seed: int | None) -> None:
    """Count right pronouns, beside those of an RNN that reads the same in as many steps."""
    asked = _memory.questions(corpus.stories)
    rows = {"LSTM": _memory.right(model._log_probabilities, asked)}
    if steps is not None:
        show("To compare, a plain RNN of as many units reads the same, in as many steps:")
        rnn = LanguageModel(model.alphabet, cell="rnn", seed=seed, **_SIZES)
        history = fit(
            rnn, corpus.text, None, held_out=corpus.held_out, steps=steps,
            lr=_RATE["rnn"], evaluations=2, **_OPTIONS,
        )  # fmt: skip
        if not history.stopped:
            rows["RNN"] = _memory.right(rnn._log_probabilities, asked)
    rows["guessing"] = _memory.guessed(asked)
    show(
        "\nHow often he, she or it (his, her, its, him) is right in stories it has not read, by "
        "how many words after its noun it comes:\n"
    )
    print(_memory.table(rows), end="\n\n")


def _say_what_is_next(path: str, prompt: str) -> None:
    start = f"{PROMPT} She" if prompt == PROMPT else prompt
    model = _quoted(path)
    print(
        "\nnext:\n"
        f"  fastlstm look {model} {_quoted(start)} -o look.html\n"
        f"  fastlstm generate {model} --prompt {_quoted(prompt)}\n"
        "  fastlstm train yours.txt -o yours.safetensors"
    )


def _quoted(text: str) -> str:
    """An argument as a shell reads it."""
    if " " in text and re.fullmatch(r"[\w .,;:'?-]+", text):
        return f'"{text}"'
    return shlex.quote(text)
