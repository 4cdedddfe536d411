"""Command lines run in this process; a text and a model for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.command_line import TEXT, Run

import fastlstm
from fastlstm.cli import main
from fastlstm.models import LanguageModel


@pytest.fixture(autouse=True)
def same_threads() -> Any:
    before = fastlstm.get_num_threads()
    yield
    fastlstm.set_num_threads(before)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: status, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    LanguageModel(TEXT, embedding_size=4, hidden_size=8, seed=1).save(path)
    return path
