"""Which functions of a built module use vector instructions of x86, and whose they are.

The compiler may use what an instruction set has wherever its flags are given.  Only the kernels of
that set may have them: everything else runs on every processor of the platform.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ANYWHERE = ""  # of a function whose file is not known: it may have none of them

# What the name of a file says of its instructions; the longest beginning counts.
ALLOWED = {"avx512": 512, "avxvnni": 256, "avx2": 256, ANYWHERE: 0}

_FUNCTION = re.compile(r"^([0-9a-f]+) <(.+)>:$")
_INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\s+(?:\{vex\}\s+)?(\w+)\s*(.*)$")


def width_of(mnemonic: str, operands: str) -> int:
    """Bits of vectors that only AVX-512 (512), or AVX (256), has; 0: it runs anywhere."""
    if re.search(r"%zmm|%k[0-7]|%[xy]mm(?:1[6-9]|2\d|3[01])", operands):
        return 512
    if "%ymm" in operands or (mnemonic.startswith("v") and "%xmm" in operands):
        return 256
    return 256 if mnemonic in ("vzeroupper", "vzeroall") else 0


def breaches(listing: str, owners: dict[int, str]) -> Iterator[str]:
    """What ``objdump -d`` shows of instructions in functions that may not have them, one of each.

    `owners` has the file that each function is of, by its address.
    """
    name, file, reported = "", ANYWHERE, True
    for line in listing.splitlines():
        if found := _FUNCTION.match(line):
            name, file = found[2], owners.get(int(found[1], 16), ANYWHERE)
            reported = False
        elif not reported and (found := _INSTRUCTION.match(line)):
            beginning = max((key for key in ALLOWED if file.startswith(key)), key=len)
            if width_of(found[1], found[2]) > ALLOWED[beginning]:
                reported = True
                yield f"{file or 'a file'}: {name}: {found[1]} {found[2]}".strip()


def owners_of(module: Path) -> dict[int, str]:
    """The files of the functions of a module, by their addresses, from its table of symbols.

    Those of a file follow its name; after the last file come those that several files share.
    """
    owners, file = {}, ANYWHERE
    command = ["readelf", "--symbols", "--wide", str(module)]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in table.partition("'.symtab'")[2].splitlines():
        fields = line.split()
        if len(fields) >= 7 and fields[3] == "FILE":
            file = fields[7] if len(fields) > 7 else ANYWHERE
        elif len(fields) >= 8 and fields[3] == "FUNC":
            owners[int(fields[1], 16)] = file
    return owners


def breaches_in(module: Path) -> list[str]:
    """Those of a module that was built."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(module)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(breaches(listing, owners_of(module)))
