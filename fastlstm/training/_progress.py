"""Progress of a run: a bar on a terminal and in a notebook, a few plain lines anywhere else."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import textwrap
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

_NARROW = 76  # columns: with fewer, a bar says less beside it
_WIDE = 100  # columns of a sample where there is no terminal
_BETWEEN_SAMPLES = 10.0  # seconds


def open_bar(total: float, form: str | None = None, unit: str = "it", delay: float = 0.0) -> Any:
    """A bar of tqdm on standard error, after `delay` seconds; None where nobody sees it move."""
    options = {"total": total, "bar_format": form, "unit": unit, "delay": delay}
    if _in_notebook():
        if _has_widgets():
            from tqdm.notebook import tqdm as notebook_bar

            return notebook_bar(**options)
    elif not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    return tqdm(**options, dynamic_ncols=True, file=sys.stderr)


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this, as tqdm finds out."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return "IPKernelApp" in getattr(shell, "config", {})


def _has_widgets() -> bool:
    return importlib.util.find_spec("ipywidgets") is not None


class ProgressDisplay:
    """Shows records on standard error while used in a ``with`` block.

    Parameters
    ----------
    sample : callable, optional
        Returns a text that shows what the model has learned; about every ten seconds a line of it
        is printed, of whole words.
    """

    def __init__(self, sample: Callable[[], str] | None = None) -> None:
        self.steps = 0  # of the last record
        self._sample = sample
        self._sampled = 0.0  # when, in seconds of the run
        self._bar: Any = None
        self._plain = False
        self._mean = math.nan
        self._score = math.nan
        self._shown = 0.0  # part of the run at the last plain line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def resumed(self, step: int) -> None:
        """Say, on standard output, that a run goes on that has made so many steps."""
        self.steps = step
        print(f"resumed at step {step}", flush=True)

    def __call__(self, record: Any) -> None:
        """Show a record."""
        if self._bar is None and not self._plain:
            self._bar = open_bar(1.0, "{percentage:3.0f}%|{bar}| {desc}")
            self._plain = self._bar is None
        self.steps = record.step
        score = record[-1]
        measured = score != self._score and not math.isnan(score)
        self._score = score
        if self._sample is not None and record.seconds >= self._sampled + _BETWEEN_SAMPLES:
            self._sampled = record.seconds
            text = f"{record.seconds:.0f} s{self._measured(', ')}: {self._sample()}"
            self._write(textwrap.shorten(text, _columns() or _WIDE, placeholder=""))
        if self._bar is not None:
            self._move(record)
        elif measured or record.done >= 1 or self._is_silent(record):
            self._shown = record.done
            self._write(
                f"{record.done:4.0%} {record.seconds:6.1f} s, {self._speed(record)}, "
                f"{self._loss(self._cost(record))}{self._measured(', ')}"
            )

    def _is_silent(self, record: Any) -> bool:
        """Whether a tenth of the run went by without a line, and nothing else will make one."""
        nothing_else = math.isnan(self._score) and self._sample is None
        return nothing_else and int(10 * record.done) > int(10 * self._shown)

    def _cost(self, record: Any) -> float:
        """What is to become small."""
        loss: float = record.loss
        return loss

    def _loss(self, mean: float, narrow: bool = False) -> str:
        """It, in words."""
        return f"loss {mean:.{3 if narrow else 4}g}"

    def _speed(self, record: Any, short: bool = False) -> str:
        return f"{record.step / record.seconds:,.0f} steps/s"

    def _measured(self, before: str, narrow: bool = False) -> str:
        """What was measured last of what is held out, if anything was."""
        if math.isnan(self._score):
            return ""
        return f"{before}score {self._score:.{3 if narrow else 4}g}"

    def _move(self, record: Any) -> None:
        """Move the bar, and say beside it what there is room for."""
        # A running mean: the loss of a single step jumps about too much to be read.
        cost = self._cost(record)
        self._mean += 0.05 * (cost - self._mean)
        self._mean = cost if math.isnan(self._mean) else self._mean
        left = f"{record.seconds * (1 - record.done) / record.done:.0f} s"
        if 0 < _columns() < _NARROW:
            text = f"{left}, {self._loss(self._mean, True)}{self._measured(', ', True)}"
        else:
            text = f"{left} left, {self._speed(record, True)}, {self._loss(self._mean)}"
            text += self._measured(", ")
        self._bar.set_description_str(text, refresh=record.done >= 1)
        self._bar.update(record.done - self._bar.n)

    def _write(self, line: str) -> None:
        """A line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


def _columns() -> int:
    """Of the terminal on standard error; 0 if it is none, or does not say."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0
