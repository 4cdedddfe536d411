"""What this machine can do at most: multiply-adds, and reads from each level of its memory."""

from __future__ import annotations

from pathlib import Path

import fastlstm
from fastlstm._core import probes
from fastlstm._core.threads import chosen_isa
from fastlstm.bench.cases import Case

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_ASSUMED = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}
LEVELS = (*_ASSUMED, "memory")

_FMA_VECTORS = 2_000_000  # so many, and reading so many bytes, takes about a millisecond
_READ_BYTES = 64 << 20
_PAGE = 4096

# Bytes of a weight, and beside them of each row of a matrix: of int8 its scale and its sum.
_BYTES = {"float32": (4, 0), "bfloat16": (2, 0), "float16": (2, 0), "int8": (1, 8)}
# Weights that an instruction can multiply where it multiplies one of float32.
_PRODUCTS = {"int8": 4}


def cache_sizes(folder: Path = _CACHES) -> dict[str, int]:
    """Bytes of the data caches L1, L2 and L3 of a core, typical ones where not known."""
    sizes = dict(_ASSUMED)
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
            if kind != "Instruction" and f"L{level}" in sizes:
                sizes[f"L{level}"] = int(size.rstrip("K")) << 10
        except (OSError, ValueError):
            continue
    return sizes


def level_of(nbytes: int, threads: int) -> str:
    """The smallest level that holds so many bytes; L1 and L2 are taken to be of each thread."""
    sizes = cache_sizes()
    for level, copies in (("L1", threads), ("L2", threads), ("L3", 1)):
        if nbytes <= sizes[level] * copies:
            return level
    return "memory"


def measure(kind: str, threads: int) -> float:
    """Measure "fma" in floating-point operations, or a level in bytes, per second.

    float32, all threads together.  "fma" is of the instruction set that new layers use.
    """
    if kind == "fma":
        return probes.probe(chosen_isa(), "fma", 0, _FMA_VECTORS, threads)
    nbytes = max(_probe_size(kind, threads) // _PAGE, 1) * _PAGE
    repeats = max(_READ_BYTES // nbytes, 1)
    # Reading is the machine's: the widest vectors show it, whatever the layer uses.
    return probes.probe(fastlstm.isas()[0], "read", nbytes, repeats, threads)


def _probe_size(level: str, threads: int) -> int:
    """Bytes for each thread: half of the cache, or for memory far more than any cache holds."""
    sizes = cache_sizes()
    if level == "memory":
        return min(max(4 * sizes["L3"], 64 << 20), 1 << 30) // threads
    return sizes[level] // 2 // (threads if level == "L3" else 1)


def weight_bytes(case: Case) -> int:
    """Bytes that a step of one row reads again and again.

    Of a single step all weights; of a longer sequence U of one layer, since the input can be
    projected for many steps at once.
    """
    width, of_row = _BYTES[case.weights_dtype]
    columns = [case.hidden]
    if case.steps == 1:
        columns = [k for inputs in case.inputs for k in (inputs, case.hidden)]
    return sum(4 * case.hidden * (width * k + of_row) for k in columns)


def level_for(case: Case, threads: int) -> str | None:
    """The level whose bandwidth limits inference of one row; None for other cases."""
    if case.batch > 1 or case.work == "train":
        return None
    return level_of(weight_bytes(case), threads)


def floor(case: Case, fma: float, bandwidth: float) -> float:
    """The least seconds that inference of one row can take.

    A single step reads all weights.  A sequence is the projection of the input at the rate of
    multiply-adds and a read of U for each step.
    """
    if case.steps == 1:
        return weight_bytes(case) / bandwidth
    projection = sum(8 * case.hidden * inputs * case.steps for inputs in case.inputs)
    fma *= _PRODUCTS.get(case.weights_dtype, 1)
    return projection / fma + case.layers * case.steps * weight_bytes(case) / bandwidth
