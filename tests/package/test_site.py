"""What Sphinx does in docs/ beside its own; ``make docs`` builds the site itself."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from support.checkout import CHECKOUT

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def site() -> Any:
    for package in ("sphinx", "latex2mathml"):
        pytest.importorskip(package)
    sys.path.append(str(CHECKOUT / "docs"))
    import fastlstm_site

    return fastlstm_site


@pytest.mark.parametrize(
    "text",
    [
        '<script async="async" src="https://cdn.example/mathjax.js"></script>',
        '<img alt="" src="//example.org/a.png">',
        '<link rel="stylesheet" href="http://example.org/a.css">',
        '<link href="https://example.org/a.css" rel="stylesheet">',
        "@import 'a.css';",
        "div { background: url(https://example.org/a.png) }",
    ],
)
def test_what_comes_from_the_network_is_found(site: Any, text: str) -> None:
    assert len(site.requests(f"<p>{text}</p>")) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<script src="_static/a.js"></script>',
        '<a href="https://example.org/">elsewhere</a>',
        '<link rel="stylesheet" href="_static/a.css">',
        '<math xmlns="http://www.w3.org/1998/Math/MathML">',
    ],
)
def test_what_does_not_is_none(site: Any, text: str) -> None:
    assert site.requests(text) == []


def test_formulas(site: Any) -> None:
    assert "<mtr>" not in site.formula(r"c_t = f \odot c_{t-1}", "inline")
    for text in (r"a &= 1 \\ b &= 2", r"\begin{aligned}a &= 1 \\ b &= 2\end{aligned}"):
        assert site.formula(text, "block").count("<mtr>") == 2
    with pytest.raises(Exception, match=r"\\nosuch is not understood"):
        site.formula(r"\nosuch{a}", "block")


def test_links_lead_to_pages(site: Any) -> None:
    """Of files that are pages of the site; and those within such a file are seen from the page."""

    class App:
        srcdir = str(CHECKOUT / "docs")
        env = type("Env", (), {"note_dependency": staticmethod(lambda path: None)})

    source = ["[a](../../benchmarks/README.md#accuracy) [b](../../examples/digits.py) [c](x.md)"]
    site._lead_to_pages(App, "howto/page", source)
    assert source == [
        "[a](/explanation/all-benchmarks.md#accuracy) [b](../../examples/digits.py) [c](x.md)"
    ]
    source = ["```{include} ../../benchmarks/README.md\n```"]
    site._lead_to_pages(App, "explanation/page", source)
    assert "](../../benchmarks/hidden.svg)" in source[0]
    assert "](../howto/quantize.md)" in source[0]


def test_rows_of_instruction_sets(site: Any) -> None:
    text = (CHECKOUT / "src" / "cpu" / "isas.def").read_text(encoding="utf-8")
    rows = site._ROW.findall(text)
    assert {"avx512", "avx2", "neon", "baseline"} < {name for name, *_ in rows}
    assert len(rows) == text.count("\nFL_ISA(")
    assert ("neon", "ARM64", "16", "") in rows
