"""fastlstm train in several processes: one file, one voice, one end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.command_line import TINY, Run
from support.launchers import launcher, started

pytestmark = pytest.mark.peer

SHARDED = ["--shards", 8, "--seed", 3, "--layers", 2, "--dropout", 0.3, *TINY]
# As fastlstm, but its processes can be found.
PROGRAM = """
import os, sys
from pathlib import Path
open(f"{__file__}.{os.getpid()}", "w").close()
from fastlstm.cli import main
sys.exit(main())
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def command(engine: str, size: int, program: Path, *arguments: object) -> tuple[list[str], dict]:
    line, environment = launcher(engine, size)
    engine = "torch" if engine == "torch" else "mpi"
    options = ["train", *map(str, arguments), "--distributed", engine]
    return [*line, str(program), *options], {**environment, "OMP_NUM_THREADS": "1"}


def trained(engine: str, size: int, program: Path, *arguments: object) -> tuple[int, list[str]]:
    """The exit status, and the lines that all processes print."""
    with started(*command(engine, size, program, *arguments)) as processes:
        text, _ = processes.communicate(timeout=100)
    return processes.returncode, text.splitlines()


PROGRAMS = pytest.mark.parametrize(
    ("engine", "size"),
    [*(("mpich", size) for size in (1, 2, 3, 4)), ("openmpi", 2), ("torch", 2), ("torch", 3)],
)


@PROGRAMS
def test_the_file_of_one_process(
    engine: str, size: int, run: Run, book: Path, tmp_path: Path, program: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    arguments = [book, "--steps", 30, *SHARDED]
    assert run("train", *arguments, "-o", one)[0] == 0
    status, lines = trained(engine, size, program, *arguments, "-o", other)
    assert status == 0, lines
    assert other.read_bytes() == one.read_bytes()
    for start in ("fastlstm ", "text: ", "model: ", "100%", "saved as", "held-out "):
        assert sum(line.startswith(start) for line in lines) == 1, lines


def test_one_process_reads(run: Run, book: Path, tmp_path: Path, program: Path) -> None:
    """Standard input, which only one process has, and no seed: all begin with one model."""
    arguments = ["-", "--steps", 5, *SHARDED[:2], *TINY, "-o", tmp_path / "m"]
    line, environment = command("mpich", 3, program, *arguments)
    text = book.read_text(encoding="utf-8")
    variables = {**os.environ, **environment}
    subprocess.run(
        line, env=variables, input=text, text=True, check=True, capture_output=True, timeout=100
    )
    assert (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("name", "engine", "before", "after"),
    [
        ("SIGTERM", "mpich", 3, 2),
        ("SIGTERM", "openmpi", 2, 1),
        ("SIGTERM", "torch", 2, 3),
        ("SIGUSR1", "mpich", 2, 1),
        ("SIGKILL", "mpich", 2, 4),
    ],
)
def test_a_signal_to_one_process_stops_all(
    name: str,
    engine: str,
    before: int,
    after: int,
    run: Run,
    book: Path,
    tmp_path: Path,
    program: Path,
    rng: np.random.Generator,
) -> None:
    """At any time, and another number of them goes on; SIGKILL too leaves a whole checkpoint."""
    one, other, checkpoint = (tmp_path / name for name in ("one", "other", "run.ckpt"))
    arguments = [book, "--steps", 300, *SHARDED]
    assert run("train", *arguments, "-o", one)[0] == 0
    arguments += ["-o", other, "--checkpoint", checkpoint, "--resume", "auto"]
    every = ["--checkpoint-every", 1]
    with started(*command(engine, before, program, *arguments, *every)) as processes:
        while processes.poll() is None and not checkpoint.exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        found = sorted(int(path.suffix[1:]) for path in tmp_path.glob("program.py.*"))
        os.kill(found[-1], getattr(signal, name))
        text, _ = processes.communicate(timeout=100)
    assert processes.returncode, text
    if name != "SIGKILL":
        told = f"stopped by {name}; the training is saved as {checkpoint}, the same command goes on"
        assert text.count(told) == 1, text
    assert not other.exists()
    status, lines = trained(engine, after, program, *arguments)
    assert status == 0, lines
    assert sum(bool(re.fullmatch(r"resumed at step \d+", line)) for line in lines) == 1, lines
    assert other.read_bytes() == one.read_bytes()


@pytest.mark.parametrize(
    ("engine", "arguments", "message"),
    [
        ("mpich", ["no.txt"], "no.txt: No such file or directory"),
        ("mpich", ["book.txt", "--checkpoint", "no/run"], "no/run: there is no directory"),
        ("mpich", ["book.txt", "--lr", 1e38], "the training loss is nan after 1 steps"),
        ("torch", ["book.txt", "--shards", 3], "--shards: expected a power of two, got 3"),
    ],
)
@pytest.mark.usefixtures("book")
def test_an_error_is_told_once(
    engine: str,
    arguments: list[object],
    message: str,
    tmp_path: Path,
    program: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [*SHARDED, *arguments, "-o", "m", "--steps", 5]
    status, lines = trained(engine, 2, program, *options)
    told = [line for line in lines if line.startswith("fastlstm: ")]
    assert status, lines
    assert len(told) == 1, lines
    assert told[0].startswith(f"fastlstm: {message}")
    assert not (tmp_path / "m").exists()


@pytest.mark.peer
def test_options_that_need_others(run: Run, book: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    train = ["train", book, "-o", tmp_path / "m", *TINY]
    for options, message in (
        (
            ["--distributed", "mpi"],
            "--shards: expected a power of two with --distributed, got none",
        ),
        (["--shards", 6], "--shards: expected a power of two, got 6"),
        (
            ["--distributed", "torch", "--shards", 2],
            "--distributed: distributed.torch needs a proc",
        ),
    ):
        status, _, err = run(*train, *options)
        assert (status, err[: len(message) + 10]) == (2, f"fastlstm: {message}")
