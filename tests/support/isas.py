"""The instruction sets, as src/cpu/isas.def lists them, best first."""

from __future__ import annotations

import platform
import re

from support.checkout import CHECKOUT

TABLE = CHECKOUT / "src/cpu/isas.def"
ROWS = re.findall(r"^FL_ISA\((\w+), (\w+), \w+, (\d+),", TABLE.read_text(), re.MULTILINE)
PLATFORMS = {"x86_64": "X86_64", "AMD64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64"}

HERE = [name for name, of, _ in ROWS if of in ("ANY", PLATFORMS.get(platform.machine()))]
VECTOR_BYTES = {name: int(size) for name, _, size in ROWS}
