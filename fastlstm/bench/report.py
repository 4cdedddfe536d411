"""Tables of results: for a terminal of 100 columns, and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fastlstm.bench import limits
from fastlstm.bench.cases import of_row
from fastlstm.bench.peers import ENGINES, OURS, label
from fastlstm.bench.results import (
    Results,
    Row,
    engines,
    gain,
    median,
    speedup,
    thread_counts,
)

_LEGEND = """\
Median microseconds of a call from Python. +-: half of the quartile range. x best: how many times
faster than the fastest peer. FMA: share of the measured multiply-add peak. floor: share of what
reading the weights (and projecting a sequence) must take, one row only."""

_LEGEND_OF_FEWER_BITS = """\
Median microseconds of a call from Python. +-: half of the quartile range. x f32: how many times
faster than fastlstm's own layer of float32. x best: than the fastest peer with such weights.
floor: share of what reading these weights (and projecting a sequence) must take, one row only.
No share of the multiply-add peak: that is a rate of float32."""


def number(us: float | None) -> str:
    """Microseconds with about three digits."""
    if us is None:
        return "-"
    digits = 2 if us < 10 else 1 if us < 1000 else 0
    return f"{us:,.{digits}f}"


def percent(share: float | None) -> str:
    """A share as a whole percentage."""
    return "-" if share is None else f"{share:.0%}"


def times(value: float | None) -> str:
    """A ratio."""
    return "-" if value is None else f"{value:.{0 if value >= 100 else 2}f}x"


def spread(row: Row) -> str:
    """Half of the distance between the quartiles, relative to the median."""
    ours = row["engines"][OURS]
    if not ours["median_us"]:
        return "-"
    return percent((ours["q3_us"] - ours["q1_us"]) / 2 / ours["median_us"])


_Column = tuple[str, int, Callable[[Row], str]]  # title, width, text


class Table:
    """Lines for a terminal, made row by row while the measuring goes on."""

    def __init__(self, peers: list[str], weights: str = "float32") -> None:
        self._engines = engines({"peers": peers, "weights": weights})
        self._labels = {name: label(name, weights) for name in self._engines}

        def cell(name: str) -> Callable[[Row], str]:
            return lambda row: number(median(row, name))

        whole = weights == "float32"
        columns = [(text, max(8, len(text)), cell(name)) for name, text in self._labels.items()]
        rates: list[_Column] = [
            ("GFLOP/s", 7, lambda row: f"{row['gflops']:.1f}"),
            ("FMA", 4, lambda row: percent(row["fma_share"])),
        ]
        self._columns: list[_Column] = [
            ("work", -5, lambda row: row["work"]),
            ("L,I,H,B,T", -17, lambda row: of_row(row).sizes),
            *columns[:1],
            ("+-", 4, spread),
            *columns[1:],
            *([] if whole else [("x f32", 6, lambda row: times(gain(row)))]),
            *([("x best", 6, lambda row: times(speedup(row)))] if peers else []),
            *(rates if whole else []),
            ("floor", 5, lambda row: percent(row.get("floor_share"))),
        ]

    def head(self, threads: int) -> list[str]:
        """The lines above the rows of a number of threads."""
        titles = _join((title, width) for title, width, _ in self._columns)
        return [f"{threads} thread{'s' * (threads > 1)}", titles, "-" * len(titles)]

    def row(self, row: Row) -> str:
        """The line of a row."""
        return _join((text(row), width) for _, width, text in self._columns)

    def latencies(self, rows: list[Row]) -> list[str]:
        """The high percentiles of single steps."""
        rows = [row for row in rows if row["steps"] == 1]
        if not rows:
            return []
        widths = {name: max(15, len(text)) for name, text in self._labels.items()}
        lines = ["", "single steps, microseconds: 99% / 99.9% of the calls take at most"]
        titles = ((self._labels[name], width) for name, width in widths.items())
        lines.append(_join([("", -17), *titles]))
        for row in rows:
            texts = ((_percentiles(row, name), width) for name, width in widths.items())
            lines.append(_join([(of_row(row).sizes, -17), *texts]))
        return lines


def _join(cells: Iterator[tuple[str, int]] | list[tuple[str, int]]) -> str:
    """Cells side by side, those of negative width to the left."""
    return " ".join(t.ljust(-w) if w < 0 else t.rjust(w) for t, w in cells).rstrip()


def _percentiles(row: Row, name: str) -> str:
    values = row["engines"].get(name, {})
    return f"{number(values.get('p99_us'))} / {number(values.get('p999_us'))}"


def heading(results: Results) -> list[str]:
    """When and where it was measured, and what."""
    machine, versions = results["machine"], results["versions"]
    named = ", ".join(f"{name} {text}" for name, text in versions.items() if name != "compiler")
    lines = [
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['isa']}, {results['date'][:10]}",
        f"{named}; {versions['compiler']}",
    ]
    if results["left_out"]:
        names = ", ".join(ENGINES[name].label for name in results["left_out"])
        lines.append(f"left out, as they have no weights of {results['weights']}: {names}")
    return lines


def limit_line(limit: Row) -> str:
    """The limits that were measured with a number of threads."""
    reads = ", ".join(f"{level} {limit['read'][level] / 1e9:,.0f}" for level in limits.LEVELS)
    n = limit["threads"]
    return (
        f"limits with {n} thread{'s' * (n > 1)}: {limit['fma'] / 1e9:,.0f} GFLOP/s float32; "
        f"reads in GB/s: {reads}"
    )


def summary(results: Results) -> list[str]:
    """The meaning of the columns, what failed, and the mean ratio to the best peers."""
    legend = _LEGEND if results["weights"] == "float32" else _LEGEND_OF_FEWER_BITS
    lines = ["", *legend.splitlines()]
    for threads in thread_counts(results):
        for than, ratio in (("its own float32", gain), ("the best peer", speedup)):
            ratios = [s for row in _rows(results, threads) if (s := ratio(row)) is not None]
            if ratios:
                mean = float(np.exp(np.mean(np.log(ratios))))
                lines.append(
                    f"threads {threads}: {times(mean)} {than} in the geometric mean of "
                    f"{len(ratios)} rows, {times(min(ratios))} at least, "
                    f"{sum(ratio < 1 for ratio in ratios)} lost"
                )
    return lines + [f"failed: {text}" for text in failures(results)]


def failures(results: Results) -> list[str]:
    """What went wrong with peers."""
    return [
        f"{of_row(row).sizes}, {row['threads']} threads: {times['error']}"
        for row in results["rows"]
        for times in row["engines"].values()
        if "error" in times
    ]


def _rows(results: Results, threads: int) -> list[Row]:
    return [row for row in results["rows"] if row["threads"] == threads]


def markdown(results: Results) -> str:
    """The results as Markdown: a table for each number of threads, the fastest in bold."""
    names, weights = engines(results), results["weights"]
    lines = [f"- {line}" for line in heading(results)]
    lines += [f"- {limit_line(limit)}" for limit in results["limits"]]
    lines += [f"- command: `{results['command']}`", ""]
    ours, *others = (label(name, weights) for name in names)
    titles = ["work", "L, I, H, B, T", ours, "+-", *others]
    if weights == "float32":
        titles += ["best peer / fastlstm", "GFLOP/s", "of FMA peak", "of floor"]
    else:
        titles += ["float32 / these weights", "best peer / fastlstm", "of floor"]
    for threads in thread_counts(results):
        lines += [f"### {threads} thread{'s' * (threads > 1)}, microseconds (median)", ""]
        lines.append(f"| {' | '.join(titles)} |")
        lines.append("|---|---|" + "---:|" * (len(titles) - 2))
        lines += [_markdown_row(row, names, weights) for row in _rows(results, threads)]
        lines.append("")
    return "\n".join([*lines, *(f"- failed: {text}" for text in failures(results))]).rstrip() + "\n"


def _markdown_row(row: Row, names: list[str], weights: str) -> str:
    found = {name: median(row, name) for name in names}
    fastest = min(us for us in found.values() if us is not None)
    winner = next(name for name, us in found.items() if us == fastest)
    ours, *others = (
        f"**{number(us)}**" if name == winner else number(us) for name, us in found.items()
    )
    texts = [row["work"], of_row(row).sizes.replace(",", ", "), ours, spread(row), *others]
    if weights == "float32":
        texts += [times(speedup(row)), f"{row['gflops']:.1f}", percent(row["fma_share"])]
    else:
        texts += [times(gain(row)), times(speedup(row))]
    return f"| {' | '.join([*texts, percent(row.get('floor_share'))])} |"
