"""The command line and checkpoints: what it prints, and the same command again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import TINY, Run
from support.signals import default_signals, defaults, needs_posix_signals

from fastlstm.models import LanguageModel, Record
from fastlstm.training import _progress

LONG = ["--seed", 3, "--layers", 2, "--dropout", 0.2, *TINY]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tmp_path / "run.ckpt"


@pytest.fixture
def default_handlers() -> Iterator[None]:
    with defaults():
        yield


def send_at(step: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal during the step after this one, in every run that shows its progress."""
    show = _progress.ProgressDisplay.__call__

    def send(self: _progress.ProgressDisplay, record: Record) -> None:
        show(self, record)
        if record.step == step:
            signal.raise_signal(number)

    monkeypatch.setattr(_progress.ProgressDisplay, "__call__", send)


@needs_posix_signals
@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_the_same_command_goes_on(
    run: Run, book: Path, tmp_path: Path, checkpoint: Path, name: str
) -> None:
    whole, output, number = tmp_path / "whole", tmp_path / "m", getattr(signal, name)
    command = ["train", book, "--steps", 20, *LONG]
    assert run(*command, "-o", whole)[0] == 0
    command += ["-o", output, "--checkpoint", checkpoint, "--resume", "auto"]
    goes_on = f"; the training is saved as {checkpoint}, the same command goes on\n"
    with pytest.MonkeyPatch.context() as patch:
        send_at(6, number, patch)
        status, out, _ = run(*command)
    if name == "SIGINT":
        assert status == 0
        assert f"stopped by Ctrl-C; what was learned is kept{goes_on}" in out
        assert output.read_bytes() != whole.read_bytes()
    else:
        assert status == 128 + number
        assert out.endswith(f"stopped by {name}{goes_on}")
        assert not output.exists()
    status, out, _ = run(*command)
    assert (status, out.count("resumed at step 7\n"), "stopped" in out) == (0, 1, False)
    assert output.read_bytes() == whole.read_bytes()
    output.unlink()
    status, out, _ = run(*command)
    assert (status, out.count("resumed at step 20\n")) == (0, 1)
    assert output.read_bytes() == whole.read_bytes()


@needs_posix_signals
@pytest.mark.usefixtures("default_handlers")
def test_one_line_says_how_to_go_on(run: Run, book: Path, tmp_path: Path, checkpoint: Path) -> None:
    command = [
        "train",
        book,
        "--steps",
        20,
        *LONG,
        "-o",
        tmp_path / "m",
        "--checkpoint",
        checkpoint,
    ]
    for options, words in (
        ([], "the same command with --resume auto goes on"),
        (["--resume", "yes"], "the same command goes on"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            send_at(3 if not options else 8, signal.SIGTERM, patch)
            out = run(*command, *options)[1]
        last = f"stopped by SIGTERM; the training is saved as {checkpoint}, {words}\n"
        assert out.endswith(last)
        assert out.count("resumed at step 4\n") == len(options) / 2


@needs_posix_signals
def test_a_process_that_is_asked_to_end(book: Path, tmp_path: Path, checkpoint: Path) -> None:
    output = tmp_path / "m"
    command = [sys.executable, "-m", "fastlstm", "train", book, "-o", output, "--steps", 10**6,
               *TINY, "--checkpoint", checkpoint, "--checkpoint-every", 1]  # fmt: skip
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, preexec_fn=default_signals
    ) as process:
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.01)
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert out.splitlines()[-1].startswith("stopped by SIGTERM; the training is saved as")
    assert not output.exists()


def test_a_second_run_begins_and_replaces(
    run: Run, book: Path, tmp_path: Path, checkpoint: Path
) -> None:
    command = ["train", book, "-o", tmp_path / "m", "--checkpoint", checkpoint, *LONG]
    for steps in (5, 7):
        status, out, _ = run(*command, "--steps", steps)
        assert (status, "resumed" in out) == (0, False)


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_no_bar_stands_in_the_way(book: Path, tmp_path: Path, checkpoint: Path) -> None:
    import pty
    import termios

    control, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-m", "fastlstm", "train", book, "-o", tmp_path / "m", *TINY,
               "--steps", 5, "--checkpoint", checkpoint, "--resume", "auto"]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    with subprocess.Popen(list(map(str, command)), stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(control, 1000):
                shown += data
        except OSError:  # the end
            pass
    os.close(control)
    assert process.returncode == 0
    assert b"\nresumed at step 5\r\nsaved as" in shown


def test_errors_of_checkpoints(
    run: Run, book: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m"
    train = ["train", book, "-o", output, *LONG]
    assert run(*train, "--steps", 5, "--checkpoint", checkpoint)[0] == 0
    saved, before = checkpoint.read_bytes(), output.read_bytes()
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(book)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(saved[:-1])
    resume = ["--steps", 5, "--resume", "auto", "--checkpoint"]
    cases = [
        ([*train, "--resume", "auto"], "--checkpoint: expected a file with --resume, got none"),
        ([*train, "--checkpoint-every", 3], "--checkpoint: expected a file with --checkpoint-e"),
        ([*train, "--checkpoint", output], "--checkpoint: expected another file than that of -o"),
        (["train", book, "-o", "new", "--checkpoint", "./new"], "--checkpoint: .* than that of -o"),
        ([*train, "--checkpoint", link], "--checkpoint: expected another .* that of the text, got"),
        ([*train, *resume, damaged], "damaged: not a safetensors file, or not all of one"),
        ([*train, *resume, "no/run"], "no/run: there is no directory"),
        ([*train, "--steps", 5, "--resume", "yes", "--checkpoint", "none"], "none: No such file"),
        ([*train, *resume, checkpoint, "--lr", 1], "--lr: expected 0.003 as in the checkpoint"),
        ([*train, *resume, checkpoint, "--layers", 1], "--layers: expected 2 as in"),
        ([*train, *resume, checkpoint, "--dropout", 0.5], "--dropout: expected 0.2 as in"),
        ([*train, *resume, checkpoint, "--held-out", 0], "FILE: expected 1,728 characters with h"),
        ([*train, *resume, checkpoint, "--steps", 6], "--steps: expected 5 as in .*, got 6"),
    ]  # fmt: skip
    for arguments, message in cases:
        status, _, err = run(*arguments)
        assert status == 2, arguments
        note = "(fastlstm: --dropout: no effect .*\n)?"
        assert re.fullmatch(rf"{note}fastlstm: .*{message}.*\n", err), err
    assert (checkpoint.read_bytes(), output.read_bytes()) == (saved, before)
    LanguageModel.load(output)
