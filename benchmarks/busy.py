"""How threads behave where other processes use the processors, too.

    python benchmarks/busy.py
    python benchmarks/busy.py --set train,blocks --busy 0,2 --rounds 3 --seconds 0.5
    python benchmarks/busy.py --against /path/to/another/bin/python

The script makes the load itself: 0, 1 and 2 processes that do nothing but count.  Beside them it
measures fastlstm with one thread, fastlstm with its default threads, torch with its own, and with
--against another installed version of fastlstm with its default threads ("other"): each in a
process of its own, in turns, another one first in every round.  Medians are over the rounds.

sets:
  train   training steps: forward, backward, Adam; 2 layers of 64, 32 rows of 100 steps
  batch   inference, 2 layers of 128, 32 rows of 100 steps
  row     inference, 256 units, one row of 100 steps: threads meet after each step
  big     inference, 512 units, 64 rows of 50 steps
  blocks  audio: 64 steps of 80 units, one channel, a block every 1.333 ms
  every   a short training step and a short inference every 20 ms, asleep in between
  grid    GridSearchCV, 12 fits, default threads: n_jobs=2 beside n_jobs=1
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from busy_children import Worker, busy_processes, sets_threads

from fastlstm._core import processors
from fastlstm._io.atomic import check_replaceable
from fastlstm.bench import report, results
from fastlstm.bench.cli import _names, _progress
from fastlstm.bench.worker import EngineError

ONE, DEFAULT, TORCH, OTHER = "1 thread", "default", "torch", "other"
JOBS = {"n_jobs=1": 1, "n_jobs=2": 2}
MORE_MISSES = 0.001  # of the blocks: how many more than one thread the default may have


@dataclass(frozen=True)
class Scenario:
    """What is called, and how often.

    Attributes
    ----------
    parts : tuple
        Kinds of work with their sizes: L, I, H, B, T.
    period : float
        Seconds from one call to the next, or 0: at once.
    lines : dict
        Lines of the table below that of the medians: titles, and names of statistics.
    limit : float
        The target: how many times the time of one thread the default may take.
    """

    parts: tuple[tuple[Any, ...], ...]
    period: float = 0.0
    lines: tuple[tuple[str, str], ...] = ()
    limit: float = 1.3


SHARES = (("99%", "p99_ms"), ("99.9%", "p999_ms"), ("over", "over"), ("late", "late"))
SCENARIOS = {
    "train": Scenario((("update", 2, 64, 64, 32, 100),)),
    "batch": Scenario((("infer", 2, 128, 128, 32, 100),)),
    "row": Scenario((("infer", 1, 256, 256, 1, 100),)),
    "big": Scenario((("infer", 1, 512, 512, 64, 50),)),
    "blocks": Scenario((("block", 1, 1, 80, 1, 64),), 64 / 48000, SHARES),
    "every": Scenario(
        (("update", 1, 32, 64, 32, 20), ("infer", 1, 128, 128, 32, 20)),
        0.02,
        (("processors", "processors"),),
    ),
    "grid": Scenario((("grid", 12),), limit=1.0),
}
LEGEND = """\
Median milliseconds of a call.  others: processors that other processes used just before, which
should be 0.  x: how many times as long the default takes as one thread (n_jobs=2 as n_jobs=1) and
as torch; mean: of the mean times.  over: share of the blocks whose call takes longer than
1.333 ms; late: of those that are not done 1.333 ms after their time, which counts the waking of the
process, too.  processors: processor time by time, the sleep between calls included.
*: above its target.  The default takes at most 1.3 times as long as one thread beside the same
load, and never longer than torch; of the blocks at most 0.1% more are over than with one thread;
n_jobs=2 takes no longer than n_jobs=1."""


def start(name: str, stack: ExitStack, torch: bool, against: str | None) -> dict[str, Worker]:
    """The processes that a set compares, by the titles of their columns.

    Raises
    ------
    EngineError
        One of them could not be started, or does not compute what the others do.
    """
    parts, python = SCENARIOS[name].parts, sys.executable
    chosen: dict[str, tuple[str, str, Any, dict[str, str]]]
    if name == "grid":
        chosen = {title: (python, "fastlstm", [["grid", n, 12]], {}) for title, n in JOBS.items()}
        if against:
            chosen[f"{OTHER}, 2"] = (against, "fastlstm", [["grid", 2, 12]], {})
    else:
        one = {"FASTLSTM_NUM_THREADS": "1"}
        chosen = {ONE: (python, "fastlstm", parts, one), DEFAULT: (python, "fastlstm", parts, {})}
        if torch:
            chosen[TORCH] = (python, "torch", parts, {})
        if against:
            chosen[OTHER] = (against, "fastlstm", parts, {})
    workers: dict[str, Worker] = {}
    for title, (path, engine, what, settings) in chosen.items():
        workers[title] = stack.enter_context(closing(Worker(title, path, engine, what, settings)))
        first = next(iter(workers.values())).about["first"]
        if not np.allclose(workers[title].about["first"], first, rtol=1e-3):
            raise EngineError(f"{title}: other results than those of fastlstm")
    return workers


def statistics(turns: list[dict[str, Any]], period: float) -> dict[str, Any]:
    """Of a worker's turns: medians over them; percentiles and counts of all calls."""
    times = [np.array(turn["ms"]) for turn in turns]
    every = np.concatenate(times)
    found = {
        "median_ms": np.median([np.median(ms) for ms in times]),
        "mean_ms": np.median([ms.mean() for ms in times]),
        "p99_ms": np.percentile(every, 99),
        "p999_ms": np.percentile(every, 99.9),
        "processors": np.median([turn["processors"] for turn in turns]),
    }
    counts: dict[str, Any] = {"calls": every.size}
    if period:
        counts["over"] = int((every > 1000 * period).sum())
        counts["late"] = sum(turn["late"] for turn in turns)
    return {name: round(float(value), 6) for name, value in found.items()} | counts


def used_now(seconds: float = 0.3) -> float | None:
    """Processors in use, or None where the system does not say."""

    def used() -> int:
        user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().split()[1:9]
        return sum(map(int, (user, nice, system, *interrupts)))

    if not os.path.exists("/proc/stat"):
        return None
    before, start = used(), time.perf_counter()
    time.sleep(seconds)
    ticks = os.sysconf("SC_CLK_TCK") * (time.perf_counter() - start)
    return round((used() - before) / ticks, 3)


def measure(
    name: str, busy: int, workers: dict[str, Worker], args: argparse.Namespace, progress: Any
) -> dict[str, Any]:
    """A row of the results: a set beside so many busy processes."""
    period, titles = SCENARIOS[name].period, list(workers)
    seconds = 0.0 if name == "grid" else args.seconds  # of a search at once, not so long
    turns: dict[str, list[dict[str, Any]]] = {title: [] for title in titles}
    others = used_now()  # the workers sleep
    with busy_processes(busy):
        for number in range(args.rounds):
            progress.show(f"{name}, {busy} busy, round {number + 1}")
            first = number % len(titles)
            for title in titles[first:] + titles[:first]:
                turns[title].append(workers[title].turn(seconds, min(seconds, 0.1), period))
    engines = {title: statistics(turns[title], period) for title in titles}
    return {"set": name, "busy": busy, "others": others, "engines": engines}


def ratio(row: dict[str, Any], other: str, statistic: str = "median_ms") -> float:
    """How many times the value of another column the second one has: the default, or n_jobs=2."""
    engines = row["engines"]
    return float(engines[list(engines)[1]][statistic] / engines[other][statistic])


def above(row: dict[str, Any]) -> list[str]:
    """The targets that a row does not reach."""
    engines, found = row["engines"], []
    base, ours = list(engines)[:2]
    if ratio(row, base) > SCENARIOS[row["set"]].limit:
        found.append(base)
    if TORCH in engines and ratio(row, TORCH) > 1:
        found.append(TORCH)
    if row["set"] == "blocks":
        least, share = (engines[title]["over"] / engines[title]["calls"] for title in (base, ours))
        if share > least + MORE_MISSES:
            found.append("over")
    return found


def head(titles: list[str]) -> list[str]:
    """The line above the rows that have these columns, and one below it."""
    line = f"{'':16}{'busy':>5}{'others':>7}" + "".join(f"{title:>10}" for title in titles)
    line += f"{'x ' + titles[0]:>12}{'mean':>9}" + (f"{'x torch':>9}" if TORCH in titles else "")
    return ["", line, "-" * len(line)]


def lines(row: dict[str, Any]) -> Iterator[str]:
    """A row of the results: its medians, and what else its set has."""
    engines, missed = row["engines"], above(row)
    base, ours = list(engines)[:2]
    for title, statistic in (("", "median_ms"), *SCENARIOS[row["set"]].lines):
        line = f"{row['set'] + ' ' + title:16}{row['busy']:5}{report.number(row['others']):>7}"
        for name, values in engines.items():
            text = report.number(values[statistic])
            if statistic in ("over", "late"):
                text = f"{values[statistic] / values['calls']:.2%}"
            line += f"{text + '*' * (name == ours and statistic in missed):>10}"
        if statistic == "median_ms":
            line += f"{report.times(ratio(row, base)) + '*' * (base in missed):>12}"
            line += f"{report.times(ratio(row, base, 'mean_ms')):>9}"
            if TORCH in engines:
                line += f"{report.times(ratio(row, TORCH)) + '*' * (TORCH in missed):>9}"
        yield line


def heading(found: dict[str, Any]) -> list[str]:
    """When, where and with which settings."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(("OMP_", "GOMP_", "FASTLSTM_"))}
    settings = [f"{name}={value}" for name, value in kept.items() if not sets_threads(name)]
    system = f"{platform.system()} {platform.release()}, {processors.CORES} cores"
    return [*report.heading(found), ", ".join([system, *settings])]


def measure_all(found: dict[str, Any], args: argparse.Namespace) -> None:
    """Fill in the rows, and print them when they are there."""
    titles: list[str] = []
    with _progress(len(args.set) * len(args.busy) * args.rounds) as progress:
        for line in heading(found):
            progress.write(line)
        for name in args.set:
            with ExitStack() as stack:
                workers = start(name, stack, args.torch, args.against)
                for title, worker in workers.items():
                    said = {k: v for k, v in worker.about.items() if k != "first"}
                    if title not in found["engines"]:
                        found["engines"][title] = said
                        words = f"{title}: version {said['version']}, threads: {said['threads']}"
                        progress.write(words)
                if list(workers) != titles:
                    titles = list(workers)
                    for line in head(titles):
                        progress.write(line)
                for busy in args.busy:
                    row = measure(name, busy, workers, args, progress)
                    found["rows"].append(row | {"above": above(row)})
                    for line in lines(row):
                        progress.write(line)


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    most = [name for name in SCENARIOS if name != "grid"]
    parser.add_argument("--set", default=",".join(most), help="default: all but grid; or all")
    parser.add_argument("--busy", default="0,1,2", help="numbers of busy processes: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.8,
        help="of a turn (%(default)s, so 3,000 blocks in all); of grid, a turn is one search",
    )
    parser.add_argument(
        "--against", metavar="PYTHON", help="that has another fastlstm, with its bench.peers"
    )
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="fastlstm alone")
    parser.add_argument("--json", metavar="FILE", help="save all results")
    args = parser.parse_args()
    args.set = list(SCENARIOS) if args.set == "all" else _names(args.set)
    if not args.set or not set(args.set) <= set(SCENARIOS):
        parser.error(f"--set: expected some of {', '.join(SCENARIOS)}, or all")
    counts = _names(args.busy)
    if not counts or not all(text.isdecimal() for text in counts):
        parser.error(f"--busy: expected numbers from 0, got {args.busy!r}")
    args.busy = [int(text) for text in counts]
    if args.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {args.rounds}")
    if not 0 < args.seconds <= 3600:
        parser.error(f"--seconds: expected from above 0 to 3600, got {args.seconds:g}")
    if args.against and not shutil.which(args.against):
        parser.error(f"--against: expected a Python interpreter, got {args.against!r}")
    args.torch = args.torch and importlib.util.find_spec("torch") is not None
    if "grid" in args.set and importlib.util.find_spec("sklearn") is None:
        parser.error("--set grid: not installed: scikit-learn (pip install scikit-learn)")
    try:
        if args.json:
            check_replaceable(args.json)
    except OSError as error:
        parser.error(str(error))
    return args


def main() -> int:
    """Measure, print the tables and save; return the exit status."""
    args = arguments()
    command = f"python benchmarks/busy.py --set {','.join(args.set)} --busy "
    command += f"{','.join(map(str, args.busy))} --rounds {args.rounds} --seconds {args.seconds:g}"
    found = results.describe(command, [TORCH] if args.torch else []) | {"engines": {}}
    status = 0
    try:
        measure_all(found, args)
    except KeyboardInterrupt:
        print("interrupted; what was measured is kept", file=sys.stderr)
        status = 130
    except EngineError as error:
        print(f"busy: {error}", file=sys.stderr)
        status = 1
    if found["rows"]:
        print(f"\n{LEGEND}")
    if args.json:
        results.save(found, args.json)
    return status


if __name__ == "__main__":
    sys.exit(main())
