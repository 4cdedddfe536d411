"""``fastlstm quantize``: files of models and layers, again with weights of fewer bits."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from support.command_line import TEXT, Run

import fastlstm
from fastlstm._io import tensor_file
from fastlstm.cli import main
from fastlstm.models import LanguageModel

TYPES = {"int8": "I8", "bfloat16": "BF16", "float16": "F16"}  # as the file format calls them


def assert_same_tensors(got: Path, expected: Path) -> None:
    kind = tensor_file.kind_of(expected)
    (tensors, config), (others, other_config) = (
        tensor_file.read(path, kind) for path in (got, expected)
    )
    assert (config, tensors.keys()) == (other_config, others.keys())
    for name, tensor in tensors.items():
        assert (tensor.dtype, tensor.tobytes()) == (others[name].dtype, others[name].tobytes())


@pytest.mark.parametrize("weights_dtype", TYPES)
def test_a_language_model(run: Run, tmp_path: Path, weights_dtype: str) -> None:
    path, small, by_hand = tmp_path / "model", tmp_path / "small", tmp_path / "by hand"
    model = LanguageModel(TEXT, hidden_size=64, seed=1)
    model.save(path)
    whole = path.read_bytes()
    options = () if weights_dtype == "int8" else ("--weights", weights_dtype)
    status, out, err = run("quantize", path, "-o", small, *options)
    assert (status, err, path.read_bytes()) == (0, "", whole)
    size, now = len(whole), small.stat().st_size
    assert out == (
        f"saved as {small}\n"
        f"{now:,} bytes with {weights_dtype} weights, {now / size:.0%} of {size:,} with float32\n"
    )
    assert now < (0.4 if weights_dtype == "int8" else 0.6) * size
    quantized = model.quantize(weights_dtype)
    quantized.save(by_hand)
    assert_same_tensors(small, by_hand)
    with safe_open(small, framework="numpy") as file:
        assert file.get_slice("lstm.weight_hh_l0").get_dtype() == TYPES[weights_dtype]

    os.remove(path)
    status, out, err = run("generate", small, "--prompt", "the", "-n", 30, "--seed", 2)
    assert (status, out, err) == (0, f"the{quantized.generate('the', 30, seed=2)}\n", "")


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_a_layer_over_its_own_file(run: Run, tmp_path: Path, cell: str) -> None:
    path, by_hand = tmp_path / "layer", tmp_path / "by hand"
    layer: Any = getattr(fastlstm, cell)(5, 40, 2, bidirectional=True, seed=1)
    layer.save(path)
    layer.quantize("int8").save(by_hand)
    assert run("quantize", path, "-o", path)[0] == 0
    assert_same_tensors(path, by_hand)
    x = np.random.default_rng(0).standard_normal((7, 3, 5), dtype=np.float32)
    loaded = getattr(fastlstm, cell).load(path)
    assert np.array_equal(loaded(x)[0], layer.quantize("int8")(x)[0])
    assert sorted(os.listdir(tmp_path)) == ["by hand", "layer"]


def test_errors_are_one_line_and_leave_all_as_it_was(
    run: Run, model: Path, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    LanguageModel.load(model).quantize("float16").save("small")
    fastlstm.LSTM(2, 3, dtype="float64").save("wide")
    large = fastlstm.GRU(2, 3, seed=0)
    large.parameters["weight_hh_l0"] = large.parameters["weight_hh_l0"] * np.float32(1e6)
    large.save("large")
    save_file({"x": np.zeros(3)}, "foreign")
    save_file({"x": np.zeros(3)}, "other", {"format": "fastlstm.Forest"})
    Path("half").write_bytes(model.read_bytes()[:-9])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    cases: list[tuple[list[object], str]] = [
        (["no.safetensors", "-o", "out"], r"no\.safetensors: No such file or directory"),
        ([tmp_path, "-o", "out"], r".*: Is a directory"),
        ([model, "-o", "none/m"], "none/m: there is no directory .*none"),
        (["no.safetensors", "-o", "none/m"], "none/m: there is no directory .*none"),
        ([model, "-o", tmp_path], ".*: is a directory"),
        ([book, "-o", "out"], r".*book\.txt: not a safetensors file, or not all of one .*"),
        (["half", "-o", "out"], "half: not a safetensors file, or not all of one .*"),
        (["foreign", "-o", "out"], "foreign: a safetensors file, but none that fastlstm saved"),
        (["other", "-o", "out"],
         r"other: expected one of LanguageModel, LSTM, GRU, RNN.*, got fastlstm\.Forest"),
        (["small", "-o", "out"],
         "small: expected weights of float32, got float16: it has been quantized already"),
        (["small", "-o", "small", "--weights", "float16"], "small: .* quantized already"),
        (["wide", "-o", "out"], "wide: .*expected a layer of float32, got float64; cast it, .*"),
        (["large", "-o", "large", "--weights", "float16"],
         "large: weight_hh_l0: expected magnitudes up to 65504, to be float16, got .*"),
    ]  # fmt: skip
    for arguments, message in cases:
        status, text, err = run("quantize", *arguments)
        assert (status, text) == (2, ""), arguments
        assert re.fullmatch(rf"fastlstm: {message}\n", err), err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ("quantize x", "the following arguments are required: -o/--output"),
        ("quantize x -o y --weights int4", "argument --weights: invalid choice: 'int4'"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments.split())
        assert message in capsys.readouterr().err
