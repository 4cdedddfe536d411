"""The results of a run: what goes into a JSON file, and reading it back."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

import fastlstm
from fastlstm._config import _processor
from fastlstm._core import probes
from fastlstm._core.threads import chosen_isa
from fastlstm._io.atomic import StrPath, replacing
from fastlstm.bench import limits, peers

SCHEMA = 1
_KEY = ("work", "layers", "input", "hidden", "batch", "steps", "threads")

Results = dict[str, Any]
Row = dict[str, Any]


def describe(command: str, against: list[str], weights: str = "float32") -> Results:
    """Everything but the measured values: date, machine, versions; `limits` and `rows` empty.

    Peers that have no such weights are left out.
    """
    able = [name for name in against if weights in peers.ENGINES[name].weights]
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": {
            "cpu": _processor(),
            "architecture": platform.machine(),
            "system": platform.system(),
            "cpus": os.cpu_count(),
            "isa": chosen_isa(),
            "caches": limits.cache_sizes(),
        },
        "versions": {
            "fastlstm": fastlstm.__version__,
            "compiler": probes.compiler(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            **peers.versions(able),
        },
        "weights": weights,
        "peers": able,
        "left_out": [name for name in against if name not in able],
        "limits": [],
        "rows": [],
    }


def save(results: Results, path: StrPath) -> None:
    """Write a JSON file, complete or not at all."""
    text = json.dumps(results, indent=1) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def load(path: StrPath) -> Results:
    """Read a JSON file that `save` wrote; those without `weights` are of float32."""
    try:
        results: Results = json.loads(Path(path).read_text(encoding="utf-8"))
        complete = all(key(row) and median(row, peers.OURS) for row in results["rows"])
        if results["schema"] == SCHEMA and complete:
            return {"weights": "float32", "left_out": [], **results}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(f"{path}: expected results of fastlstm bench, schema {SCHEMA}")


def key(row: Row) -> tuple[Any, ...]:
    """What identifies a row: work, sizes and threads."""
    return tuple(row[name] for name in _KEY)


def median(row: Row, engine: str) -> float | None:
    """Microseconds of an engine, or None where it has no time."""
    value: float | None = row["engines"].get(engine, {}).get("median_us")
    return value


def best_peer(row: Row) -> tuple[str, float] | None:
    """Name and microseconds of the fastest peer."""
    times = [(us, name) for name in peers.PEERS if (us := median(row, name)) is not None]
    return min(times)[::-1] if times else None


def speedup(row: Row) -> float | None:
    """How many times faster than the best peer fastlstm is; below 1 it lost."""
    best, ours = best_peer(row), median(row, peers.OURS)
    return best[1] / ours if best and ours else None


def gain(row: Row) -> float | None:
    """How many times faster than fastlstm with weights of float32 these weights are."""
    float32, ours = median(row, peers.OURS_FLOAT32), median(row, peers.OURS)
    return float32 / ours if float32 and ours else None


def engines(results: Results) -> list[str]:
    """Those that were measured: fastlstm first, and beside weights of fewer bits in float32."""
    float32 = [peers.OURS_FLOAT32] if results["weights"] != "float32" else []
    return [peers.OURS, *float32, *results["peers"]]


def thread_counts(results: Results) -> list[int]:
    """The numbers of threads that were measured, in order."""
    return list(dict.fromkeys(row["threads"] for row in results["rows"]))
