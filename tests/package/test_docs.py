"""The pages of docs/: their code runs, and their pictures show what they say."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkout import CHECKOUT

import fastlstm

DOCS = CHECKOUT / "docs"
SCRIPT = DOCS / "make_plots.py"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.fixture(scope="module", params=PAGES, ids=[page.stem for page in PAGES])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The names that the code of a page defines."""
    pytest.importorskip("matplotlib")
    if "sklearn" in request.param.read_text(encoding="utf-8"):
        pytest.importorskip("sklearn")
    threads = fastlstm.get_num_threads()
    fastlstm.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        patch.chdir(tmp_path_factory.mktemp("docs"))
        names = runpy.run_path(str(SCRIPT))["run"](request.param)
    fastlstm.set_num_threads(threads)
    return {"page": request.param, **names}


def test_pages_show_their_pictures(page: dict[str, Any]) -> None:
    """All of them, and small ones."""
    from matplotlib.figure import Figure

    text = page["page"].read_text(encoding="utf-8")
    shown = set(re.findall(r"!\[[^]]+\]\((\w+\.svg)\)", text))
    drawn = {f"{name}.svg" for name, value in page.items() if isinstance(value, Figure)}
    assert drawn <= shown
    for link in shown | set(re.findall(r"\]\(([^)#:]+)", text)):
        assert (DOCS / link).is_file(), link
    for name in shown:
        assert (DOCS / name).stat().st_size < 60_000, name


def test_looking_inside(page: dict[str, Any]) -> None:
    """What it says of its model and its layers."""
    if page["page"].stem != "looking-inside":
        pytest.skip("another page")
    trace, sentence = page["trace"], page["sentence"]
    brackets = np.isin(list(sentence), list("()[]"))
    closing = {unit for unit in range(12) if trace.forget[:, unit].min() < 0.1}
    assert closing == {3, 6, 11}
    assert trace.forget[~brackets][:, [3, 6, 11]].min() > 0.9
    for character, cell in zip(sentence, trace.cell[:, 3], strict=True):
        if character in ")]":
            assert cell == pytest.approx(1, abs=0.1)
        elif character in "([":
            assert cell == pytest.approx({"(": 0, "[": -1}[character], abs=0.3)
    opened = sentence.index("(")
    assert (np.diff(trace.cell[opened : sentence.index(")"), 11]) > 0.5).all()
    left = {
        name: page["plot"].gradient_norms(layer, page["x"])[-11]
        for name, layer in page["layers"].items()
    }
    assert left["RNN"] < 1e-3 < left["GRU"] < 1e-2
    assert left["LSTM"] < 1e-2 < 0.1 < left["LSTM, forget bias 3"]


def test_pictures_are_drawn_again(tmp_path: Path) -> None:
    """Each that is kept, by the script, twice the same."""
    pytest.importorskip("matplotlib")
    files = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        command = [sys.executable, str(SCRIPT), "--folder", str(folder), "--updates", "1"]
        subprocess.run(command, check=True, capture_output=True)
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1]
    assert files[0].keys() == {path.name for path in DOCS.glob("*.svg")}
    assert b"<dc:date>" not in b"".join(files[0].values())


def test_help() -> None:
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(SCRIPT), "--help"]
    assert "--folder" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
