"""Text as numbers: the alphabet of a model, and what of a text is held out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._validation import non_negative
from fastlstm.training._batches import Codes


class Alphabet:
    """The characters a model knows; a character's code is its place in their sorted order.

    Parameters
    ----------
    text : str
        The alphabet is the set of its characters.

    Attributes
    ----------
    characters : str
    points : array of uint32
        Their code points.

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
        self.points = _code_points(self.characters)
        self._dtype = np.min_scalar_type(len(self) - 1)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str, name: str = "text") -> Codes:
        """Return the codes of a text, or raise ``ValueError`` that names its argument."""
        points = _code_points(check_text(name, text))
        codes = np.searchsorted(self.points, points)
        np.minimum(codes, len(self) - 1, out=codes)
        unknown = np.flatnonzero(self.points[codes] != points)
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


def split(alphabet: Alphabet, text: str, held_out: float | str) -> tuple[Codes, Codes]:
    """Codes to train on and codes to measure, of a text and what to hold out."""
    codes = alphabet.encode(text)
    if isinstance(held_out, str):
        rest = alphabet.encode(held_out, "held_out")
    else:
        part = non_negative("held_out", held_out)
        if part >= 1:
            raise ValueError(f"held_out: expected a text or a part in [0, 1), got {held_out}")
        place = len(codes) - int(len(codes) * part)
        codes, rest = codes[:place], codes[place:]
    if len(codes) < 2:
        raise ValueError(f"text: expected at least 2 characters to train on, got {len(codes)}")
    if len(rest) < 2 and (isinstance(held_out, str) or held_out > 0):
        raise ValueError(f"held_out: expected at least 2 characters, got {len(rest)}")
    return codes, rest


def check_text(name: str, text: Any) -> str:
    """Return `text` if it is one, or raise ``TypeError``."""
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected str, got {type(text).__name__}")
    return text


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
