"""The arguments of ``fastlstm bench``, and the run from the first row to the files."""

from __future__ import annotations

import math
import sys
import textwrap
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import fastlstm
from fastlstm._core.threads import MOST_THREADS
from fastlstm._io.atomic import check_replaceable, replacing
from fastlstm.bench import cases, limits, measuring, peers, plot, report, results
from fastlstm.bench.compare import compare
from fastlstm.bench.peers import OURS
from fastlstm.bench.worker import EngineError, Worker

_DESCRIPTION = """\
Measure fastlstm on this machine, in float32, and peers beside it: the same weights and input,
prepared beforehand; every engine in a process of its own with its threads set; in turns; results
compared with fastlstm's first. The machine's limits are measured in the same run.

With --weights int8, bfloat16 or float16 (inference only) the layer is what quantize() returns, and
its own float32 layer runs beside it. Of the peers, torch has int8 and float16, onnxruntime int8, by
their quantize_dynamic; the others are left out.
"""

_SETS = "sets:\n" + "\n".join(f"  {name:9} {text}" for name, text in cases.SET_TEXTS.items())

_EXAMPLES = """
examples:
  fastlstm bench                                          every set, 1 thread and all threads
  fastlstm bench --set step,sequence --against torch,onnxruntime
  fastlstm bench --size 2,128,128,1,1 --size train:1,64,128,32,100 --threads 1
  fastlstm bench --set step,sequence --weights int8 --against torch,onnxruntime
  fastlstm bench --set hidden --against torch --plot hidden.svg --json hidden.json
  fastlstm bench compare before.json after.json --tolerance 0.1

L layers, I input size, H hidden units, B batch rows, T time steps. WORK is step (with state,
T = 1), block (with state), infer (from a zero state) or train; default: step if T = 1, else infer.
Exit status: 1 if a peer failed or a row became slower, 2 for wrong arguments or files.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``fastlstm bench`` and its command ``compare``."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.description, parser.epilog = _DESCRIPTION, f"{_SETS}\n{_EXAMPLES}"
    add = parser.add_argument
    add("--set", metavar="NAMES", help="named sets of cases (default all, or none with --size)")
    add("--size", metavar="[WORK:]L,I,H,B,T", action="append", default=[], help="one more case")
    add("--weights", metavar="TYPE", default="float32",
        help=f"{', '.join(cases.WEIGHTS)} (default %(default)s)")  # fmt: skip
    add("--against", metavar="NAMES", default="", help=f"peers: {','.join(peers.PEERS)}")
    add("--threads", metavar="N,N", dest="thread_counts", help="default: 1 and all")
    add("--quick", action="store_true", help="fewer calls: a first impression")
    add("--seconds", metavar="S", type=float, default=measuring.Plan.seconds,
        help="time for each engine and case, at most 2000 calls (default %(default)s)")  # fmt: skip
    add("--json", metavar="FILE", help="save all results")
    add("--markdown", metavar="FILE", help="save the tables")
    add("--plot", metavar="FILE", help="save microseconds against hidden size, .png or .svg")
    commands = parser.add_subparsers(metavar="[compare]", dest="command")
    both = commands.add_parser("compare", help="two results of --json: exit status 1 if slower")
    both.add_argument("before", metavar="A.json")
    both.add_argument("after", metavar="B.json")
    both.add_argument("--tolerance", metavar="X", type=float, default=0.05,
                      help="how much slower a row may be (default %(default)s)")  # fmt: skip


def run(args: Namespace) -> int:
    """Run ``fastlstm bench``; return the exit status."""
    if args.command == "compare":
        return _compare(args)
    chosen = _cases(args)
    against = _names(args.against)
    peers.check(against)
    counts = _thread_counts(args.thread_counts)
    if not 0 < args.seconds < math.inf:
        raise ValueError(f"--seconds: expected more than 0, got {args.seconds}")
    plan = measuring.QUICK if args.quick else measuring.Plan(seconds=args.seconds)
    if args.plot:
        plot.check(args.plot)
    for path in filter(None, (args.json, args.markdown, args.plot)):
        check_replaceable(path)
    found = results.describe(_command(args), against, args.weights)
    status = 0
    try:
        _measure_all(found, chosen, counts, plan)
    except KeyboardInterrupt:
        print("interrupted; what was measured is kept", file=sys.stderr)
        status = 130
    except EngineError as error:
        print(f"fastlstm: {error}", file=sys.stderr)
        status = 1
    if found["rows"]:
        print("\n".join(report.summary(found)))
        _save(found, args)
    return status or int(bool(report.failures(found)))


def _cases(args: Namespace) -> list[cases.Case]:
    names = _names(args.set) if args.set is not None else [] if args.size else ["all"]
    chosen = cases.of_sets(names) + [cases.of_size(text) for text in args.size]
    if not chosen:
        raise ValueError("--set: expected a name, got none")
    return [_with_weights(case, args.weights) for case in dict.fromkeys(chosen)]


def _with_weights(case: cases.Case, weights: str) -> cases.Case:
    if weights not in cases.WEIGHTS:
        raise ValueError(f"--weights: expected one of {', '.join(cases.WEIGHTS)}, got {weights!r}")
    if weights != "float32" and case.work == "train":
        raise ValueError(
            f"--weights {weights}: expected inference, got train:{case.sizes}; choose other cases, "
            "such as --set step,sequence,batch,audio"
        )
    return replace(case, weights_dtype=weights)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _thread_counts(text: str | None) -> list[int]:
    if text is None:
        return sorted({1, fastlstm.get_num_threads()})
    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(counts) < 1 or max(counts) > MOST_THREADS:
        raise ValueError(f"--threads: expected numbers from 1 to {MOST_THREADS}, got {text!r}")
    return list(dict.fromkeys(counts))


def _command(args: Namespace) -> str:
    """The command line that measures the same again, without the names of files."""
    words = ["fastlstm bench"]
    words += [f"--set {args.set}"] if args.set else []
    words += [f"--size {text}" for text in args.size]
    words += [f"--weights {args.weights}"] if args.weights != "float32" else []
    words += [f"--against {args.against}"] if args.against else []
    words += [f"--threads {args.thread_counts}"] if args.thread_counts else []
    words += ["--quick"] if args.quick else []
    words += [f"--seconds {args.seconds:g}"] if args.seconds != measuring.Plan.seconds else []
    return " ".join(words)


def _measure_all(
    found: results.Results, chosen: list[cases.Case], counts: list[int], plan: measuring.Plan
) -> None:
    """Fill in `limits` and `rows`, and print each row when it is there."""
    table = report.Table(found["peers"], found["weights"])
    with _progress(len(chosen) * len(counts)) as progress:
        for line in report.heading(found):
            progress.write(textwrap.fill(line, 100))
        for threads in counts:
            with ExitStack() as stack:
                workers = {
                    name: stack.enter_context(closing(Worker(name, threads)))
                    for name in results.engines(found)
                }
                found["limits"].append(_limits(workers[OURS], threads))
                for line in ["", report.limit_line(found["limits"][-1]), *table.head(threads)]:
                    progress.write(line)
                rows = []
                for case in chosen:
                    progress.show(f"{case.work} {case.sizes}, {threads} threads")
                    rows.append(measuring.measure(case, threads, workers, plan))
                    found["rows"].append(rows[-1])
                    progress.write(table.row(rows[-1]))
                for line in table.latencies(rows):
                    progress.write(line)


def _limits(worker: Worker, threads: int) -> dict[str, Any]:
    rates = {
        kind: round(max(worker.limit(kind, threads) for _ in range(3)))
        for kind in (*limits.LEVELS, "fma")
    }
    return {"threads": threads, "fma": rates.pop("fma"), "read": rates}


class _Progress:
    """Lines on standard output, and on a terminal a bar below them."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def write(self, line: str) -> None:
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.write(line)

    def show(self, text: str) -> None:
        if self._bar is not None:
            self._bar.set_description_str(text)
            self._bar.update()


@contextmanager
def _progress(total: int) -> Iterator[_Progress]:
    if not sys.stderr.isatty():
        yield _Progress(None)
        return
    from tqdm import tqdm

    form = "{n_fmt}/{total_fmt} |{bar}| {desc} [{elapsed}]"
    with tqdm(total=total, bar_format=form, dynamic_ncols=True, leave=False) as bar:
        yield _Progress(bar)


def _save(found: results.Results, args: Namespace) -> None:
    if args.json:
        results.save(found, args.json)
    if args.markdown:
        with replacing(args.markdown) as file:
            file.write(report.markdown(found).encode())
    if args.plot:
        plot.save(found, args.plot)


def _compare(args: Namespace) -> int:
    if not args.tolerance >= 0:
        raise ValueError(f"--tolerance: expected at least 0, got {args.tolerance}")
    lines, slower = compare(results.load(args.before), results.load(args.after), args.tolerance)
    print("\n".join(lines))
    return 1 if slower else 0
