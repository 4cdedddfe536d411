"""Text as numbers: the alphabet of a model, and how batches read a text."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.training._batches import Codes


class Alphabet:
    """The characters a model knows; a character's code is its place in their sorted order.

    Parameters
    ----------
    text : str
        The alphabet is the set of its characters.

    Examples
    --------
    >>> alphabet = Alphabet("banana")
    >>> alphabet.characters
    'abn'
    >>> alphabet.encode("nab")
    array([2, 0, 1], dtype=uint8)
    """

    def __init__(self, text: str) -> None:
        self.characters = "".join(sorted(set(check_text("alphabet", text))))
        if not self.characters:
            raise ValueError("alphabet: expected at least one character, got an empty text")
        self._points = _code_points(self.characters)
        self._dtype = np.min_scalar_type(len(self) - 1)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str, name: str = "text") -> Codes:
        """Return the codes of a text, or raise ``ValueError`` that names its argument."""
        points = _code_points(check_text(name, text))
        codes = np.searchsorted(self._points, points)
        np.minimum(codes, len(self) - 1, out=codes)
        unknown = np.flatnonzero(self._points[codes] != points)
        if unknown.size:
            place = int(unknown[0])
            raise ValueError(
                f"{name}: {text[place]!r} (character {place + 1}) is not one of the "
                f"{len(self)} characters the model knows"
            )
        return codes.astype(self._dtype)

    def decode(self, codes: Any) -> str:
        """Return the text of a sequence of codes."""
        return "".join(self.characters[code] for code in codes)


class EvaluationWindows(NamedTuple):
    """Where parallel rows read when they measure a text, each character once.

    Row r reads `steps` characters from ``r * spacing`` on.  The first `steps - spacing` of
    every row but the first only warm up its state: the row before has measured them.
    """

    rows: int
    steps: int
    spacing: int

    @classmethod
    def of(cls, length: int, rows: int, warmup: int) -> EvaluationWindows:
        """Cover `length` predictions; fewer rows, where they would mostly warm up."""
        rows = max(1, min(rows, length // max(1, 2 * warmup)))
        warmup = warmup if rows > 1 else 0
        steps = -(-(length + (rows - 1) * warmup) // rows)
        return cls(rows, steps, steps - warmup)

    def places(self, start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the places read at time steps start to stop, and which count; [T, B] each."""
        row, step = np.arange(self.rows), np.arange(start, stop)[:, None]
        counts = (row == 0) | (step >= self.steps - self.spacing)
        return row * self.spacing + step, counts


def check_text(name: str, text: Any) -> str:
    """Return `text` if it is one, or raise ``TypeError``."""
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected str, got {type(text).__name__}")
    return text


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
