"""Two results beside each other: ``fastlstm bench compare A.json B.json``."""

from __future__ import annotations

from fastlstm.bench.cases import of_row
from fastlstm.bench.peers import OURS
from fastlstm.bench.report import number
from fastlstm.bench.results import Results, key, median


def compare(before: Results, after: Results, tolerance: float) -> tuple[list[str], int]:
    """Compare the times of fastlstm in the rows that both results have.

    Parameters
    ----------
    before, after
        What `results.load` returns.
    tolerance : float
        How much slower, relatively, a row may have become.

    Returns
    -------
    list of str
        A table.
    int
        How many rows are slower than that.

    Raises
    ------
    ValueError
        If no row is in both.
    """
    old = {key(row): row for row in before["rows"]}
    pairs = [(old[key(row)], row) for row in after["rows"] if key(row) in old]
    if not pairs:
        raise ValueError("the two files have no row in common")
    lines = []
    for part in ("cpu", "isa"):
        a, b = before["machine"][part], after["machine"][part]
        if a != b:
            lines.append(f"not the same {part}: {a} and {b}; the ratios say little")
    if before["weights"] != after["weights"]:
        lines.append(f"not the same weights: {before['weights']} and {after['weights']}")
    lines.append(f"{'work':5} {'L,I,H,B,T':17} threads {'before':>9} {'after':>9}  ratio")
    slower = 0
    for a, b in pairs:
        before_us, after_us = (median(row, OURS) or 0.0 for row in (a, b))
        ratio = after_us / before_us if before_us else 1.0
        verdict = ""
        if ratio > 1 + tolerance:
            slower += 1
            verdict = "  SLOWER"
        elif ratio < 1 / (1 + tolerance):
            verdict = "  faster"
        lines.append(
            f"{b['work']:5} {of_row(b).sizes:17} {b['threads']:7} "
            f"{number(before_us):>9} {number(after_us):>9}  {ratio:5.2f}{verdict}"
        )
    lines.append(f"{slower} of {len(pairs)} rows slower by more than {tolerance:.0%}")
    return lines, slower
