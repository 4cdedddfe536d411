"""The command line: arguments, exit status and messages.  `_commands` does the work."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import fastlstm
from fastlstm._core.threads import MOST_THREADS
from fastlstm._layers.config import WEIGHT_TYPES
from fastlstm.cli import _commands, _demo, _demo_text, _look, _train
from fastlstm.training._checkpoint import STEPS_BETWEEN

_EXAMPLES = """\
examples:
  fastlstm demo                                  two minutes: train, write, count
  fastlstm train book.txt -o book.safetensors    a model of your own text
  fastlstm train book.txt -o book.safetensors --steps 50000 --checkpoint run --resume auto
                                                 the same again goes on where it was stopped
  fastlstm generate book.safetensors --prompt "It was" -n 300
  fastlstm look book.safetensors "It was" -o look.html
                                                 see in a browser what its gates do
  fastlstm quantize book.safetensors -o small    a quarter of the bytes, and faster
  fastlstm info                                  what a bug report needs
  fastlstm info --plan 2,256,256,32,100          and how such an LSTM would run

Ctrl-C ends training early and keeps what was learned.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: the arguments of the process.

    Returns
    -------
    int
        The exit status.  0: done; 2: wrong arguments or files, with one line on standard
        error; 130: Ctrl-C outside of training, or twice; 141: the reader of the output went away;
        128 and its number: the signal that stopped training after it was saved.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = argparse.Namespace(group=None)
    try:
        _parser(arguments).parse_args(arguments, args)
        if getattr(args, "threads", None):
            fastlstm.set_num_threads(args.threads)
        status = args.run(args)
        sys.stdout.flush()
        return int(status or 0)
    except BrokenPipeError:
        # What is still to be written has no reader: at exit, Python would complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _failed(args, 141)
    except KeyboardInterrupt:
        return _failed(args, 130, "interrupted")
    except MemoryError as error:
        what = f": {_one_line(error)}" if str(error) else ""
        advice = f"; lower {args.lower}" if "lower" in args else ""
        return _failed(args, 2, f"not enough memory{what}{advice}")
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        return _failed(args, 2, _one_line(error))
    except Exception as error:
        if args.group is None or args.group.size == 1:
            raise
        # One process tells the error of another; what is an error of our own has its traceback.
        if not isinstance(error, RuntimeError):
            traceback.print_exc()
        return _failed(args, 2, _one_line(error) if args.group.rank == 0 else "")


def _failed(args: argparse.Namespace, status: int, text: str = "") -> int:
    """Tell an error, and let no other process wait for this one."""
    group = args.group
    if group is not None and group.rank:
        time.sleep(1)  # what all have is told by process 0, which ends this one
    if text:
        who = f"rank {group.rank}: " if group is not None and group.rank else ""
        print(f"fastlstm: {who}{text}", file=sys.stderr)
    if group is not None and group.size > 1:
        group.abort(status)
    return status


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastlstm",
        description="LSTMs on the CPU: train a language model of characters and let it write.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastlstm {fastlstm.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_train(commands)
    _add_generate(commands)
    _add_look(commands)
    _add_quantize(commands)
    info = commands.add_parser("info", help="versions, CPU, instruction set, threads, caches")
    info.add_argument(
        "--plan",
        type=_sizes,
        metavar="L,I,H,B,T",
        help="also how an LSTM would run: layers, input size, hidden units, rows, steps",
    )
    info.set_defaults(run=_commands.info)
    if importlib.util.find_spec("fastlstm.bench"):
        bench = commands.add_parser("bench", help="measure this machine, and peers beside it")
        if arguments[:1] == ["bench"]:
            module = importlib.import_module("fastlstm.bench.cli")
            module.add_arguments(bench)
            bench.set_defaults(run=module.run)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="two minutes: train on stories, write, count what is remembered",
        description="Train a language model of characters (embedding 32, LSTM 128) on stories "
        "of a small grammar, let it write, and count how far back it remembers who is a he, a she "
        "or an it, beside a plain RNN that reads the same. The model is saved. All this takes "
        "about two minutes on two cores; Ctrl-C ends the training early and goes on to the "
        "writing.",
    )
    _add(demo, "--seconds", _duration, 75.0, "training time of the LSTM")
    demo.add_argument(
        "--corpus",
        choices=_demo_text.NAMES,
        default="stories",
        help="stories: those of the grammar; the others are English text that comes with Python, "
        "for a model of embedding 64, LSTM 256 without a count. topics: the language "
        "reference that Python's help() shows, pydoc_data.topics; "
        "library: also the docstrings of the standard library; the last tenth of topics is held "
        "out in both (default %(default)s)",
    )
    demo.add_argument(
        "--prompt", action="append", help="text to go on from; may be given more than once"
    )
    demo.add_argument(
        "--save",
        metavar="M",
        default="fastlstm-demo.safetensors",
        help="save the model as M; a file that is there has to be a language model, and is "
        "replaced (default %(default)s)",
    )
    _add_seed_and_threads(demo)
    demo.set_defaults(run=_demo.demo)


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train on a text file",
        description="Train a language model of characters on a text file. Ctrl-C ends the "
        "training early and saves the model, a second one without measuring it. A file that exists "
        "is replaced only when the new one is complete. With --checkpoint RUN --resume auto, "
        "training that was stopped, be it by Ctrl-C, SIGTERM, SIGUSR1 or a loss of power, goes on "
        "when the same command runs again, and ends with the model it would have had. With "
        "--shards S --distributed mpi, all processes of mpiexec -n P fastlstm train ... train "
        "together, and make the same file for any number P.",
        epilog="example: fastlstm train book.txt -o book.safetensors --seconds 300",
    )
    train.add_argument("file", metavar="FILE", help="text in UTF-8; -: standard input")
    train.add_argument(
        "-o", "--output", metavar="M", required=True, help="save the model as M, .safetensors"
    )
    length = train.add_mutually_exclusive_group()
    _add(length, "--seconds", _duration, 60.0, "training time")
    length.add_argument("--epochs", type=_duration, help="instead: how often to read the text")
    length.add_argument("--steps", type=_count, help="instead: how many updates of the weights")
    _add(train, "--hidden", _count, 256, "hidden units of an LSTM layer")
    _add(train, "--layers", _count, 1, "LSTM layers")
    _add(train, "--embedding", _count, 64, "size of the embedding")
    _add(train, "--dropout", _rate, 0.0, "rate of dropout between LSTM layers")
    _add(train, "--batch-size", _count, 32, "places of the text read at the same time")
    _add(train, "--chunk", _count, 64, "characters from each place in a step")
    _add(train, "--lr", _duration, 0.003, "learning rate at the start; it falls to 0")
    _add(train, "--held-out", _part, 0.1, "part at the end of the text to measure on")
    _add_checkpoint(train)
    _add_processes(train)
    _add_seed_and_threads(train)
    lower = "--batch-size, --chunk, --hidden, --embedding or --layers"
    train.set_defaults(run=_train.train, lower=lower)


def _add_checkpoint(train: Any) -> None:
    train.add_argument(
        "--checkpoint",
        metavar="RUN",
        help="save the training itself as RUN, from which it can go on: every so many steps, at "
        "the end, and when Ctrl-C, SIGTERM or SIGUSR1 stops it",
    )
    train.add_argument(
        "--checkpoint-every",
        type=_count,
        metavar="N",
        help=f"steps from one checkpoint to the next (default {STEPS_BETWEEN})",
    )
    train.add_argument(
        "--resume",
        choices=["auto", "yes"],
        help="go on from RUN; auto: if there is such a file (default: begin, and replace it)",
    )


def _add_processes(train: Any) -> None:
    train.add_argument(
        "--shards",
        type=_count,
        metavar="S",
        help="parts of the places read at the same time, a power of two; their gradients are added "
        "in an order that does not depend on processes",
    )
    train.add_argument(
        "--distributed",
        choices=["mpi", "torch"],
        help="train in all processes that mpiexec started, by mpi4py, or torchrun; needs --shards",
    )
    train.add_argument(
        "--timeout",
        type=_duration,
        default=600.0,
        metavar="SECONDS",
        help="how long a process waits for the others, each time: process 0 alone measures and "
        "saves (default %(default)s)",
    )


def _add_generate(commands: Any) -> None:
    generate = commands.add_parser(
        "generate",
        help="write text with a trained model",
        description="Write text, character by character, with a language model that fastlstm train "
        "or fastlstm demo has saved. The prompt is printed before it.",
        epilog=f'example: fastlstm generate book.safetensors --prompt "{_commands.PROMPT}" -n 300',
    )
    generate.add_argument("model", metavar="M", help="a model that fastlstm saved")
    generate.add_argument("--prompt", help="text to go on from (default: the start of a line)")
    _add(generate, "-n", _natural, 500, "how many characters to write")
    _add(
        generate,
        "--temperature",
        _temperature,
        1.0,
        "below 1: keep to likely text; 0: the likeliest",
    )
    _add_seed_and_threads(generate)
    generate.set_defaults(run=_commands.generate)


def _add_look(commands: Any) -> None:
    look = commands.add_parser(
        "look",
        help="see in a browser what the gates of a model do",
        description="Write a page that shows what a language model does while it reads TEXT, or a "
        "layer while it reads a series of numbers: every gate and state at every step, units "
        "that are on in a stretch, what comes next, what mattered. One file, which needs no "
        "network.",
        epilog='example: fastlstm look book.safetensors "It was a dark night." -o look.html',
    )
    look.add_argument(
        "model", metavar="MODEL", help="a language model, LSTM, GRU or RNN that fastlstm saved"
    )
    look.add_argument("text", metavar="TEXT", nargs="?", help="what a language model reads")
    look.add_argument(
        "--file",
        metavar="F",
        help="instead of TEXT: a file of text in UTF-8, -: standard input; for a layer a .npy "
        "(T, I), or a .csv with a line for each step",
    )
    look.add_argument(
        "-o", "--output", metavar="PAGE", default="look.html", help="(default %(default)s)"
    )
    look.add_argument("--unit", type=_natural, metavar="N", help="the unit to begin with")
    look.add_argument(
        "--why",
        type=_natural,
        action="append",
        metavar="N",
        help="a place, from 0, whose gradients are followed to the very first step; may be "
        "given more than once (default: all places, 64 steps back)",
    )
    look.set_defaults(run=_look.look)


def _add_quantize(commands: Any) -> None:
    quantize = commands.add_parser(
        "quantize",
        help="give a saved model weights of 8 or 16 bits",
        description="Save a model or a layer again, with weights that take fewer bytes: of an LSTM "
        "of float32, a quarter or half as many. It is for inference and cannot be trained; it is "
        "loaded and used as before. A file that exists, be it MODEL itself, is replaced only when "
        "the new one is complete.",
        epilog="example: fastlstm quantize book.safetensors -o small.safetensors",
    )
    quantize.add_argument(
        "model", metavar="MODEL", help="a language model, LSTM, GRU or RNN that fastlstm saved"
    )
    quantize.add_argument(
        "-o", "--output", metavar="SMALL", required=True, help="save it as SMALL, .safetensors"
    )
    quantize.add_argument(
        "--weights",
        choices=sorted(WEIGHT_TYPES[1:], reverse=True),
        default="int8",
        help="how each weight is stored: in 8 bits, with a scale for each row of a matrix, or in "
        "16, rounded to nearest (default %(default)s)",
    )
    quantize.set_defaults(run=_commands.quantize)


def _add(parser: Any, name: str, kind: Any, default: Any, text: str) -> None:
    text += " (default %(default)s)"
    parser.add_argument(name, type=kind, default=default, metavar="N", help=text)


def _add_seed_and_threads(parser: Any) -> None:
    parser.add_argument("--seed", type=_natural, metavar="N", help="make random choices repeatable")
    parser.add_argument("--threads", type=_threads, metavar="N", help="threads of the LSTM")


def _count(text: str, least: int = 1) -> int:
    value = int(text) if text.isdecimal() else -1
    if value < least:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of at least {least}, got {text!r}"
        )
    return value


def _sizes(text: str) -> list[int]:
    sizes = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if len(sizes) != 5 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(
            f"expected five whole numbers of at least 1, L,I,H,B,T, got {text!r}"
        )
    return sizes


def _natural(text: str) -> int:
    return _count(text, least=0)


def _threads(text: str) -> int:
    value = _count(text)
    if value > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_THREADS}, got {value}")
    return value


def _number(text: str, expected: str, good: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not good(value):
        raise argparse.ArgumentTypeError(f"expected a number {expected}, got {text!r}")
    return value


def _duration(text: str) -> float:
    return _number(text, "above 0", lambda value: 0 < value < math.inf)


def _temperature(text: str) -> float:
    return _number(text, "of at least 0", lambda value: 0 <= value < math.inf)


def _rate(text: str) -> float:
    return _number(text, "from 0 to 1", lambda value: 0 <= value <= 1)


def _part(text: str) -> float:
    return _number(text, "from 0 to less than 1", lambda value: 0 <= value < 1)
