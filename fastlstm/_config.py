"""The version, and what a bug report needs."""

from __future__ import annotations

import sys

from fastlstm._core import caches, library, memory, probes
from fastlstm._core.threads import chosen_isa, explanation, isas

__version__ = "0.1.0"


def _processor() -> str:
    import platform  # when it is used: a tenth of the time of importing fastlstm

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def show_config() -> None:
    """Print the versions, CPU, instruction set, threads and caches: what a bug report needs.

    Examples
    --------
    >>> import fastlstm
    >>> fastlstm.show_config()  # doctest: +ELLIPSIS
    fastlstm ...
    """
    import platform

    import numpy as np

    rows = {
        f"fastlstm {__version__}": "",
        "Python": f"{platform.python_version()} ({sys.platform}, {platform.machine()})",
        "NumPy": np.__version__,
        "CPU": _processor(),
        "ISA": f"{chosen_isa()} (of {', '.join(isas())})",
        "OpenMP": "yes" if library.has_openmp() else "no",
        "threads": explanation(),
        "caches": caches.as_text(library.planned_caches()),
        "memory": f"at most {memory.most_kept() >> 20} MiB kept for the next results",
        "compiler": probes.compiler(),
    }
    for name, value in rows.items():
        print(f"{name:10} {value}".rstrip())
