"""Draw the pictures of docs/ again, beside the pages that show them.

    python docs/make_plots.py

A page that shows ``![...](gates.svg)`` has code that calls a matplotlib figure `gates`.  The same
versions of everything draw the same files.  Where a package is missing that a page needs, its
pictures say so.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parent))  # where Python leaves that out (PYTHONSAFEPATH)

import pages

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "fastlstm", "font.sans-serif": ["DejaVu Sans"]}


def draw(page: Path, extension: str = "svg") -> list[Path]:
    """Write the pictures of a page beside it."""
    matplotlib.use("agg")
    matplotlib.rcParams.update(_STYLE)
    written = []
    for name, figure in _figures(page).items():
        path = page.parent / f"{name}.{extension}"
        undated = {"CreationDate" if extension == "pdf" else "Date": None}
        figure.savefig(path, metadata=undated if extension != "png" else None)
        written.append(path)
    return written


def _figures(page: Path) -> dict[str, Any]:
    if missing := pages.missing(page):
        note = Figure(figsize=(8, 1))
        note.text(0.5, 0.5, f"drawn where {', '.join(missing)} is installed", ha="center")
        return dict.fromkeys(pages.pictures(page), note)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)  # pages save files of their own
        try:
            return pages.figures(page, pages.run(page))
        finally:
            os.chdir(before)


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", default="svg", help="svg, png or pdf")
    args = parser.parse_args()
    shown = [page for page in pages.all_pages() if pages.pictures(page)]
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        for paths in processes.map(draw, shown, [args.format] * len(shown)):
            for path in paths:
                print(f"{path.relative_to(pages.CHECKOUT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
