"""Draw the pictures of docs/ again: run the code of its pages, and an example.

    python docs/make_plots.py

What a page calls `gates`, if it is a figure, is saved as gates.svg.  Takes less than a minute; the
same versions of everything draw the same files.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import fastlstm
from fastlstm import plot

DOCS = Path(__file__).resolve().parent


def run(page: Path) -> dict[str, Any]:
    """Run the Python blocks of a page, in order; return the names they define."""
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile("\n".join(blocks), page.name, "exec"), names)
    return names


def long_memory(updates: int) -> Figure:
    """What examples/long_memory.py draws, from the layers of the longest lag alone."""
    example = runpy.run_path(str(DOCS.parent / "examples" / "long_memory.py"))
    layers = {name: example["train"](name, 100, updates) for name in example["CELLS"]}
    tokens, _ = example["sequences"](np.random.default_rng(2), 100)
    symbols = example["SYMBOLS"] + example["DISTRACTORS"]
    return plot.gradient_flow(layers, np.eye(symbols, dtype=np.float32)[tokens])


def main() -> None:
    """Write all pictures to a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=DOCS, help="where to (default: docs/)")
    parser.add_argument("--format", default="svg", help="svg, png or pdf")
    parser.add_argument("--updates", type=int, default=800, help="of each cell of the example")
    args = parser.parse_args()
    folder = args.folder.resolve()
    fastlstm.set_num_threads(1)  # the layers are small
    style = {"svg.fonttype": "none", "svg.hashsalt": "fastlstm", "font.sans-serif": ["DejaVu Sans"]}
    matplotlib.rcParams.update(style)
    figures = {"long_memory": long_memory(args.updates)}
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)  # pages save files of their own
        for page in sorted(DOCS.glob("*.md")):
            found = run(page) if ".svg)" in page.read_text(encoding="utf-8") else {}
            figures |= {name: found[name] for name in found if isinstance(found[name], Figure)}
        os.chdir(folder)
    for name, figure in figures.items():
        path = folder / f"{name}.{args.format}"
        undated = {"CreationDate" if args.format == "pdf" else "Date": None}
        figure.savefig(path, metadata=undated if args.format != "png" else None)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
