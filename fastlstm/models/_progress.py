"""Progress of the training of a language model: in bits and characters."""

from __future__ import annotations

import math
from typing import Any

from fastlstm.training import _progress

_BITS = 1 / math.log(2)  # in a nat


class ProgressDisplay(_progress.ProgressDisplay):
    """Shows records of a language model on standard error while used in a ``with`` block."""

    def _cost(self, record: Any) -> float:
        bits: float = record.loss * _BITS
        return bits

    def _loss(self, mean: float, narrow: bool = False) -> str:
        return f"{mean:.2f} bits" if narrow else f"{mean:.3f} bits/char"

    def _speed(self, record: Any, short: bool = False) -> str:
        speed = record.characters / record.seconds
        return f"{speed / 1000:.0f}k chars/s" if short else f"{speed:,.0f} chars/s"

    def _measured(self, before: str, narrow: bool = False) -> str:
        if math.isnan(self._score):
            return ""
        return f"{before}held-out {self._score:.{2 if narrow else 3}f}"
