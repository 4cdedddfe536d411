"""A plot of microseconds against hidden size, for every engine."""

from __future__ import annotations

import importlib
import importlib.util
from itertools import groupby
from pathlib import Path
from typing import Any

from fastlstm._io.atomic import StrPath, replacing
from fastlstm.bench.cases import WORKS
from fastlstm.bench.peers import ENGINES, OURS, label
from fastlstm.bench.results import Results, Row, engines, median, thread_counts

FORMATS = ("png", "svg", "pdf")
_COLORS = dict(
    zip(ENGINES, ["#000000", "#808080", "#e66100", "#1a85ff", "#d41159", "#5d9e31"], strict=True)
)
_MARKERS = dict(zip(ENGINES, "oosDv^", strict=True))


def check(path: StrPath) -> None:
    """Raise unless a plot can be made and `path` names one of the formats."""
    if Path(path).suffix[1:] not in FORMATS:
        raise ValueError(f"--plot: expected a name that ends in {', '.join(FORMATS)}, got {path!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ModuleNotFoundError("--plot: not installed: matplotlib (pip install matplotlib)")


def save(results: Results, path: StrPath) -> None:
    """Draw panels for kinds of work and numbers of threads; lines join equal L, B and T."""
    matplotlib: Any = importlib.import_module("matplotlib.figure")
    kinds = sorted({_kind(row) for row in results["rows"]})
    counts = thread_counts(results)
    figure = matplotlib.Figure(figsize=(4.2 * len(kinds), 3.6 * len(counts)), layout="constrained")
    panels = figure.subplots(len(counts), len(kinds), squeeze=False)
    labels = {name: label(name, results["weights"]) for name in engines(results)}
    for line, threads in zip(panels, counts, strict=True):
        for axes, kind in zip(line, kinds, strict=True):
            _draw(
                axes,
                [r for r in results["rows"] if (_kind(r), r["threads"]) == (kind, threads)],
                labels,
            )
            axes.set_title(f"{kind[1]}, {threads} thread{'s' * (threads > 1)}")
    for axes in panels[-1]:
        axes.set_xlabel("hidden units")
    for axes in panels[:, 0]:
        axes.set_ylabel("microseconds a call (median)")
    panels[0, 0].legend(fontsize="small")
    figure.suptitle(f"{results['machine']['cpu']}, {results['date'][:10]}", fontsize="medium")
    with replacing(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:], dpi=150)


def _kind(row: Row) -> tuple[int, str]:
    """Rows of one panel: the same work, on one row of a batch or on many."""
    work = row["work"]
    rows = "one row" if row["batch"] == 1 else "batches"
    return list(WORKS).index(work), f"{work}, {rows}"


def _draw(axes: Any, rows: list[Row], labels: dict[str, str]) -> None:
    def family(row: Row) -> tuple[int, ...]:
        return row["layers"], row["batch"], row["steps"]

    for name, text in labels.items():
        once: str | None = text  # in the legend
        for _, members in groupby(sorted(rows, key=family), family):
            points = sorted((row["hidden"], us) for row in members if (us := median(row, name)))
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=_COLORS[name],
                    marker=_MARKERS[name],
                    markersize=4,
                    linewidth=2.2 if name == OURS else 1.2,
                    zorder=3 if name == OURS else 2,
                    label=once,
                )
                once = None
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_yscale("log")
    axes.grid(True, which="major", linewidth=0.4)
