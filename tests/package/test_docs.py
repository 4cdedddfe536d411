"""The pages of docs/: their code runs and prints what they say, and their links lead somewhere."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkout import CHECKOUT

import fastlstm

DOCS = CHECKOUT / "docs"
sys.path.append(str(DOCS))
import pages  # noqa: E402

# Keras, when its weights are read.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PAGES = pages.all_pages()
WITH_CODE = [page for page in PAGES if pages.blocks(page, "python")]
OTHERS = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]


def name_of(page: Path) -> str:
    return page.relative_to(CHECKOUT).with_suffix("").as_posix()


TRAINED = ("09-john-gave-mary-a-puppy", "10-look-inside")  # what they print, training has made


def parameter(page: Path) -> Any:
    """A page; one that compares with other libraries is marked."""
    marks = [pytest.mark.peer] if pages.needs(page) - {"matplotlib", "safetensors"} else []
    if page.stem in TRAINED:
        other = fastlstm.isas() == ["baseline"]
        marks.append(pytest.mark.skipif(other, reason="without FMA, training takes another path"))
    return pytest.param(page, id=name_of(page), marks=marks)


@functools.cache
def names_of(page: Path) -> dict[str, Any]:
    """The names that the code of a page defines; it runs once, elsewhere."""
    if missing := pages.missing(page):  # Keras cannot be imported just so
        pytest.skip(f"no {', '.join(missing)}")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as elsewhere:
        patch.setenv("MPLBACKEND", "Agg")
        patch.chdir(elsewhere)
        return pages.run(page)


@pytest.mark.parametrize("page", [parameter(page) for page in WITH_CODE])
def test_pages_run_and_draw_their_pictures(page: Path) -> None:
    names = names_of(page)
    if pages.pictures(page):
        pages.figures(page, names)


def test_looking_inside() -> None:
    """What it says of its model and its layers."""
    names = names_of(DOCS / "explanation" / "what-gates-do.md")
    trace, sentence = names["trace"], names["sentence"]
    brackets = np.isin(list(sentence), list("()[]"))
    closing = {unit for unit in range(12) if trace.forget[:, unit].min() < 0.1}
    assert closing == {3, 4, 5, 6, 11}
    assert trace.forget[~brackets][:, sorted(closing)].min() > 0.8
    known = np.nan  # what the last bracket was
    for character, cell in zip(sentence, trace.cell[:, 5], strict=True):
        known = {")": 0.9, "]": 0.9, "(": -0.9, "[": 1.8}.get(character, known)
        assert np.isnan(known) or cell == pytest.approx(known, abs=0.15)
    opened = sentence.index("(")
    assert (np.diff(trace.cell[opened : sentence.index(")"), 3]) < -0.5).all()
    assert trace.forget[:, 1].min() > 0.5
    left = {
        name: names["plot"].gradient_norms(layer, names["x"])[-11]
        for name, layer in names["layers"].items()
    }
    assert left["RNN"] < 1e-3 < left["GRU"] < 1e-2
    assert left["LSTM"] < 1e-2 < 0.1 < left["LSTM, forget bias 3"]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_links(page: Path) -> None:
    """To files that are there, and to headings of pages."""
    for link in pages.links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in pages.anchors(target), link


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_commands(page: Path) -> None:
    """Their arguments are understood."""
    for words in pages.commands(page):
        try:
            pages.check_command(words)
        except ImportError:
            assert words[0] != "fastlstm"  # an example of a package that is not installed


def test_names_of_pictures_are_of_one_page() -> None:
    names = [name for page in PAGES for name in pages.pictures(page)]
    assert len(names) == len(set(names))


DIRECTIVE = re.compile(r"^\.\. (auto\w+|data):: ([\w.]+)", re.MULTILINE)


def test_public_names_are_in_the_reference() -> None:
    described = {
        name
        for page in (DOCS / "reference").glob("*.md")
        for _, name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))
    }
    names = pages.public_names()
    assert {"fastlstm.LSTM", "fastlstm.optim.Adam", "fastlstm.plot.gates"} <= names
    missing = {name for name in names if not {name, name.rpartition(".")[0]} & described}
    assert not missing


def test_commands_are_in_the_reference() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "fastlstm", "nosuch"], capture_output=True, text=True, check=False
    )
    commands = re.findall(r"\w+", run.stderr.rpartition("choose from")[2])
    assert "train" in commands
    text = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert set(commands) == set(re.findall(r"^```{command-help} (\w+)$", text, re.MULTILINE))


def test_environment_variables_are_in_the_reference() -> None:
    sources = [CHECKOUT / "setup.py", *(CHECKOUT / "fastlstm").rglob("*.py*")]
    texts = [path.read_text("utf-8") for path in sources if path.suffix in (".py", ".pyx")]
    read = {name for text in texts for name in re.findall(r'"(FASTLSTM_\w+)"', text)}
    assert "FASTLSTM_NUM_THREADS" in read
    text = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    assert read == set(re.findall(r"FASTLSTM_\w+", text))


def a_page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_blocks_share_names_and_output_is_compared(tmp_path: Path) -> None:
    page = "```python\na = 2\nprint(a)\n```\n\n```python\n>>> b = a + 1\n>>> b\n3\n```\n"
    assert pages.run(a_page(tmp_path, page))["b"] == 3
    with pytest.raises(AssertionError, match="line 8"):
        pages.run(a_page(tmp_path, page.replace("3\n```", "4\n```")))


def test_packages_that_a_page_needs(tmp_path: Path) -> None:
    """Those it imports, and those it only reads files of."""
    page = a_page(
        tmp_path,
        "```python\nimport numpy as np, json\nimport nosuch.part\n"
        'path = distribution("nodata").locate_file("a.csv")\n```\n',
    )
    assert pages.needs(page) == {"nosuch", "nodata"}
    assert pages.missing(page) == ["nodata", "nosuch"]


def test_errors_name_the_line_of_the_page(tmp_path: Path) -> None:
    page = a_page(tmp_path, "Words.\n\n```python\na = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        pages.run(page)
    assert caught.traceback[-1].lineno == 4  # counted from 0


def test_pictures_that_no_code_draws(tmp_path: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    page = a_page(tmp_path, "![a line](line.svg)")
    assert pages.figures(page, {"line": figure.Figure()}).keys() == {"line"}
    for names in ({"line": 1}, {"line": figure.Figure(), "other": figure.Figure()}):
        with pytest.raises(ValueError, match=r"page\.md: shows line, but its code draws"):
            pages.figures(page, names)


@pytest.mark.parametrize(
    "command", ["fastlstm train book.txt", "A=1 mpiexec -n 2 fastlstm generate", "fastlstm x"]
)
def test_commands_that_are_wrong(command: str, tmp_path: Path) -> None:
    [words] = pages.commands(
        a_page(tmp_path, f"```sh\npip install . && {command} --such  # no\n```")
    )
    with pytest.raises(ValueError, match=r"--such|required|invalid choice"):
        pages.check_command(words)


def test_commands_of_others_are_left_alone(tmp_path: Path) -> None:
    page = a_page(tmp_path, "```sh\npip install fastlstm\nls 'examples/' | wc\n```\n")
    assert list(pages.commands(page)) == []
    page = a_page(tmp_path, '```sh\nfastlstm generate m \\\n    --prompt "a; b" | less\n```\n')
    assert list(pages.commands(page)) == [["fastlstm", "generate", "m", "--prompt", "a; b"]]


def draw(page: Path) -> str:
    """What the function of make_plots returns, in a process of its own."""
    code = f"import make_plots, pathlib; print(*make_plots.draw(pathlib.Path({str(page)!r})))"
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(DOCS)!r}); {code}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_pictures_are_drawn(tmp_path: Path) -> None:
    """Beside the page, and the same each time."""
    pytest.importorskip("matplotlib")
    page = a_page(
        tmp_path,
        "![a line](line.svg)\n```python\nfrom matplotlib.figure import Figure\n"
        "line = Figure()\nline.subplots().plot([1, 2])\n```\n",
    )
    drawn = []
    for _ in range(2):
        assert draw(page) == str(tmp_path / "line.svg")
        drawn.append((tmp_path / "line.svg").read_bytes())
    assert drawn[0] == drawn[1]
    assert b"<dc:date>" not in drawn[0]


def test_a_picture_that_cannot_be_drawn_says_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = a_page(tmp_path, "![a line](line.svg)\n```python\nimport nosuch\n```\n")
    draw(page)
    assert b"drawn where nosuch is installed" in (tmp_path / "line.svg").read_bytes()


def test_help() -> None:
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(DOCS / "make_plots.py"), "--help"]
    assert "--format" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
