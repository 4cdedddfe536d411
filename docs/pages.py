"""The pages of docs/: run their code, and find their pictures, commands and links.

The blocks of a page run from top to bottom and share their names.  Of a block of ``>>>`` lines what
is printed is compared, too.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import doctest
import importlib
import importlib.util
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

DOCS = Path(__file__).resolve().parent
CHECKOUT = DOCS.parent

_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(r"!\[[^]]+\]\((\w+)\.svg\)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_IMPORT = re.compile(
    r"^\s*(?:>>> )?(?:from|import) ([\w.]+)|\bdistribution\(\"(\w+)\"\)", re.MULTILINE
)
_BRIDGES = {"fastlstm.plot": "matplotlib", "fastlstm.dask": "dask", "fastlstm.onnx": "onnx"}
_BRIDGES |= {"fastlstm.sklearn": "sklearn", "fastlstm.torch": "torch"}


def all_pages() -> list[Path]:
    """Every page, in the order of the names."""
    return sorted(DOCS.rglob("*.md"))


def needs(page: Path) -> set[str]:
    """The packages that the code of a page imports, or reads files of, beside NumPy."""
    code = "".join(code for _, code in blocks(page, "python"))
    modules = {imported or read for imported, read in _IMPORT.findall(code)}
    found = {_BRIDGES.get(module, module.partition(".")[0]) for module in modules}
    found |= {"matplotlib"} if pictures(page) else set()
    return found - {"fastlstm", "numpy", "__future__"} - sys.stdlib_module_names


def missing(page: Path) -> list[str]:
    """Those of them that are not installed."""
    return [name for name in sorted(needs(page)) if importlib.util.find_spec(name) is None]


def run(page: Path) -> dict[str, Any]:
    """Run the code of a page in the present folder, with one thread; return its names."""
    names: dict[str, Any] = {"__name__": "__main__"}  # dataclasses look themselves up there
    with _one_thread(page):
        for line, code in blocks(page, "python"):
            if code.startswith(">>>"):
                _check_output(page, line, code, names)
            else:
                numbered = "\n" * line + code  # errors show the line of the page
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(numbered, str(page), "exec", dont_inherit=True), names)
    return names


@contextlib.contextmanager
def _one_thread(page: Path) -> Iterator[None]:
    """What pages compute is small, and they run beside each other."""
    names = {"fastlstm", *needs(page)} & {"fastlstm", "torch"}
    libraries = [importlib.import_module(name) for name in sorted(names)]
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in zip(libraries, before, strict=True):
            library.set_num_threads(threads)


def _check_output(page: Path, line: int, code: str, names: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(code, names, page.stem, str(page), line)
    test.globs = names  # not a copy: later blocks see what it defines
    report = io.StringIO()
    runner = doctest.DocTestRunner(
        verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    if runner.run(test, out=report.write, clear_globs=False).failed:
        raise AssertionError(report.getvalue())


def figures(page: Path, names: dict[str, Any]) -> dict[str, Any]:
    """The figures that a page shows, by name, from what `run` returned."""
    from matplotlib.figure import Figure

    drawn = {name: value for name, value in names.items() if isinstance(value, Figure)}
    shown = pictures(page)
    if drawn.keys() != shown:
        raise ValueError(
            f"{page}: shows {', '.join(sorted(shown)) or 'no picture'}, "
            f"but its code draws {', '.join(sorted(drawn)) or 'none'}"
        )
    return drawn


def pictures(page: Path) -> set[str]:
    """The names of the pictures that a page shows and its own code draws."""
    return set(_PICTURE.findall(page.read_text(encoding="utf-8")))


def links(page: Path) -> set[str]:
    """What a page links to: paths from its folder, with or without an #anchor."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`\n]*`", "", text)
    found = {link for link in _LINK.findall(text) if not re.match(r"\w+:", link)}
    return found - {f"{name}.svg" for name in pictures(page)}


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as code hosts name them."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of a page that run fastlstm or an example: their words, from its name on."""
    for _, text in blocks(page, "sh"):
        words = shlex.shlex(text.replace("\\\n", " ").replace("\n", "\n; "), punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                yield from _ours([part.strip("'\"") for part in command])
                command = []
            else:
                command.append(word)


def _ours(words: list[str]) -> Iterator[list[str]]:
    for i, word in enumerate(words):
        if word == "pip":
            return
        if word == "fastlstm" or re.fullmatch(r"examples/\w+\.py", word):
            yield words[i:]
            return


class _Parsed(BaseException):
    """The arguments of a command are understood."""


def check_command(words: list[str]) -> None:
    """Let a command read its arguments, and stop there.

    Raises
    ------
    ValueError
        If it does not understand them.
    ImportError
        If an example needs a package that is not installed.
    """
    read = argparse.ArgumentParser.parse_args

    def parse_args(*args: Any, **options: Any) -> NoReturn:
        read(*args, **options)
        raise _Parsed

    said = io.StringIO()
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args),
        mock.patch.object(sys, "argv", list(words)),
        contextlib.redirect_stderr(said),
    ):
        try:
            if words[0] == "fastlstm":
                runpy.run_module("fastlstm", run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(CHECKOUT / words[0]), run_name="__main__")
        except _Parsed:
            return
        except SystemExit as error:
            raise ValueError(f"{shlex.join(words)}: {said.getvalue() or error}") from None
    raise ValueError(f"{shlex.join(words)}: it reads no arguments")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The blocks of code in a language, each after the number of lines above it."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start(2)), found[2])
        for found in _BLOCK.finditer(text)
        if found[1] == language
    ]


def public_names() -> set[str]:
    """The names in ``__all__`` of all modules whose own names are public."""
    found = set()
    for path in (CHECKOUT / "fastlstm").rglob("*.py"):
        module = path.relative_to(CHECKOUT).with_suffix("")
        parts = [part for part in module.parts if part != "__init__"]
        if any(part.startswith("_") for part in parts):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found |= {".".join([*parts, name]) for name in ast.literal_eval(node.value)}
    return found
