"""The command line: what it prints and writes, its exit status, Ctrl-C and broken pipes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fastlstm
from fastlstm.cli import main
from fastlstm.models import History, LanguageModel, Record
from fastlstm.training import _progress

TEXT = "the cat sat on the mat, the dog lay on the log.\n" * 40
TINY = ["--hidden", "8", "--embedding", "4", "--batch-size", "4", "--chunk", "8"]

Run = Callable[..., tuple[int, str, str]]


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


def default_ctrl_c() -> None:
    """Undo what a shell does to its background jobs: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Press Ctrl-C during the third step of every training run."""
    before = signal.getsignal(signal.SIGINT)
    default_ctrl_c()
    show = _progress.ProgressDisplay.__call__

    def press(self: _progress.ProgressDisplay, record: Record) -> None:
        show(self, record)
        if record.step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_progress.ProgressDisplay, "__call__", press)
    yield
    signal.signal(signal.SIGINT, before)


def in_a_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastlstm", *map(str, arguments)]
    return subprocess.run(command, text=True, timeout=60, check=False, **options)


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
    assert all("chars/s, loss " in line and "held-out " in line for line in err.splitlines())
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
        "LanguageModel(17 characters, embedding_size=3, hidden_size=7, num_layers=2, dropout=0.25)"
    )
    assert seen == {
        "epochs": 2.5, "steps": None, "seconds": None,
        "batch_size": 5, "chunk": 6, "lr": 0.5, "held_out": 0.2,
    }  # fmt: skip
    assert run("train", book, "-o", output, "--steps", 3)[0] == 0
    assert (seen["epochs"], seen["steps"], seen["seconds"]) == (None, 3, None)
    assert run("train", book, "-o", output)[0] == 0
    assert (seen["epochs"], seen["steps"], seen["seconds"]) == (None, None, 60)


def test_demo(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "demo.safetensors"
    status, out, err = run("demo", "--seconds", 0.2, "--seed", 1, "--save", output)
    assert status == 0
    assert re.search(
        r"^text: pydoc_data\.topics of Python \d\S+, [\d,]+ characters and ", out, re.M
    )
    assert "\n--- prompt: John gave Mary a puppy.\n\nJohn gave Mary a puppy." in out
    prompts = re.findall(r"^--- prompt: (.+)$", out, re.M)
    assert len(prompts) == 2
    assert re.fullmatch(
        r"held-out \d\.\d{3} bits per character, "
        r"[\d,]+ characters per second \(\d+\.\d s\)",
        out.splitlines()[-1],
    )
    assert not re.search(r"[\r\x1b]", out + err)
    assert len(LanguageModel.load(output).generate("John", 3)) == 3


def test_demo_writes_from_other_prompts(run: Run) -> None:
    status, out, _ = run("demo", "--seconds", 0.01, "--prompt", "A", "--prompt", "B")
    assert status == 0
    assert re.findall(r"^--- prompt: (.+)$", out, re.M) == ["A", "B"]


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
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"fastlstm {fastlstm.__version__}\n"


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_saves_what_was_learned(run: Run, book: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    status, out, _ = run("train", book, "-o", output, "--seconds", 50, *TINY)
    assert status == 0
    assert "stopped by Ctrl-C; what was learned is kept" in out
    assert "model: embedding 4, LSTM 8, 17 characters, 669 weights\n" in out
    LanguageModel.load(output)


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("command", ["train", "demo"])
def test_a_second_ctrl_c_saves_without_measuring(
    run: Run, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def press(*_: object) -> float:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr(LanguageModel, "_mean_bits", press)
    output = tmp_path / "m.safetensors"
    options = [book, "-o", output, *TINY] if command == "train" else ["--save", output]
    status, out, err = run(command, *options, "--seconds", 50)
    assert status == 130
    assert out.endswith(f"saved as {output}\n")
    assert err.endswith("fastlstm: interrupted\n")
    LanguageModel.load(output)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("length", [("--seconds", 50), ("--steps", 1)])
def test_ctrl_c_while_saving_waits(
    run: Run, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: tuple[str, int]
) -> None:
    sync = os.fsync

    def press(file: int) -> None:
        signal.raise_signal(signal.SIGINT)
        sync(file)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "fsync", press)
    output = tmp_path / "m.safetensors"
    status, out, _ = run("train", book, "-o", output, *length, *TINY)
    assert (status, f"saved as {output}" in out) == (0, True)
    LanguageModel.load(output)


def test_ctrl_c_before_anything_was_learned_keeps_the_old_model(
    run: Run, book: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LanguageModel, "gradients", press)
    before = model.read_bytes()
    assert run("train", book, "-o", model, *TINY)[0] == 130
    assert model.read_bytes() == before


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_lets_the_demo_write(run: Run) -> None:
    status, out, _ = run("demo", "--seconds", 50)
    assert status == 0
    assert "stopped by Ctrl-C" in out
    assert out.count("--- prompt: ") == 2
    assert out.splitlines()[-1].startswith("held-out ")


def test_ctrl_c_elsewhere(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LanguageModel, "generate", press)
    assert run("generate", model) == (130, "", "fastlstm: interrupted\n")


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


def test_help_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["demo", "--help"], ["train", "-h"], ["generate", "-h"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        text = capsys.readouterr().out
        assert "example" in text or arguments[0] == "demo"
        assert "None" not in text
        assert max(map(len, text.splitlines())) <= 100


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("n", [10, 20_000])
def test_a_reader_that_goes_away_is_no_error(model: Path, n: int) -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = ("generate", model, "--prompt", "the", "-n", n)
    buffered = {name: v for name, v in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = in_a_process(*arguments, stdout=write, stderr=subprocess.PIPE, env=buffered)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


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


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_a_terminal_shows_a_bar_and_takes_ctrl_c(book: Path, tmp_path: Path) -> None:
    import pty
    import select
    import termios

    output = tmp_path / "m.safetensors"
    control, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-m", "fastlstm", "train", book, "-o", output, "--seconds", "50"]
    with subprocess.Popen(
        [*command, *TINY], stdout=subprocess.PIPE, stderr=terminal, preexec_fn=default_ctrl_c
    ) as process:
        os.close(terminal)
        shown = b""
        # An error is the end of a process that should not have ended yet: see what it printed.
        with contextlib.suppress(OSError):
            while b"chars/s" not in shown and select.select([control], [], [], 30)[0]:
                shown += os.read(control, 1000)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    os.close(control)
    assert (process.returncode, b"chars/s" in shown) == (0, True), shown
    assert b"stopped by Ctrl-C" in out
    assert b"\r" not in out
    assert re.search(rb"\r +0%\|.*\| \d+ s left, \d+k chars/s, loss \d\.", shown)
    LanguageModel.load(output)
