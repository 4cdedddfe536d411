"""The demo: what it prints and saves; lines that end between words."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run

import fastlstm
from fastlstm.cli import _commands, main
from fastlstm.models import LanguageModel

SAVED = "fastlstm-demo.safetensors"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_demo(run: Run, folder: Path) -> None:
    status, out, err = run("demo", "--seconds", 2, "--seed", 1)
    assert status == 0
    assert not re.search(r"[\r\x1b]", out + err)
    assert re.search(r"^text: stories of a small grammar, 2,[\d,]+ characters and ", out, re.M)
    stories = out.partition("It reads stories such as these:\n\n")[2].split("\n\n")[:2]
    assert all(re.fullmatch(r"[A-Z].* gave .*\.", story) for story in stories)
    assert "\n--- prompt: John gave Mary a puppy.\n\nJohn gave Mary a puppy." in out
    assert len(re.findall(r"^--- prompt: (.+)$", out, re.M)) == 2
    names = ("LSTM", "RNN", "guessing")
    assert all(re.search(rf"^{name}( +\d+%){{5}}$", out, re.M) for name in names)
    assert re.search(r"^held-out \d\.\d{3} bits per character, .* \(\d+\.\d s\)$", out, re.M)
    assert "loss" not in err
    assert os.listdir(folder) == [SAVED]
    assert LanguageModel.load(SAVED).lstm.hidden_size == 128

    head, *commands = out.splitlines()[-4:]
    assert head == "next:"
    look, generate, train = (shlex.split(command)[1:] for command in commands)
    assert look == ["look", SAVED, "John gave Mary a puppy. She", "-o", "look.html"]
    assert train == ["train", "yours.txt", "-o", "yours.safetensors"]
    status, text, err = run(*generate)
    assert (status, err) == (0, "")
    assert text.startswith("John gave Mary a puppy.")


def test_the_rnn_reads_the_same_in_as_many_steps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[dict[str, Any]] = []
    fit = LanguageModel.fit

    def spied(self: LanguageModel, text: str, **options: Any) -> Any:
        history = fit(self, text, **options)
        sizes = (type(self.lstm).__name__, self.lstm.hidden_size, self.lstm.input_size)
        runs.append({"sizes": sizes, "text": text, "steps": history.records[-1].step,
                     "batch": (options["batch_size"], options["chunk"])})  # fmt: skip
        return history

    monkeypatch.setattr(LanguageModel, "fit", spied)
    assert run("demo", "--seconds", 0.2)[0] == 0
    lstm, rnn = runs
    assert (lstm.pop("sizes"), rnn.pop("sizes")) == (("LSTM", 128, 32), ("RNN", 128, 32))
    assert lstm == rnn


def test_other_texts_have_no_count(run: Run) -> None:
    status, out, _ = run("demo", "--corpus", "topics", "--seconds", 0.2, "--save", "a b")
    assert status == 0
    assert re.search(r"^text: pydoc_data\.topics of Python \d\S+, [\d,]+ char", out, re.M)
    assert "embedding 64, LSTM 256" in out
    assert "RNN" not in out
    assert '  fastlstm look "a b" "John gave Mary a puppy. She" -o look.html\n' in out
    LanguageModel.load("a b")


def test_demo_writes_from_other_prompts(run: Run) -> None:
    status, out, _ = run("demo", "--seconds", 0.01, "--prompt", "A", "--prompt", "B")
    assert status == 0
    assert re.findall(r"^--- prompt: (.+)$", out, re.M) == ["A", "B"]
    assert f"  fastlstm look {SAVED} A -o look.html\n" in out


def test_a_file_of_something_else_is_not_replaced(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained before the error was found")

    monkeypatch.setattr(LanguageModel, "fit", never)
    layer = Path("layer")
    fastlstm.LSTM(2, 3).save(layer)
    Path(SAVED).write_text("mine", encoding="utf-8")
    for options in ([], ["--save", layer]):
        path = Path(options[-1] if options else SAVED)
        before = path.read_bytes()
        status, out, err = run("demo", *options)
        assert (status, out) == (2, "")
        assert err == f"fastlstm: {path}: is there and no language model; --save M saves it as M\n"
        assert path.read_bytes() == before


def test_a_model_that_is_there_is_replaced(run: Run) -> None:
    LanguageModel("ab", hidden_size=3).save(SAVED)
    assert run("demo", "--seconds", 0.01)[0] == 0
    assert LanguageModel.load(SAVED).lstm.hidden_size == 128


def test_a_terminal_gets_whole_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "The\tquick  brown fox jumps-over the dog-rose\n\n  short  line\n" + "x" * 30
    _commands.show(text)
    assert capsys.readouterr().out == text + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    _commands.show(text)
    out = capsys.readouterr().out
    assert out.split() == text.split()
    assert (
        out
        == "The\tquick  brown fox\njumps-over the\ndog-rose\n\n  short  line\n" + "x" * 30 + "\n"
    )


def test_forget_gates_begin_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the model of the stories; one of another text is as all models are."""
    made: list[dict[str, Any]] = []

    def stop(text: str, **options: Any) -> None:
        made.append(options)
        raise ValueError("stop")

    monkeypatch.setattr("fastlstm.cli._demo.LanguageModel", stop)
    for corpus in ("stories", "topics"):
        assert main(["demo", "--corpus", corpus]) == 2
    assert (made[0]["forget_bias"], made[0]["max_lag"]) == ("chrono", 100)
    assert "forget_bias" not in made[1]
