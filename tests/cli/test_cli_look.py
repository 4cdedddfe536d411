"""The command look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import Run, in_a_process

import fastlstm
from fastlstm.models import LanguageModel

TEXT = "the cat sat"


@pytest.fixture
def series(tmp_path: Path) -> Path:
    path = tmp_path / "layer.safetensors"
    fastlstm.GRU(2, 3, seed=0).save(path)
    return path


def page_of(path: Path, text: Any, *options: Any, **more: Any) -> str:
    kind = LanguageModel if isinstance(text, str) else fastlstm.GRU
    return fastlstm.look(kind.load(path), text, *options, **more).html


def test_a_text(run: Run, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    status, out, err = run("look", model, TEXT, "-o", output)
    assert (status, err) == (0, "")
    assert "11 characters" in out
    assert f"saved as {output}; open it in a browser: {output.as_uri()}" in out
    assert output.read_text(encoding="utf-8") == page_of(model, TEXT)


def test_options(run: Run, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    assert run("look", model, TEXT, "-o", output, "--unit", 2, "--why", 5, "--why", 9)[0] == 0
    assert output.read_text(encoding="utf-8") == page_of(model, TEXT, (5, 9), unit=2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_texts_of_files(encoding: str, run: Run, model: Path, tmp_path: Path) -> None:
    output, file = tmp_path / "page.html", tmp_path / "text"
    file.write_text(TEXT, encoding=encoding)
    assert run("look", model, "--file", file, "-o", output)[0] == 0
    assert output.read_text(encoding="utf-8") == page_of(model, TEXT)


def test_standard_input(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    command = ("look", model, "--file", "-", "-o", output)
    result = in_a_process(*command, input="\ufeff" + TEXT, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    assert output.read_text(encoding="utf-8") == page_of(model, TEXT)


def test_series(run: Run, series: Path, tmp_path: Path) -> None:
    output, x = tmp_path / "page.html", np.arange(12, dtype=np.float32).reshape(6, 2) / 8
    np.save(tmp_path / "x.npy", x)
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    for name in ("x.npy", "x.csv"):
        status, out, _ = run("look", series, "--file", tmp_path / name, "-o", output)
        assert status == 0
        assert "GRU, 1 layer of 3 units, 6 steps" in out
        assert output.read_text(encoding="utf-8") == page_of(series, x)


def test_errors(run: Run, model: Path, series: Path, tmp_path: Path) -> None:
    """One line each, and no page."""
    output = tmp_path / "page.html"
    letters = tmp_path / "letters.csv"
    letters.write_text("a,b\n", encoding="utf-8")
    latin = tmp_path / "latin"
    latin.write_bytes(b"the\xe9")
    cases: list[tuple[list[Any], str]] = [
        ([model], "TEXT: expected a text, or --file F; got neither"),
        ([model, TEXT, "--file", "f"], "TEXT: expected a text or --file F, got both"),
        ([series, TEXT], "expected a language model, to read a text, got a layer"),
        ([model, "Zebra!"], "is not one of the"),
        ([model, TEXT, "--unit", 999], "unit: expected at most"),
        ([model, TEXT, "--why", 11], "why: expected at most 10, got 11"),
        ([tmp_path / "missing", TEXT], "missing: No such file or directory"),
        ([model, "--file", tmp_path / "missing"], "missing: No such file or directory"),
        ([series, "--file", letters], f"{letters}: could not convert string"),
        ([model, "--file", latin], f"{latin}: not text in UTF-8 (at byte 4)"),
    ]
    for arguments, message in cases:
        status, out, err = run("look", *arguments, "-o", output)
        assert (status, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    assert not output.exists()


def test_what_is_read_is_not_replaced(run: Run, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text(TEXT, encoding="utf-8")
    before = model.read_bytes()
    for output, what in ((model, "model"), (text, "text")):
        status, _, err = run("look", model, "--file", text, "-o", output)
        assert status == 2
        assert f"-o: expected another file than that of the {what}, got {output}" in err
    assert model.read_bytes() == before
    assert text.read_text(encoding="utf-8") == TEXT
