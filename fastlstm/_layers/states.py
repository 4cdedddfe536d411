"""States of a cell: their names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from fastlstm import _validation
from fastlstm._layers.base import Array, Layer, Pair, TraceKind
from fastlstm._layers.options import LSTM_OPTIONS

# What a state is made of, and what its gradient is called.
_NAMES = {False: ("h_0", "c_0"), True: ("dh_n", "dc_n")}


class _OneState(Layer[Array, ArrayLike, TraceKind]):
    """A cell whose only state is h: for the core, c is a second copy of it.

    The gradient of c is then a part of that of h.
    """

    def _refuse(self, options: Mapping[str, Any]) -> None:
        for name in options:
            kind = type(self).__name__
            if name in LSTM_OPTIONS:
                raise TypeError(f"{name}: is an option of LSTM, not of {kind}")
            raise TypeError(f"{kind}: unexpected argument {name!r}")

    def _state_pair(
        self, value: Any, name: str, lead: tuple[int, ...], *, gradient: bool = False
    ) -> Pair:
        shape = (*lead, self.hidden_size)
        return _validation.one_state(value, _NAMES[gradient][0], shape, self.dtype, not gradient)

    def _state_of(self, h: Array, c: Array, *, gradient: bool = False) -> Array:
        return h + c if gradient else h
