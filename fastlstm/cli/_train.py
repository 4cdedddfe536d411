"""What the command train does, in one process or in several."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from argparse import Namespace
from typing import Any

from fastlstm import distributed
from fastlstm._io.atomic import check_replaceable
from fastlstm.cli._commands import describe, fit, naming_options, sum_up
from fastlstm.cli._files import check_not_read, read_text, same_file, source_name
from fastlstm.models import LanguageModel
from fastlstm.training._together import on_rank_0

_SHORTEST = 20  # characters: the last tenth has two then, and something can be predicted


def train(args: Namespace) -> int:
    """Train on a file and save the model; the exit status, of a signal too."""
    group = args.group = _group(args)
    with contextlib.ExitStack() as stack:
        if group.rank > 0:  # one process prints
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        text, model = on_rank_0(group, lambda: _prepare(args))
        held_out = int(len(text) * args.held_out)
        describe(model, source_name(args.file), len(text) - held_out, held_out)
        goes_on = _how_to_go_on(args)
        try:
            history = fit(
                model,
                text,
                args.output if group.rank == 0 else None,
                goes_on,
                **_options(args),
                group=group if args.distributed else None,
            )
        except SystemExit as stop:
            status = int(str(stop))
            print(f"stopped by {signal.Signals(status - 128).name}{goes_on}", flush=True)
            group.vote(None, 0)  # a launcher may end all processes as soon as one has ended
            return status
        sum_up(history, history.records[-1].held_out_bits)
        return 0


def _group(args: Namespace) -> distributed.Group:
    """The processes that train."""
    if args.distributed is None:
        return distributed.alone()
    if args.shards is None:
        raise ValueError("--shards: expected a power of two with --distributed, got none")
    try:
        group: distributed.Group = getattr(distributed, args.distributed)(timeout=args.timeout)
    except RuntimeError as error:
        raise ValueError(f"--distributed: {error}") from None
    return group


def _prepare(args: Namespace) -> tuple[str, LanguageModel]:
    """The text, and the model as it begins."""
    check_replaceable(args.output)
    text = _read_text(args.file, args.output)
    _check_checkpoint(args)
    if args.dropout and args.layers == 1:
        print("fastlstm: --dropout: no effect with one layer, it acts between layers",
              file=sys.stderr)  # fmt: skip
    with naming_options():
        model = LanguageModel(
            text,
            embedding_size=args.embedding,
            hidden_size=args.hidden,
            num_layers=args.layers,
            dropout=args.dropout if args.layers > 1 else 0.0,
            seed=args.seed,
        )
    return text, model


def _options(args: Namespace) -> dict[str, Any]:
    """Arguments of `LanguageModel.fit`."""
    by_time = args.epochs is None and args.steps is None
    return {
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
        "shards": args.shards,
    }


def _how_to_go_on(args: Namespace) -> str:
    """The end of a line that says that training was stopped."""
    if args.checkpoint is None:
        return ""
    command = "the same command" if args.resume else "the same command with --resume auto"
    return f"; the training is saved as {args.checkpoint}, {command} goes on"


def _read_text(path: str, output: str) -> str:
    """The text of a file, which is not the one to write, or of standard input."""
    check_not_read(output, path, "the text")
    text = read_text(path)
    if len(text) < _SHORTEST:
        raise ValueError(
            f"{source_name(path)}: expected at least {_SHORTEST} characters, got {len(text)}"
        )
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
        if path is not None and same_file(path, other):
            raise ValueError(f"--checkpoint: expected another file than that of {what}, got {path}")
