"""The command line and Ctrl-C, readers that go away, and a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import TINY, Run, in_a_process

from fastlstm.models import LanguageModel, Record
from fastlstm.training import _progress


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
def test_ctrl_c_lets_the_demo_write(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("demo", "--seconds", 50)
    assert status == 0
    assert "stopped by Ctrl-C" in out
    assert out.count("--- prompt: ") == 2
    assert "\nLSTM  " in out
    assert "RNN" not in out  # nor is anything else trained
    assert "\nheld-out " in out


def test_ctrl_c_elsewhere(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LanguageModel, "generate", press)
    assert run("generate", model) == (130, "", "fastlstm: interrupted\n")


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
    assert re.search(rb"\r +0%\|.*\| \d+ s left, \d+k chars/s, \d\.\d{3} bits/char", shown)
    LanguageModel.load(output)
