"""Write the tables of results into benchmarks/README.md.

    python benchmarks/update_readme.py benchmarks/results/*.json

Each file that `fastlstm bench --json` saved becomes a section, in the order given.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastlstm._io.atomic import replacing
from fastlstm.bench import report, results

README = Path(__file__).with_name("README.md")
START, END = "<!-- results: written by update_readme.py -->\n", "<!-- end of results -->\n"


def section(path: str) -> str:
    """The heading and tables of a file of results."""
    found = results.load(path)
    title = f"## {found['machine']['cpu']}, {found['date'][:10]}"
    if found["weights"] != "float32":
        title += f", {found['weights']} weights"
    return f"{title}\n\nAll of it: [{Path(path).name}](results/{Path(path).name})\n\n" + (
        report.markdown(found)
    )


def with_results(text: str, sections: list[str]) -> str:
    """The text of the README with these sections between its markers."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{README.name}: expected the markers {START!r} and {END!r}")
    return "\n".join([before + start, *sections, end + after])


def main(paths: list[str]) -> int:
    """Update the README; return the exit status."""
    if not paths:
        print(f"{__doc__}", file=sys.stderr)
        return 2
    text = with_results(README.read_text(encoding="utf-8"), [section(path) for path in paths])
    with replacing(README) as file:
        file.write(text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
