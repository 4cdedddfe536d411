"""The command line: what its commands print and write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command_line import TEXT, TINY, Run, in_a_process

import fastlstm
from fastlstm.cli import main
from fastlstm.models import History, LanguageModel, Record


def test_train_and_generate(run: Run, book: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    status, out, err = run("train", book, "-o", output, "--steps", 40, "--seed", 1, *TINY)
    assert status == 0
    assert "1,728 characters and 192 held out" in out
    assert f"saved as {output}" in out
    assert re.search(
        r"^held-out \d\.\d{3} bits per character, [\d,]+ characters per second \(\d+\.\d s\)$",
        out,
        re.M,
    )
    assert [line.split()[0] for line in err.splitlines()] == [f"{n}%" for n in range(10, 101, 10)]
    line = r" *\d+% +\d+\.\d s, [\d,]+ chars/s, \d+\.\d{3} bits/char, held-out \d+\.\d{3}"
    assert all(re.fullmatch(line, shown) for shown in err.splitlines())
    assert not re.search(r"[\r\x1b]", out + err)

    loaded = LanguageModel.load(output)
    arguments = ("generate", output, "--prompt", "the cat", "-n", 20, "--seed", 3)
    status, text, err = run(*arguments)
    assert (status, err) == (0, "")
    assert text == "the cat" + loaded.generate("the cat", 20, seed=3) + "\n"
    assert run(*arguments) == (0, text, "")
    assert run(*arguments, "--temperature", 0)[1] == run(*arguments[:-2], "--temperature", 0)[1]


def test_train_passes_its_options_on(
    run: Run, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def fit(self: LanguageModel, text: str, **options: Any) -> History:
        seen.update(options, model=repr(self))
        return History([Record(1, 1, 1.0, 1.0, 1.0, 1.0)])

    monkeypatch.setattr(LanguageModel, "fit", fit)
    options = "--epochs 2.5 --hidden 7 --layers 2 --embedding 3 --dropout 0.25 --batch-size 5"
    more = "--chunk 6 --lr 0.5 --held-out 0.2 --threads 1"
    output = tmp_path / "m"
    status, out, _ = run("train", book, "-o", output, *options.split(), *more.split())
    assert status == 0
    assert "model: embedding 3, LSTM 2 x 7, 17 characters" in out
    assert fastlstm.get_num_threads() == 1
    seen.pop("progress")
    assert seen.pop("model") == (
        "LanguageModel(17 characters, 971 weights, "
        "embedding_size=3, hidden_size=7, num_layers=2, dropout=0.25)"
    )
    assert seen == {
        "epochs": 2.5, "steps": None, "seconds": None,
        "batch_size": 5, "chunk": 6, "lr": 0.5, "held_out": 0.2,
        "checkpoint": None, "checkpoint_every": None, "resume": False,
        "shards": None, "group": None,
    }  # fmt: skip
    options = "--checkpoint c --checkpoint-every 9 --resume auto --shards 4"
    run("train", book, "-o", output, *options.split())
    assert (seen["checkpoint"], seen["checkpoint_every"], seen["resume"]) == ("c", 9, "auto")
    assert (seen["shards"], seen["group"]) == (4, None)
    run("train", book, "-o", output, "--checkpoint", "c", "--resume", "yes")
    assert seen["resume"] is True
    assert run("train", book, "-o", output, "--steps", 3)[0] == 0
    assert (seen["epochs"], seen["steps"], seen["seconds"]) == (None, 3, None)
    assert run("train", book, "-o", output)[0] == 0
    assert (seen["epochs"], seen["steps"], seen["seconds"]) == (None, None, 60)


def test_library_adds_docstrings_and_measures_the_same() -> None:
    from fastlstm.cli import _demo_text

    topics, library = _demo_text.load("topics"), _demo_text.load("library")
    assert library.held_out == topics.held_out
    assert library.text.endswith(topics.text)
    assert "Join two or more pathname components" in library.text
    assert len(topics.held_out) == (len(topics.text) + len(topics.held_out)) // 10


def test_info_and_version(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fastlstm.show_config()
    expected = capsys.readouterr().out
    assert run("info") == (0, expected, "")
    lstm = fastlstm.LSTM(3, 5, 2)
    plans = [lstm.plan(7, 4, training=training) for training in (False, True)]
    status, out, err = run("info", "--plan", "2,3,5,4,7")
    assert (status, out, err) == (0, "\n\n".join([expected.rstrip("\n"), *plans]) + "\n", "")
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"fastlstm {fastlstm.__version__}\n"


def test_train_reads_standard_input(tmp_path: Path) -> None:
    output = tmp_path / "m"
    command = ("train", "-", "-o", output, "--steps", 1, *TINY)
    result = in_a_process(*command, input="\ufeff" + TEXT, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    assert "text: standard input, 1,728 characters and 192 held out" in result.stdout
    assert "\ufeff" not in LanguageModel.load(output).alphabet
    result = in_a_process(*command, input="short", capture_output=True)
    assert "standard input: expected at least 20 characters, got 5\n" in result.stderr
    with open(output, "rb") as model:
        result = in_a_process(*command, stdin=model, capture_output=True)
    assert "-o: expected another file" in result.stderr


def test_generate_begins_a_line(run: Run, model: Path, tmp_path: Path) -> None:
    loaded = LanguageModel.load(model)
    assert run("generate", model, "-n", 30, "--seed", 2)[1] == (
        loaded.generate("\n", 30, seed=2) + "\n"
    )
    for alphabet, start in (("b a", " "), ("cba", "a")):
        path = tmp_path / "other"
        LanguageModel(alphabet, embedding_size=2, hidden_size=2).save(path)
        expected = LanguageModel.load(path).generate(start, 9, seed=2)
        assert run("generate", path, "-n", 9, "--seed", 2)[1] == expected + "\n"


def test_help_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ("train", "generate", "quantize")
    for arguments in (["--help"], ["demo", "--help"], *([name, "-h"] for name in commands)):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        text = capsys.readouterr().out
        assert "example" in text or arguments[0] == "demo"
        assert "None" not in text
        assert max(map(len, text.splitlines())) <= 100


def test_an_unknown_character_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    LanguageModel("ab", embedding_size=2, hidden_size=2).save(path)
    for encoding, shown in (("utf-8", "\u4e2d"), ("ascii", r"\u4e2d")):
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": encoding}
        options = {"capture_output": True, "env": environment, "encoding": encoding}
        result = in_a_process("generate", path, "--prompt", "a\u4e2d", **options)
        assert f"--prompt: '{shown}' (character 2) is not one of the 2 characters" in result.stderr


def test_output_without_unicode(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    LanguageModel("\u4e2d\u6587", embedding_size=2, hidden_size=2).save(path)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = in_a_process(
        "generate", path, "--prompt", "\u4e2d", "-n", 5, capture_output=True, env=environment
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "??????\n", "")


def test_importing_is_light() -> None:
    code = "import sys, fastlstm.cli; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    for name in ("tqdm", "safetensors", "pydoc_data", "torch"):
        assert f"'{name}'" not in result.stdout
