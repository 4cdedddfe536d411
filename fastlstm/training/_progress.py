"""Progress of a training run: a bar on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import math
import sys
from types import TracebackType
from typing import Any, Self

from fastlstm.training._history import Record


class ProgressDisplay:
    """Shows records on standard error while used in a ``with`` block.

    Pass it to `LanguageModel.fit` as `progress`.
    """

    def __init__(self) -> None:
        self.steps = 0  # of the last record
        self._bar: Any = None
        self._loss = math.nan
        self._bits = math.nan

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

    def __call__(self, record: Record) -> None:
        """Show a record."""
        self.steps = record.step
        speed = record.characters / record.seconds
        measured = record.held_out_bits != self._bits and not math.isnan(record.held_out_bits)
        self._bits = record.held_out_bits
        held_out = "" if math.isnan(self._bits) else f", held-out {self._bits:.3f} bits/char"
        if not sys.stderr.isatty():
            if measured or record.done >= 1:
                print(
                    f"{record.done:4.0%} {record.seconds:6.1f} s, {speed:,.0f} chars/s, "
                    f"loss {record.loss:.3f}{held_out}",
                    file=sys.stderr,
                    flush=True,
                )
            return
        if self._bar is None:
            from tqdm import tqdm

            form = "{percentage:3.0f}%|{bar}| {desc}"
            self._bar = tqdm(total=1.0, bar_format=form, dynamic_ncols=True, file=sys.stderr)
        # A running mean: the loss of a single step jumps about too much to be read.
        old = record.loss if math.isnan(self._loss) else self._loss
        self._loss = old + 0.05 * (record.loss - old)
        left = record.seconds * (1 - record.done) / record.done
        self._bar.set_description_str(
            f"{left:.0f} s left, {speed / 1000:.0f}k chars/s, loss {self._loss:.3f}{held_out}",
            refresh=record.done >= 1,
        )
        self._bar.update(record.done - self._bar.n)
