"""How many threads a call may use, and which instruction set new layers."""

from __future__ import annotations

import os
from typing import NamedTuple

from fastlstm import _validation
from fastlstm._core import library, processors

MOST_THREADS = 1024
LIMITED = "limited in this thread by omp_set_num_threads (threadpoolctl, torch)"

_OPENMP = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT")


class Decision(NamedTuple):
    """How many threads a call may use, and who says so."""

    threads: int
    reason: str


_chosen: Decision | None = None  # by the program
_default: Decision | None = None  # by the environment and the machine, once it is asked for
_alone = None if library.has_openmp() else Decision(1, "built without OpenMP")  # wins over both


def _after_fork() -> None:
    """Compute with one thread from now on.

    The threads of the parent's team do not exist in a forked child, and GNU OpenMP waits for
    them for ever.
    """
    global _alone
    _alone = Decision(1, "a forked child")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def decision() -> Decision:
    """Return how many threads a call of this thread may use, and why."""
    chosen = _chosen or _default or _decide()
    if _alone:
        return _alone
    most = library.most_threads()
    if most < chosen.threads and most < library.USUAL_THREADS and most < processors.CORES:
        return Decision(most, LIMITED)
    return chosen  # torch sets as many as there are cores, and means no limit


def explanation() -> str:
    """Return the decision as text, with what was set in vain."""
    threads, reason = decision()
    ignored = [
        f"{name}={os.environ[name]!r} is malformed and ignored"
        for name in _OPENMP
        if os.environ.get(name, "").strip() and _openmp_number(name) is None
    ]
    return "; ".join([f"{threads}: {reason}", *ignored])


def _decide() -> Decision:
    """The default, from the environment as it is now."""
    global _default
    text = os.environ.get("FASTLSTM_NUM_THREADS", "")
    if text:
        if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
            expected = f"an integer from 1 to {MOST_THREADS}"
            raise ValueError(f"FASTLSTM_NUM_THREADS: expected {expected}, got {text!r}")
        _default = Decision(int(text), "FASTLSTM_NUM_THREADS")
        return _default
    limits = {
        "the cores this process may use": processors.CORES,
        "the quota of the container": processors.QUOTA,
        **{name: _openmp_number(name) or processors.CORES for name in _OPENMP},
        "what OpenMP was loaded with": library.USUAL_THREADS,
    }
    reason = min(limits, key=limits.__getitem__)  # the first of them
    threads = limits[reason]
    if threads < processors.CORES:
        reason += f" (this process may use {processors.CORES} cores)"
    _default = Decision(threads, reason)
    return _default


def _openmp_number(name: str) -> int | None:
    """The value of a variable, the first of "4,2"; None where the OpenMP runtime ignores it."""
    text = os.environ.get(name, "")
    texts = text.split(",") if name == "OMP_NUM_THREADS" else [text]
    try:
        levels = [int(level) for level in texts]
    except ValueError:
        return None
    return levels[0] if min(levels) > 0 else None


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use.

    It wins over the environment, and may be more than there are cores; see `get_num_threads` for
    what is stronger.  A call uses fewer where more would not pay, or where the system refuses them;
    results do not depend on it.

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
    global _chosen
    _chosen = Decision(_validation.integer(n, "n", 1, MOST_THREADS), "set_num_threads")


def get_num_threads() -> int:
    """Return how many threads a call of this thread may use; `show_config` says why.

    `set_num_threads` decides or, without it, ``FASTLSTM_NUM_THREADS``.  The default is the least of
    the cores this process may use, the quota of its container, ``OMP_NUM_THREADS`` and
    ``OMP_THREAD_LIMIT``, read when the number is first asked for.

    Where the calling thread has limited OpenMP to less than it usually gives, and to fewer threads
    than cores, this holds in any case: ``threadpoolctl.threadpool_limits``, and
    ``torch.set_num_threads`` where torch shares our OpenMP.  In a build without OpenMP and in a
    forked child the number is 1.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If it is ``FASTLSTM_NUM_THREADS`` that decides, and not an integer from 1 to 1024.

    Examples
    --------
    >>> import fastlstm
    >>> fastlstm.get_num_threads() >= 1
    True
    """
    return decision().threads


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


def arithmetic() -> str:
    """Return what the bits of new layers depend on: whether multiply-adds round once or twice."""
    return "baseline" if chosen_isa() == "baseline" else "fused multiply-add"
