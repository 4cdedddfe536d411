"""The file of a checkpoint: damaged, of something else, of another run, or not to be written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.language_models import TEXT, small_model, weights_of

from fastlstm._io import atomic, tensor_file
from fastlstm.models import LanguageModel
from fastlstm.training import _checkpoint

RUN: dict[str, Any] = {"steps": 6, "batch_size": 4, "chunk": 16, "lr": 0.03}
WINDOWS = os.name == "nt"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.ckpt"


@pytest.fixture
def saved(path: Path) -> Path:
    """The checkpoint of a run that has ended."""
    small_model().fit(TEXT, checkpoint=path, **RUN)
    return path


def resume(path: Path, model: LanguageModel | None = None, **options: Any) -> None:
    """Go on from a checkpoint, which leaves the model alone if it is an error."""
    model = model or small_model(seed=3)
    before, drawn = weights_of(model), model.lstm._dropout_keys.bit_generator.state
    try:
        model.fit(TEXT, checkpoint=path, resume="auto", **{**RUN, **options})
    except ValueError:
        assert np.array_equal(weights_of(model), before)
        assert model.lstm._dropout_keys.bit_generator.state == drawn
        raise


def test_every_truncation_is_an_error(saved: Path) -> None:
    data = saved.read_bytes()
    for size in [*range(24), *range(24, len(data), 199), len(data) - 1]:
        saved.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"run\.ckpt: not a safetensors file, or not all of"):
            resume(saved)
    saved.write_bytes(data)
    resume(saved)


def test_a_flipped_bit_is_an_error(saved: Path, rng: np.random.Generator) -> None:
    """In weights and figures too, which would be as good as others."""
    data, (_, config) = saved.read_bytes(), tensor_file.read(saved, "checkpoint")
    header = int.from_bytes(data[:8], "little") + 8
    places = np.concatenate([rng.integers(header, size=200), rng.integers(header, len(data), 200)])
    for place in places.tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(damaged)
        if place < header and b"E-" in damaged[:header]:
            assert tensor_file.read(saved, "checkpoint")[1] == config  # 1E-08 is 1e-08
            continue
        with pytest.raises(ValueError, match=r"run\.ckpt: "):
            resume(saved)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 100, b"PK\x03\x04" * 30, b"\xff" * 64])
def test_other_files_are_an_error(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"run\.ckpt: not a safetensors file, or not all of one"):
        resume(path)
    assert path.read_bytes() == data


def test_a_model_is_no_checkpoint_and_the_other_way_round(path: Path, saved: Path) -> None:
    with pytest.raises(ValueError, match=r"run\.ckpt: a safetensors file, but not of a fastlstm\."):
        LanguageModel.load(saved)
    small_model().save(path)
    with pytest.raises(ValueError, match=r"run\.ckpt: a safetensors file, but not of a fastlstm\."):
        resume(path)


def rewrite(path: Path, tensors: dict[str, Any], config: dict[str, Any]) -> None:
    """Change a checkpoint and make its digest that of what it has then."""
    old, settings = tensor_file.read(path, "checkpoint")
    tensors = {name: array for name, array in (old | tensors).items() if array is not None}
    config = {
        name: v for name, v in (settings | config).items() if v is not ... and name != "digest"
    }
    config["digest"] = _checkpoint._digest(tensors, config)
    tensor_file.write(path, "checkpoint", tensors, config)


@pytest.mark.parametrize(
    ("tensors", "config", "what"),
    [
        ({"losses": None}, {}, "losses: expected float64 (any, 2), got none"),
        ({"more": np.zeros(2)}, {}, "more: expected none, got float64 (2)"),
        ({"weights.0": np.zeros(7, "f4")}, {}, "weights.0: expected float32 (480), got float"),
        ({"state.1": np.zeros((1, 4, 8))}, {}, "state.1: expected float32 (1, 4, 8), got float64"),
        ({"records": np.zeros((2, 5))}, {}, "records: expected float64 (any, 6), got float64 ("),
        ({"losses": np.zeros((2, 3))}, {}, "losses: expected float64 (any, 2), got float64 ("),
        ({"records": np.full((2, 6), np.nan)}, {}, "cannot convert float NaN to integer"),
        ({}, {"step": ...}, "'step'"),
        ({}, {"step": 0}, "step: expected at least 1, got 0"),
        ({}, {"step": 1.5}, "step: expected an integer, got float"),
        ({}, {"read": -1}, "read: expected at least 1, got -1"),
        ({}, {"seconds": "x"}, "seconds: expected a number, got 'x'"),
        ({}, {"done": 2}, "done: expected a number from 0 to 1, got 2"),
        ({}, {"generators": []}, "generators: expected 1, got 0"),
        ({}, {"generators": 1}, "has no len()"),
        ({}, {"generators": [{}]}, ""),
        ({}, {"generators": [None]}, ""),
        ({}, {"optimizer": []}, ""),
        ({}, {"optimizer": {"optimizer": "SGD"}}, "optimizer: expected {'optimizer': 'Adam'"),
        ({}, {"optimizer": {"steps": "many"}}, ""),
    ],
)  # fmt: skip
def test_what_another_version_may_have_written_is_an_error(
    saved: Path, tensors: dict[str, Any], config: dict[str, Any], what: str
) -> None:
    rewrite(saved, tensors, config)
    message = rf"run\.ckpt: not a checkpoint as this version .* writes it \(.*{re.escape(what)}"
    with pytest.raises(ValueError, match=message):
        resume(saved)


def test_settings_of_another_version_are_an_error(saved: Path) -> None:
    for settings in ({}, None, {"steps": 6}):
        rewrite(saved, {}, {"settings": settings})
        with pytest.raises(ValueError, match=r"run\.ckpt: expected a checkpoint with the settings"):
            resume(saved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 7}, "steps: expected 6 as in the checkpoint .*run.ckpt, got 7"),
        ({"steps": None, "seconds": 3}, "steps: expected 6 as in .*, got inf"),
        ({"batch_size": 5}, "batch_size: expected 4 as in"),
        ({"chunk": 17}, "chunk: expected 16 as in"),
        ({"lr": 0.01}, r"lr: expected 0\.03 as in the checkpoint .*, got 0\.01"),
        ({"clip_norm": 2}, r"clip_norm: expected 1\.0 as in"),
        ({"evaluations": 3}, "evaluations: expected 10 as in"),
        ({"held_out": 0.2}, r"text: expected 2,592 characters with hash \w+ as in .* got 2,304 ch"),
        ({"held_out": "the cat sat "}, "text: expected 2,592 .*, got 2,880 characters with hash"),
        ({"held_out": TEXT[-288:-1] + "t"}, "text: expected 2,592"),
    ],
)
def test_a_run_with_other_arguments_is_an_error(
    saved: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        resume(saved, **options)


def test_another_model_or_text_is_an_error(path: Path, saved: Path) -> None:
    cases = {
        "embedding_size: expected 5 as in": {"embedding_size": 6},
        "hidden_size: expected 8 as in": {"hidden_size": 9},
        "num_layers: expected 1 as in": {"num_layers": 2},
    }
    for message, sizes in cases.items():
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            resume(saved, small_model(**sizes))
    with pytest.warns(UserWarning, match="dropout"):
        model = small_model(dropout=0.5)
    with pytest.raises(ValueError, match=r"^dropout: expected 0\.0 as in"):
        resume(saved, model)
    arguments: dict[str, Any] = {**RUN, "checkpoint": saved, "resume": True}
    with pytest.raises(ValueError, match=r"^text: expected 2,592 characters with hash (\w+) as in"):
        small_model().fit("T".lower() + TEXT[::-1][1:], **arguments)
    with pytest.raises(ValueError, match=r"^held_out: expected 288 characters with hash \w+ as in"):
        small_model().fit(TEXT[:2592], held_out=TEXT[1:289], **arguments)
    with pytest.raises(ValueError, match=r"^alphabet: expected 16 characters with hash \w+ as in"):
        LanguageModel(TEXT + "!", embedding_size=5, hidden_size=8).fit(TEXT, **arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resume": True}, ValueError, "checkpoint: expected a path with resume, got None"),
        ({"resume": "auto"}, ValueError, "checkpoint: expected a path with resume, got None"),
        ({"checkpoint_every": 5}, ValueError, "checkpoint: expected a path with checkpoint_every,"),
        ({"checkpoint": "x", "checkpoint_every": 0}, ValueError, "checkpoint_every: expected at l"),
        ({"checkpoint": "x", "checkpoint_every": 1.5}, TypeError, "checkpoint_every: expected an"),
        ({"checkpoint": "x", "resume": "yes"}, ValueError, "resume: expected True, False or 'a"),
        ({"checkpoint": "x", "resume": 1}, ValueError, "resume: expected True, False or 'auto'"),
        ({"checkpoint": "no/x"}, FileNotFoundError, "no/x: there is no directory"),
        ({"checkpoint": "."}, IsADirectoryError, "is a directory"),
    ],
)  # fmt: skip
def test_wrong_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = small_model()
    before = weights_of(model)
    with pytest.raises(error, match=message):
        model.fit(TEXT, **RUN, **options)
    assert np.array_equal(weights_of(model), before)
    assert os.listdir(tmp_path) == []


def test_leftovers_of_a_killed_process_are_removed(path: Path, saved: Path) -> None:
    """But none of another file."""
    data = saved.read_bytes()
    with atomic.replacing(saved) as file:
        file.write(data)
        mine = Path(file.name)
        with atomic.replacing(saved.with_name("other")) as other:
            theirs = Path(other.name)
            kept, removed = theirs.with_name("kept.tmp"), mine.with_name(mine.name[:-6] + "9.tmp")
            for leftover in (kept, removed):
                leftover.write_bytes(b"part of a checkpoint")
            atomic.remove_leftovers(saved.with_name("another"))
            assert mine.exists()
    assert sorted(os.listdir(path.parent)) == sorted([removed.name, "kept.tmp", "other", path.name])
    resume(saved)
    assert sorted(os.listdir(path.parent)) == ["kept.tmp", "other", path.name]


@pytest.mark.skipif(WINDOWS, reason="limits of POSIX")
def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint(saved: Path) -> None:
    """By a limit on the size of files, which fails as a full disk does."""
    before = saved.read_bytes()
    code = (
        "import resource, sys\n"
        "from support.language_models import TEXT, small_model\n"
        "limit = int(sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "small_model().fit(TEXT, steps=50, batch_size=4, chunk=16, checkpoint=sys.argv[1])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(saved), str(len(before) // 2)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert re.search(r"OSError: .*run\.ckpt: File too large", run.stderr), run.stderr
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_an_error_of_the_disk_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(OSError, match=r"run\.ckpt: No space left on device"):
                small_model().fit(TEXT, checkpoint=saved, **RUN)
        assert saved.read_bytes() == before
        assert os.listdir(saved.parent) == [saved.name]


def test_the_file_is_as_others_can_read_it(saved: Path) -> None:
    from safetensors import safe_open

    model = small_model()
    model.fit(TEXT, **RUN)
    with safe_open(saved, framework="numpy") as file:
        metadata = file.metadata()
        weights = [file.get_tensor(f"weights.{i}") for i in range(2)]
    assert metadata["format"] == "fastlstm.checkpoint"
    assert json.loads(metadata["config"])["step"] == 6
    assert np.array_equal(np.concatenate(weights), weights_of(model))
