"""Draw the pictures of docs/ again, beside the pages that show them.

    python docs/make_plots.py

A page that shows ``![...](gates.svg)`` has code that calls a matplotlib figure `gates`.  The same
versions of everything draw the same files.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib

import fastlstm

sys.path.append(str(Path(__file__).parent))  # where Python leaves that out (PYTHONSAFEPATH)

import pages

_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "fastlstm", "font.sans-serif": ["DejaVu Sans"]}


def draw(page: Path, extension: str = "svg") -> list[Path]:
    """Run a page and write its pictures beside it."""
    fastlstm.set_num_threads(1)  # the layers are small, and pages are drawn side by side
    matplotlib.use("agg")
    matplotlib.rcParams.update(_STYLE)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)  # pages save files of their own
        try:
            found = pages.figures(page, pages.run(page))
        finally:
            os.chdir(before)
    written = []
    for name, figure in found.items():
        path = page.parent / f"{name}.{extension}"
        undated = {"CreationDate" if extension == "pdf" else "Date": None}
        figure.savefig(path, metadata=undated if extension != "png" else None)
        written.append(path)
    return written


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
