"""The text of the demo: English that every Python carries, so that nothing is downloaded."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from collections.abc import Iterator
from typing import NamedTuple

NAMES = ("topics", "library")


class Corpus(NamedTuple):
    """A text to train on and one to measure."""

    description: str
    text: str
    held_out: str


def load(name: str) -> Corpus:
    """Return the corpus called `name`.

    ``topics`` is the Python language reference as ``help()`` shows it: the values of
    ``pydoc_data.topics.topics`` in their order, joined by a newline, with the last tenth of
    the characters held out.  ``library`` adds to the same training text, in front, the
    docstrings of the standard library's top-level modules; what is held out is the same.

    Raises
    ------
    ModuleNotFoundError
        This Python was installed without its help texts.
    """
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
