"""The sizes of the caches, and the variables that set others.  Calls are planned for L2."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_MOST = 1 << 40
_VARIABLES = {"FASTLSTM_L1D": "l1d", "FASTLSTM_L2": "l2", "FASTLSTM_L3": "l3"}


class Caches(NamedTuple):
    """Data caches of a core, as ``fl_caches`` of the C core.

    Sizes are in bytes, `l3` is 0 where there is none; sharers are cores that share one;
    `variables` have set other sizes than the machine's.
    """

    l1d: int
    l2: int
    l3: int
    l2_sharers: int = 1
    l3_sharers: int = 1
    variables: tuple[str, ...] = ()


def with_environment(caches: Caches) -> Caches:
    """Return the caches with the sizes that variables set, or raise an error that names one."""
    texts = {name: os.environ.get(name, "") for name in _VARIABLES}
    sizes = {_VARIABLES[name]: _size(name, text) for name, text in texts.items() if text}
    return caches._replace(**sizes, variables=tuple(name for name in texts if texts[name]))


def _size(name: str, text: str) -> int:
    """The bytes that a variable names."""
    found = re.fullmatch(r"([0-9]{1,13})([KMG]?)", text)
    size = int(found[1]) * _UNITS[found[2]] if found else -1
    least = 0 if name == "FASTLSTM_L3" else 1
    if not least <= size <= _MOST:
        none = ", 0 for none" if least == 0 else ""
        expected = f"a size such as 48K, 2M or 33554432{none}"
        raise ValueError(f"{name}: expected {expected}, got {text!r}")
    return size


def as_text(caches: Caches) -> str:
    """Return the sizes as text, with who shares a cache and which variables are set."""
    levels = [
        ("L1d", caches.l1d, 1),
        ("L2", caches.l2, caches.l2_sharers),
        ("L3", caches.l3, caches.l3_sharers),
    ]
    parts = [
        f"{name} {size_text(size)}" + (f" shared by {sharers}" if sharers > 1 else "")
        for name, size, sharers in levels
        if size
    ]
    note = f" ({', '.join(caches.variables)} set)" if caches.variables else ""
    return ", ".join(parts) + ("" if caches.l3 else ", no L3") + note


def size_text(size: int) -> str:
    """Return a number of bytes in the largest unit of which there is one: 48 KiB, 1.25 MiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.2f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{size} bytes"
