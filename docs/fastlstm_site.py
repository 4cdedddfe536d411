"""What Sphinx does here beside its own: formulas without a network, tables read from the sources.

Formulas become MathML, which browsers draw themselves.  Links that lead out of docs/ to a file that
the site has a page of lead to that page.  A page that would load anything from the network is an
error.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

import pages
from docutils import nodes
from docutils.parsers.rst import Directive
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger

CHECKOUT = Path(__file__).resolve().parents[1]
_log = getLogger(__name__)  # warnings end the build with an error
HOMES = {  # files outside docs/ that are pages of the site
    "benchmarks/README.md": "explanation/all-benchmarks.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "reference/security.md",
}
_INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
_ROW = re.compile(r'^FL_ISA\((\w+), (\w+), [\w |]+, (\d+),\s+"([^"]*)"', re.MULTILINE)
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|object)\b[^>]*(?:src|data)="(?:https?:)?//"""
    r"""|<link\b(?![^>]*rel="(?:canonical|license)")[^>]*href="(?:https?:)?//"""
    r"""|url\(["']?(?:https?:)?//|@import"""
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it."""
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_formula, None))
    app.add_directive("command-help", CommandHelp)
    app.add_directive("instruction-sets", InstructionSets)
    app.connect("source-read", _lead_to_pages)
    app.connect("missing-reference", _of_the_package)
    app.connect("warn-missing-reference", _may_be_a_name)
    app.connect("env-check-consistency", _check_complete)
    app.connect("build-finished", _check_offline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline_formula(writer: Any, node: nodes.math) -> None:
    writer.body.append(formula(node.astext(), "inline"))
    raise nodes.SkipNode


def _formula(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{formula(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def formula(text: str, display: str) -> str:
    """MathML of a formula; several lines, or columns with &, are aligned as they say."""
    if r"\begin" not in text and ("&" in text or r"\\" in text):
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    text = re.sub(r"{(align|aligned)}", r"{align*}", text)  # without numbers of lines
    mathml: str = convert(text, display=display)
    if unknown := re.findall(r">(\\\w*|&)<", mathml):
        raise SphinxError(f"formula: {', '.join(unknown)} is not understood: {text}")
    return mathml


class CommandHelp(Directive):
    """What ``fastlstm COMMAND --help`` prints; without an argument, ``fastlstm --help``."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Ask the parser."""
        from fastlstm.cli import _parser

        parser = _parser._parser(self.arguments)
        for action in parser._actions:
            if self.arguments and isinstance(action, argparse._SubParsersAction):
                parser = action.choices[self.arguments[0]]
        parser.formatter_class = _wide(parser.formatter_class)
        text = parser.format_help()
        return [nodes.literal_block(text, text, language="text")]


def _wide(formatter: Any) -> Any:
    return lambda prog: formatter(prog, width=88)


class InstructionSets(SphinxDirective):
    """A table of src/cpu/isas.def."""

    def run(self) -> list[nodes.Node]:
        """Read the rows."""
        text = (CHECKOUT / "src/cpu/isas.def").read_text(encoding="utf-8")
        self.env.note_dependency(str(CHECKOUT / "src/cpu/isas.def"))
        rows = _ROW.findall(text)
        platforms = {"X86_64": "64-bit x86", "ARM64": "64-bit Arm", "ANY": "any"}
        lines = ["| name | platform | vectors | flags of GCC and Clang |", "|---|---|---:|---|"]
        for name, platform, width, flags in rows:
            shown = f"`{flags}`" if flags else "none"
            lines.append(f"| `{name}` | {platforms[platform]} | {8 * int(width)} bits | {shown} |")
        return self.parse_text_to_nodes("\n".join(lines))


def _lead_to_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Take in files from outside docs/, and lead links to such files to their pages here."""
    folder = (Path(app.srcdir) / name).parent

    def taken_in(include: re.Match[str]) -> str:
        path = (folder / include[1]).resolve()
        app.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        return _LINK.sub(lambda link: f"]({os.path.relpath(path.parent / link[1], folder)}", text)

    def led(link: re.Match[str]) -> str:
        path = (folder / link[1]).resolve()
        home = HOMES.get(os.path.relpath(path, CHECKOUT))
        return link[0] if home is None else f"](/{home}"

    source[0] = _LINK.sub(led, _INCLUDE.sub(taken_in, source[0]))


def _of_the_package(app: Sphinx, env: Any, node: Any, text: Any) -> Any:
    """`LSTM` in a docstring is fastlstm.LSTM, wherever it is."""
    if node.get("reftype") != "obj":
        return None
    name = f"fastlstm.{node['reftarget']}"
    python = env.domains.python_domain
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, text)


def _may_be_a_name(app: Sphinx, domain: Any, node: nodes.Element) -> bool | None:
    """Single backticks in docstrings name arguments and files as often as objects."""
    return True if node.get("reftype") == "obj" else None


def _check_complete(app: Sphinx, env: Any) -> None:
    described = env.domains.python_domain.objects.keys() | env.domains.python_domain.modules.keys()
    if missing := pages.public_names() - described:
        _log.warning("not in the reference: %s", ", ".join(sorted(missing)))


def _check_offline(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for path in sorted(Path(app.outdir).rglob("*")):
            if path.suffix in (".html", ".css"):
                for found in requests(path.read_text(encoding="utf-8")):
                    _log.warning("%s: would load from the network: %s", path, found)


def requests(text: str) -> list[str]:
    """What of a page of HTML or CSS a browser would load from the network."""
    return [found[0] for found in _LOADED.finditer(text)]
