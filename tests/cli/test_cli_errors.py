"""Errors and notes of the command line: one line, an exit status, and files as they were."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support.command_line import TEXT, TINY, Run

from fastlstm.cli import main
from fastlstm.models import LanguageModel


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_bad_input_is_one_line_and_status_2(
    run: Run, book: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained before the error was found")

    monkeypatch.setattr(LanguageModel, "fit", never)
    monkeypatch.chdir(tmp_path)
    out, before = tmp_path / "out", set(os.listdir(tmp_path))
    whole = model.read_bytes()
    link = tmp_path / "link"
    link.symlink_to(book)
    cases: list[tuple[list[object], str]] = [
        (["train", "no.txt", "-o", out], r"no\.txt: No such file or directory"),
        (["train", tmp_path, "-o", out], r".*: Is a directory"),
        (["train", write(tmp_path / "a", b""), "-o", out], "a: expected at least 20 .*, got 0"),
        (["train", write(tmp_path / "b", b"short"), "-o", out], "b: expected at least 20 .* got 5"),
        (["train", write(tmp_path / "c", b"abc\xff" * 9), "-o", out], r"in UTF-8 \(at byte 4\)"),
        (["train", book, "-o", "none/m"], "none/m: there is no directory .*none"),
        (["train", book, "-o", tmp_path], ": is a directory"),
        (["train", book, "-o", "/dev/null"], "/dev/null: is not a regular file"),
        (["train", book, "-o", book], r"-o: expected another file than .* text, got .*book\.txt"),
        (["train", book, "-o", link], r"-o: expected another file than .* text, got .*link"),
        (["train", book, "-o", out, "--hidden", "1" + "0" * 18],
         "--embedding, --hidden, --layers: too large"),
        (["train", book, "-o", out, "--layers", "1001"], "--layers: expected at most 1000, got"),
        (["demo", "--save", "none/m"], "none/m: there is no directory"),
        (["demo", "--prompt", "\u4e2d"], "--prompt: '\u4e2d' .character 1. is not one of the"),
        (["demo", "--prompt", ""], "--prompt: expected at least one character"),
        (["generate", "no.safetensors"], r"no\.safetensors: No such file or directory"),
        (["generate", tmp_path], "Is a directory"),
        (["generate", book], r"book\.txt: not a safetensors file, or not all of one"),
        (["generate", write(tmp_path / "d", whole[:-9])], "d: not a safetensors file, or not all"),
        (["generate", model, "--prompt", "The"], r"--prompt: 'T' \(character 1\) is not one of"),
        (["generate", model, "-n", "1" + "0" * 20], "-n: too large, 1"),
    ]  # fmt: skip
    for arguments, message in cases:
        status, text, err = run(*arguments)
        assert (status, text) == (2, ""), arguments
        assert re.fullmatch(rf"fastlstm: .*{message}.*\n", err), err
    assert (model.read_bytes(), book.read_text(encoding="utf-8")) == (whole, TEXT)
    assert set(os.listdir(tmp_path)) - before == {"a", "b", "c", "d", "link"}


def test_a_model_of_a_path_that_has_the_name_of_an_argument(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model.rename("n")
    Path("n").write_bytes(b"no model")
    assert run("generate", "n")[2].startswith("fastlstm: n: not a safetensors file")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("train x", "the following arguments are required: -o/--output"),
        ("train x -o y --seconds 0", "--seconds: expected a number above 0, got '0'"),
        ("train x -o y --seconds inf", "--seconds: expected a number above 0, got 'inf'"),
        ("train x -o y --steps 1.5", "--steps: expected a whole number of at least 1, got '1.5'"),
        ("train x -o y --steps 3 --epochs 2", "not allowed with argument"),
        ("train x -o y --dropout 2", "--dropout: expected a number from 0 to 1, got '2'"),
        ("train x -o y --dropout nan", "--dropout: expected a number from 0 to 1, got 'nan'"),
        ("train x -o y --held-out 1", "--held-out: expected a number from 0 to less than 1, got"),
        ("train x -o y --batch-size 0", "--batch-size: expected a whole number of at least 1"),
        ("generate x -n -1", "-n: expected a whole number of at least 0, got '-1'"),
        ("generate x --temperature -1", "--temperature: expected a number of at least 0, got '-1'"),
        ("generate x --temperature inf", "--temperature: expected a number of at least 0, got 'i"),
        ("demo --threads 0", "--threads: expected a whole number of at least 1, got '0'"),
        ("demo --threads 2000", "--threads: expected at most 1024, got 2000"),
        ("demo --seed -1", "--seed: expected a whole number of at least 0, got '-1'"),
        (
            "info --plan 1,2,3,4",
            "--plan: expected five whole numbers of at least 1, L,I,H,B,T, got",
        ),
        ("info --plan 1,2,3,4,5,6", "--plan: expected five whole numbers of at least 1"),
        ("info --plan 1,2,0,4,5", "--plan: expected five whole numbers of at least 1"),
        ("info --plan 1,2,x,4,5", "L,I,H,B,T, got '1,2,x,4,5'"),
        ("demo --corpus novels", "invalid choice: 'novels'"),
    ],
)
def test_wrong_arguments(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    assert message in capsys.readouterr().err


def test_too_large_for_the_memory(
    run: Run, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("this call needs 39526400000 bytes of work space")

    monkeypatch.setattr(LanguageModel, "fit", fail)
    status, _, err = run("train", book, "-o", tmp_path / "m")
    assert (status, err) == (
        2,
        "fastlstm: not enough memory: this call needs 39526400000 bytes of work space; "
        "lower --batch-size, --chunk, --hidden, --embedding or --layers\n",
    )
    assert run("demo")[2] == (
        "fastlstm: not enough memory: this call needs 39526400000 bytes of work space\n"
    )


def test_dropout_without_effect_is_told(run: Run, book: Path, tmp_path: Path) -> None:
    arguments = ["train", book, "-o", tmp_path / "m", "--steps", 1, "--dropout", 0.5, *TINY]
    note = "fastlstm: --dropout: no effect with one layer, it acts between layers\n"
    status, _, err = run(*arguments)
    assert (status, err.startswith(note)) == (0, True)
    status, _, err = run(*arguments, "--layers", 2)
    assert (status, note in err) == (0, False)


def test_an_error_in_training_keeps_the_old_model(
    run: Run, book: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise FloatingPointError("the training loss is nan")

    monkeypatch.setattr(LanguageModel, "fit", diverge)
    before = model.read_bytes()
    status, _, err = run("train", book, "-o", model)
    assert (status, err) == (2, "fastlstm: the training loss is nan\n")
    assert model.read_bytes() == before
