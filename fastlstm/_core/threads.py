"""How many threads a call may use, and which instruction set new layers."""

from __future__ import annotations

import os

from fastlstm import _validation
from fastlstm._core import library

MOST_THREADS = 1024

_forked = False
_threads = 0  # 0: not decided yet


def _after_fork() -> None:
    """Compute with one thread from now on.

    The threads of the parent's team do not exist in a forked child, and GNU OpenMP waits for
    them for ever.
    """
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _from_environment() -> int:
    text = os.environ.get("FASTLSTM_NUM_THREADS", "")
    if not text:
        return library.PROCESSORS
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        expected = f"an integer from 1 to {MOST_THREADS}"
        raise ValueError(f"FASTLSTM_NUM_THREADS: expected {expected}, got {text!r}")
    return int(text)


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use.

    A call uses fewer where more would not pay, or where the system refuses them when a thread
    first asks for so many; results do not depend on it.

    Parameters
    ----------
    n : int
        From 1 to 1024.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or out of range.

    Examples
    --------
    >>> import fastlstm
    >>> before = fastlstm.get_num_threads()
    >>> fastlstm.set_num_threads(1)
    >>> fastlstm.get_num_threads()
    1
    >>> fastlstm.set_num_threads(before)
    """
    global _threads
    _threads = _validation.integer(n, "n", 1, MOST_THREADS)


def get_num_threads() -> int:
    """Return how many threads a call may use.

    The default is ``FASTLSTM_NUM_THREADS`` or, without it, the number of processor cores this
    process may use, by its affinity and the quota of its container.  It is 1 in a build without
    OpenMP and in a forked child.
    """
    global _threads
    if _threads == 0:
        _threads = _from_environment()
    if _forked or not library.has_openmp():
        return 1
    return _threads


def isas() -> list[str]:
    """Return the instruction sets this CPU can run and this build has kernels for, best first.

    The environment variable ``FASTLSTM_ISA`` makes every new layer use the one it names.

    Examples
    --------
    >>> import fastlstm
    >>> fastlstm.isas()[-1]
    'baseline'
    """
    return library.isas()


def chosen_isa() -> str:
    """Return the instruction set of new layers: the best, or the one ``FASTLSTM_ISA`` names."""
    have = library.isas()
    name = os.environ.get("FASTLSTM_ISA") or have[0]
    if name not in have:
        raise ValueError(f"FASTLSTM_ISA: expected one of {', '.join(have)}, got {name!r}")
    return name
