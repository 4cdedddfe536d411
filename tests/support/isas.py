"""The instruction sets, as src/cpu/isas.def lists them, best first."""

from __future__ import annotations

import platform
import re

from support.checkout import CHECKOUT

TABLE = CHECKOUT / "src/cpu/isas.def"
ROWS = re.findall(
    r'^FL_ISA\((\w+), (\w+), [\w |]+, (\d+),\s+"[^"]*",\s+"[^"]*", (\w+)\)',
    TABLE.read_text(),
    re.MULTILINE,
)
PLATFORMS = {"x86_64": "X86_64", "AMD64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64"}

ALL = [row for row in ROWS if row[1] in ("ANY", PLATFORMS.get(platform.machine()))]
HERE = [name for name, *_ in ALL]
"""Of this platform."""
OF_FLOATS = [name for name, _, _, of_double in ALL if of_double == name]
"""Those of them that differ in more than products of bytes."""
VECTOR_BYTES = {name: int(size) for name, _, size, _ in ROWS}
