"""Saving and loading a language model, and replacing files only when the new one is complete."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm._io import tensor_file
from fastlstm._io.atomic import check_replaceable, replacing
from fastlstm.models import LanguageModel

WINDOWS = os.name == "nt"
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def model() -> LanguageModel:
    return LanguageModel(
        "hello w\xf6rld \ud800", embedding_size=3, hidden_size=5, num_layers=2, dropout=0.25, seed=1
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_a_saved_model_is_the_same(model: LanguageModel, path: Path) -> None:
    model.save(path)
    loaded = LanguageModel.load(path)
    assert repr(loaded) == repr(model)
    assert loaded.alphabet == model.alphabet
    for ours, theirs in zip(model.trainable, loaded.trainable, strict=True):
        assert np.array_equal(ours.flat, theirs.flat)
    assert loaded.generate("hello", 30, seed=2) == model.generate("hello", 30, seed=2)


def test_the_same_model_makes_the_same_bytes(model: LanguageModel, path: Path) -> None:
    """Ten times: a library that orders a table at random may do it rightly once."""
    files = set()
    for _ in range(10):
        model.save(path)
        files.add(path.read_bytes())
    assert len(files) == 1


def test_other_programs_can_read_it(model: LanguageModel, path: Path) -> None:
    from safetensors.numpy import load_file

    model.save(path)
    tensors = load_file(path)
    assert np.array_equal(tensors["lstm.weight_hh_l1"], model.lstm.parameters["weight_hh_l1"])
    assert np.array_equal(tensors["embedding.weight"], model.parameters["embedding.weight"])


def test_every_truncation_is_an_error(model: LanguageModel, path: Path, tmp_path: Path) -> None:
    model.save(path)
    data = path.read_bytes()
    short = tmp_path / "short"
    for size in [*range(24), *range(24, len(data), 97), len(data) - 1]:
        short.write_bytes(data[:size])
        with pytest.raises(ValueError, match="short: not a safetensors file, or not all of one"):
            LanguageModel.load(short)


def test_damaged_bytes_are_an_error_or_a_model(
    model: LanguageModel, path: Path, rng: np.random.Generator
) -> None:
    model.save(path)
    data = path.read_bytes()
    header, messages = int.from_bytes(data[:8], "little") + 8, []
    for place in rng.integers(header, size=300):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            LanguageModel.load(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(message.startswith(f"{path}: ") for message in messages)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 100, b"PK\x03\x04" * 30, b"\xff" * 64])
def test_other_files_are_an_error(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not a safetensors file, or not all of one"):
        LanguageModel.load(path)


def test_other_safetensors_are_an_error(model: LanguageModel, path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"a safetensors file, but not of a fastlstm\.Language"):
        LanguageModel.load(path)
    model.lstm.save(path)
    with pytest.raises(ValueError, match=r"a safetensors file, but not of a fastlstm\.Language"):
        LanguageModel.load(path)


def tensors_and_config(model: LanguageModel, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    model.save(path)
    return tensor_file.read(path, "LanguageModel")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 10**15}, "weights and configuration do not agree"),
        ({"hidden_size": 6}, "weights and configuration do not agree"),
        ({"hidden_size": -5}, "damaged: hidden_size: expected an integer of at least 1, got -5"),
        ({"hidden_size": 5.0}, r"damaged: hidden_size: expected an integer .*, got 5\.0"),
        ({"num_layers": 10**15}, "weights and configuration do not agree"),
        ({"num_layers": 1}, "weights and configuration do not agree"),
        ({"embedding_size": "3"}, "damaged: embedding_size: expected an integer .*, got '3'"),
        ({"alphabet": "abc"}, "weights and configuration do not agree"),
        ({"alphabet": "olleh w\xf6rd\ud800"}, "damaged: alphabet: expected different characters"),
        ({"alphabet": 7}, "damaged: alphabet: expected different characters, sorted, got 7"),
        ({"dropout": -1}, "damaged: dropout: expected a number from 0 to 1, got -1"),
        ({"dropout": None}, "damaged: dropout: expected a number from 0 to 1, got None"),
        ({"dropout": True}, "damaged: dropout: expected a number from 0 to 1, got True"),
        ({"extra": 1}, "damaged: expected alphabet, .*, num_layers, got alphabet, .*, extra, hid"),
    ],
    ids=str,
)
def test_wrong_configurations_are_an_error(
    model: LanguageModel, path: Path, change: dict[str, Any], message: str
) -> None:
    tensors, config = tensors_and_config(model, path)
    tensor_file.write(path, "LanguageModel", tensors, {**config, **change})
    with pytest.raises(ValueError, match=message):
        LanguageModel.load(path)


def test_a_size_is_an_integer(path: Path) -> None:
    tensors, config = tensors_and_config(LanguageModel("ab", hidden_size=2), path)
    tensor_file.write(path, "LanguageModel", tensors, {**config, "num_layers": True})
    with pytest.raises(ValueError, match="the configuration in the file is damaged"):
        LanguageModel.load(path)


def test_wrong_weights_are_an_error(model: LanguageModel, path: Path) -> None:
    tensors, config = tensors_and_config(model, path)
    bias = tensors["linear.bias"]
    for wrong in (bias[:-1], bias.astype(np.float64)):
        tensor_file.write(path, "LanguageModel", {**tensors, "linear.bias": wrong}, config)
        with pytest.raises(ValueError, match="weights and configuration do not agree"):
            LanguageModel.load(path)
    missing = {name: tensor for name, tensor in tensors.items() if name != "linear.bias"}
    tensor_file.write(path, "LanguageModel", missing, config)
    with pytest.raises(ValueError, match="weights and configuration do not agree"):
        LanguageModel.load(path)
    tensor_file.write(path, "LanguageModel", {**tensors, "linear.bias": bias * np.nan}, config)
    with pytest.raises(ValueError, match="some weights are not finite numbers"):
        LanguageModel.load(path)


def test_damaged_metadata_is_an_error(model: LanguageModel, path: Path) -> None:
    from safetensors.numpy import save_file

    tensors, config = tensors_and_config(model, path)
    cases = dict.fromkeys(["", "{", "[" * 100_000, json.dumps(config)[:-1]], "not JSON: ")
    cases["[1]"] = "expected an object of JSON, got list"
    for text, what in cases.items():
        save_file(tensors, path, {"format": "fastlstm.LanguageModel", "config": text})
        with pytest.raises(ValueError, match=f"configuration in the file is damaged: {what}"):
            LanguageModel.load(path)
    save_file(tensors, path, {"format": "fastlstm.LanguageModel"})
    with pytest.raises(ValueError, match="configuration in the file is damaged: there is none"):
        LanguageModel.load(path)


def test_missing_file_is_an_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        LanguageModel.load(path)


def test_an_error_while_writing_leaves_the_old_file(
    model: LanguageModel, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="half"), replacing(path) as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError("half")
    with pytest.raises(KeyboardInterrupt), replacing(path):
        raise KeyboardInterrupt

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"model\.safetensors: No space left on device"):
        model.save(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_the_new_file_appears_at_once(path: Path) -> None:
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(WINDOWS, reason="its folders cannot be opened")
def test_the_folder_is_synced_after_the_file_has_its_name(
    model: LanguageModel, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    sync, replace = os.fsync, os.replace

    def watched_sync(descriptor: int) -> None:
        events.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def watched_replace(source: str, target: str) -> None:
        events.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(os, "replace", watched_replace)
    model.save(path)
    assert events == [path.stat().st_ino, "replace", path.parent.stat().st_ino]


@pytest.mark.skipif(WINDOWS, reason="permissions of POSIX")
def test_permissions_and_links_stay(path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(path):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link = path.with_name("link")
    link.symlink_to(path)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_paths_that_cannot_be_replaced(path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a directory"):
        check_replaceable(path.parent)
    with pytest.raises(FileNotFoundError, match="x/m: there is no directory"):
        check_replaceable(f"{path.parent}/x/m")
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        check_replaceable(path / "m")
    check_replaceable(path)
    check_replaceable(path.with_name("new"))
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(WINDOWS, reason="devices of POSIX")
def test_devices_are_not_replaced() -> None:
    with pytest.raises(OSError, match="/dev/null: is not a regular file"):
        check_replaceable("/dev/null")


@pytest.mark.skipif(WINDOWS or ROOT, reason="root may write everywhere")
def test_files_and_folders_that_are_read_only(path: Path) -> None:
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="no permission to write"):
        check_replaceable(path)
    path.parent.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match="new: Permission denied"):
            check_replaceable(path.with_name("new"))
    finally:
        path.parent.chmod(0o755)
