"""Draw results again without measuring again: microseconds against hidden size.

python benchmarks/plot.py benchmarks/results/DATE-CPU-hidden.json benchmarks/hidden.svg
"""

from __future__ import annotations

import sys

from fastlstm.bench import plot, results


def main(arguments: list[str]) -> int:
    """Draw the first file into the second; return the exit status."""
    if len(arguments) != 2:
        print(f"{__doc__}", file=sys.stderr)
        return 2
    plot.check(arguments[1])
    plot.save(results.load(arguments[0]), arguments[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
