"""The texts of the demo: stories of our own, and English that every Python carries."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from fastlstm.cli._stories import Story, stories

NAMES = ("stories", "topics", "library")

_CHARACTERS = 2_000_000  # of stories: a run of a minute or two reads each a few times
_MEASURED, _COUNTED = 200, 4000  # stories held out: for bits, and for pronouns


class Corpus(NamedTuple):
    """A text to train on and one to measure."""

    description: str
    text: str
    held_out: str
    stories: tuple[Story, ...] = ()
    """Of those held out."""


def load(name: str) -> Corpus:
    """Return the corpus called `name`.

    ``stories`` are those of `_stories`, one a line, always the same; other ones are held out.
    ``topics`` is the Python language reference as ``help()`` shows it: the values of
    ``pydoc_data.topics.topics`` in their order, joined by a newline, with the last tenth of
    the characters held out.  ``library`` adds to the same training text, in front, the
    docstrings of the standard library's top-level modules; what is held out is the same.

    Raises
    ------
    ModuleNotFoundError
        This Python was installed without its help texts.
    """
    if name == "stories":
        return _stories()
    from pydoc_data.topics import topics

    text = "\n".join(topics.values())
    place = len(text) - len(text) // 10
    text, held_out = text[:place], text[place:]
    description = "pydoc_data.topics"
    if name == "library":
        text = "\n\n".join([*_docstrings(), text])
        description += " and the standard library's docstrings"
    version = ".".join(map(str, sys.version_info[:3]))
    return Corpus(f"{description} of Python {version}", text, held_out)


def _stories() -> Corpus:
    told = stories(seed=0)
    held_out = tuple(islice(told, _COUNTED))
    lines, length = [], 0
    while length < _CHARACTERS:
        lines.append(next(told).text + "\n")
        length += len(lines[-1])
    measured = "".join(story.text + "\n" for story in held_out[:_MEASURED])
    return Corpus("stories of a small grammar", "".join(lines), measured, held_out)


def _docstrings() -> Iterator[str]:
    """Docstrings of modules, classes and functions, read from the source without importing."""
    folder = sysconfig.get_paths()["stdlib"]
    for module in sorted(sys.stdlib_module_names):
        path = os.path.join(folder, f"{module}.py")
        if not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node)
                if docstring:
                    yield docstring
