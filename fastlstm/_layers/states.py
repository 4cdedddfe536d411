"""States of a cell: how the core keeps them, and how a user has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._core import memory

Array = NDArray[Any]


class States:
    """The states of a layer; the user has several of them as a tuple.

    The core keeps an array for each letter.  Where a letter comes again, that is a copy of the
    same state: the user sees one of them, and its gradient is the sum of those of both.

    Parameters
    ----------
    letters : str
        As in src/cells.h.
    output_size, hidden_size : int
        Units of h, and of all others.
    dtype : dtype
    """

    def __init__(
        self, letters: str, output_size: int, hidden_size: int, dtype: np.dtype[Any]
    ) -> None:
        states = list(dict.fromkeys(letters))
        self.dtype = dtype
        self.names = {False: [f"{s}_0" for s in states], True: [f"d{s}_n" for s in states]}
        self.units = [output_size if s == "h" else hidden_size for s in letters]
        self.numbers = [states.index(s) for s in letters]  # which state each array has
        self.firsts = [letters.index(s) for s in states]  # the array of each state
        self.copies = [i for i, s in enumerate(letters) if s in letters[:i]]

    def to_core(
        self, value: Any, name: str, shape: tuple[int, ...], *, gradient: bool = False
    ) -> list[Array]:
        """New arrays (*shape, units) for the core, from a state as a user has it.

        Zeros for None; with `gradient`, from the gradient of a state.
        """
        if value is None:
            return [memory.zeros((*shape, units), self.dtype) for units in self.units]
        names = self.names[gradient]
        states = self._split(value, name, names)
        arrays: list[Array] = []
        for number, units in zip(self.numbers, self.units, strict=True):
            state = _validation.like(states[number], names[number], (*shape, units), self.dtype)
            array = memory.empty(state.shape, self.dtype)
            array[...] = state
            arrays.append(array)
        if gradient:
            for i in self.copies:
                arrays[i][...] = 0
        return arrays

    def from_core(self, arrays: Sequence[Array], *, gradient: bool = False) -> Any:
        """A state as a user has it, or the gradient of one, from the arrays of the core."""
        if not self.copies:
            return self._join(arrays)
        states = [arrays[i] for i in self.firsts]
        if gradient:
            for i in self.copies:
                states[self.numbers[i]] = states[self.numbers[i]] + arrays[i]
        return self._join(states)

    def _split(self, value: Any, name: str, names: list[str]) -> Sequence[Any]:
        if not isinstance(value, tuple | list) or len(value) != len(names):
            sequence = isinstance(value, tuple | list)
            got = f"{len(value)} of them" if sequence else type(value).__name__
            kind = "pair" if len(names) == 2 else "tuple"
            raise TypeError(f"{name}: expected a {kind} ({', '.join(names)}), got {got}")
        return value

    def _join(self, states: Sequence[Array]) -> Any:
        return tuple(states)


class SingleState(States):
    """The state of a layer whose cell has one; the user has the array."""

    def _split(self, value: Any, name: str, names: list[str]) -> Sequence[Any]:
        if isinstance(value, tuple):
            raise TypeError(f"{names[0]}: expected an array, got a tuple: this cell has one state")
        return (value,)

    def _join(self, states: Sequence[Array]) -> Any:
        return states[0]


def states_of(letters: str, output_size: int, hidden_size: int, dtype: np.dtype[Any]) -> States:
    """The states of a layer, from the letters of its cell."""
    kind = SingleState if len(set(letters)) == 1 else States
    return kind(letters, output_size, hidden_size, dtype)
