"""A language model whose LSTM has weights of 8 or 16 bits: what it computes, and its file."""

from __future__ import annotations

import copy
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from support.language_models import TEXT, small_model

from fastlstm._io import tensor_file
from fastlstm.models import LanguageModel
from fastlstm.optim import Adam

TYPES = {"int8": "I8", "bfloat16": "BF16", "float16": "F16"}  # as the file format calls them
EACH = pytest.mark.parametrize("weights_dtype", TYPES)


@pytest.fixture
def model() -> LanguageModel:
    return small_model(num_layers=2, dropout=0.25)


def bits_by_hand(model: LanguageModel, lstm: Any) -> float:
    """`bits_per_character` of TEXT, by NumPy from what the layer returns."""
    weights = model.parameters
    codes = np.searchsorted(list(model.alphabet), list(TEXT))
    y, _ = lstm(weights["embedding.weight"][codes[:-1]])
    logits = (y @ weights["linear.weight"].T + weights["linear.bias"]).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(-log_p[np.arange(len(y)), codes[1:]].mean() / math.log(2))


def likeliest_by_hand(model: LanguageModel, lstm: Any, prompt: str, n: int) -> str:
    weights, stream, text = model.parameters, lstm.stream(), ""
    for t in range(len(prompt) + n - 1):
        code = model.alphabet.index((prompt + text)[t])
        y = stream.step(weights["embedding.weight"][code])
        if t >= len(prompt) - 1:
            logits = weights["linear.weight"] @ y + weights["linear.bias"]
            text += model.alphabet[int(logits.argmax())]
    return text


def assert_same_files(got: Path, expected: Path) -> None:
    """To the bit, but for the order of the metadata."""
    (tensors, config), (others, other_config) = (
        tensor_file.read(path, "LanguageModel") for path in (got, expected)
    )
    assert config == other_config
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype
        assert tensor.tobytes() == others[name].tobytes()


@EACH
def test_it_computes_with_the_quantized_layer(model: LanguageModel, weights_dtype: str) -> None:
    small = model.quantize(weights_dtype)
    lstm = model.lstm.quantize(weights_dtype)
    assert small.weights_dtype == weights_dtype
    assert repr(small) == f"{repr(model)[:-1]}, weights_dtype={weights_dtype!r})"
    for name, array in lstm.parameters.items():
        np.testing.assert_array_equal(small.lstm.parameters[name], array)
    assert small.bits_per_character(TEXT) == pytest.approx(bits_by_hand(model, lstm), rel=1e-6)
    assert small.bits_per_character(TEXT) != model.bits_per_character(TEXT)
    assert small.perplexity(TEXT, rows=3) == 2 ** small.bits_per_character(TEXT, rows=3)
    assert small.generate("the", 40, 0) == likeliest_by_hand(model, lstm, "the", 40)
    twin = copy.copy(model)
    twin.lstm = lstm
    for rows in (1, 5):
        bits = small.bits_per_character(TEXT, rows=rows)
        assert bits == twin.bits_per_character(TEXT, rows=rows)
    assert small.generate("the", 40, seed=3) == twin.generate("the", 40, seed=3)


def test_the_models_share_nothing(model: LanguageModel) -> None:
    small = model.quantize("int8")
    before = small.bits_per_character(TEXT)
    model.fit(TEXT, steps=2, batch_size=4, chunk=8)
    assert small.bits_per_character(TEXT) == before
    assert model.weights_dtype == "float32"
    small.parameters.flat = small.parameters.flat * 2
    assert not np.array_equal(small.parameters.flat, model.parameters.flat)


def test_training_raises_one_clear_error(model: LanguageModel) -> None:
    small = model.quantize("int8")
    codes = np.zeros((3, 2), np.intp)
    for name, train in {
        "fit": lambda: small.fit(TEXT, steps=1),
        "gradients": lambda: small.gradients(codes, codes, None),
    }.items():
        message = f"{name}: expected weights of float32, got int8: train the model that was quan"
        with pytest.raises(ValueError, match=message):
            train()
    with pytest.raises(TypeError, match="parameters"):
        Adam(small.trainable)
    with pytest.raises(ValueError, match="quantize: expected a layer of float32 weights, got int8"):
        small.quantize("float16")
    with pytest.raises(ValueError, match=r"weights_dtype: expected one of 'bf.* got 'i4'"):
        model.quantize("i4")


@EACH
def test_copies_and_pickles(model: LanguageModel, weights_dtype: str) -> None:
    small = model.quantize(weights_dtype)
    bits = small.bits_per_character(TEXT)
    for twin in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert twin.weights_dtype == weights_dtype
        assert twin.bits_per_character(TEXT) == bits


@EACH
def test_the_file_keeps_the_bits(model: LanguageModel, weights_dtype: str, tmp_path: Path) -> None:
    path, again = tmp_path / "small", tmp_path / "again"
    small = model.quantize(weights_dtype)
    small.save(path)
    with safe_open(path, framework="numpy") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    matrices = {name for name in types if re.fullmatch(r"lstm\.weight_[ih]h_l\d", name)}
    scales = {f"{name}_scale" for name in matrices if weights_dtype == "int8"}
    biases = {f"lstm.bias_{which}_l{layer}" for which in ("ih", "hh") for layer in (0, 1)}
    assert len(matrices) == 4
    assert set(types) == matrices | scales | biases | set(model.parameters)
    assert all(
        types[name] == (TYPES[weights_dtype] if name in matrices else "F32") for name in types
    )

    loaded = LanguageModel.load(path)
    assert repr(loaded) == repr(small)
    assert loaded.bits_per_character(TEXT) == small.bits_per_character(TEXT)
    assert loaded.generate("the", 30, seed=2) == small.generate("the", 30, seed=2)
    loaded.save(again)
    assert_same_files(again, path)


@EACH
def test_loading_can_quantize(model: LanguageModel, weights_dtype: str, tmp_path: Path) -> None:
    path, small = tmp_path / "model", tmp_path / "small"
    model.save(path)
    model.quantize(weights_dtype).save(small)
    for name in (path, small):
        LanguageModel.load(name, weights_dtype).save(tmp_path / "again")
        assert_same_files(tmp_path / "again", small)
    other = next(name for name in TYPES if name != weights_dtype)
    with pytest.raises(ValueError, match=f"of float32 weights, got {weights_dtype}"):
        LanguageModel.load(small, other)
    with pytest.raises(ValueError, match="weights_dtype: expected one of"):
        LanguageModel.load(tmp_path / "missing", "int4")
    with pytest.raises(TypeError, match="weights_dtype: expected a str, got int"):
        LanguageModel.load(tmp_path / "missing", 8)  # type: ignore[arg-type]


def test_a_file_of_floats_is_as_before(model: LanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    tensors, config = tensor_file.read(tmp_path / "model", "LanguageModel")
    assert "weights_dtype" not in config
    assert {tensor.dtype.name for tensor in tensors.values()} == {"float32"}


@EACH
def test_files_that_do_not_agree(model: LanguageModel, weights_dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "small"
    model.quantize(weights_dtype).save(path)
    tensors, config = tensor_file.read(path, "LanguageModel")
    name = "lstm.weight_hh_l1"
    other = next(kind for kind in TYPES if kind != weights_dtype)
    wrong: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({name: tensors[name].astype(np.float32)}, {}, "weights and configuration do not agree"),
        ({"linear.weight": tensors["linear.weight"].astype(np.float16)}, {}, "do not agree"),
        ({}, {"weights_dtype": other}, "weights and configuration do not agree"),
        ({}, {"weights_dtype": "float32"}, "damaged: weights_dtype: expected one of bfloat16, .*"),
        ({}, {"weights_dtype": ["int8"]}, "damaged: weights_dtype: expected one of .*'int8'"),
        ({}, {"weights_dtype": ""}, "damaged: weights_dtype: expected one of"),
    ]
    if weights_dtype == "int8":
        scale = f"{name}_scale"
        for value in (np.inf, -1):
            broken = np.full_like(tensors[scale], value)
            message = f"{scale}: expected finite numbers of at least 0, got {float(value)}"
            wrong.append(({scale: broken}, {}, re.escape(f"{path}: {message}")))
    infinite = "linear.bias" if weights_dtype == "int8" else name
    broken = tensors[infinite].copy()
    broken.flat[0] = 0x7F80 if broken.dtype == np.uint16 else np.inf
    wrong.append(({infinite: broken}, {}, "some weights are not finite numbers"))
    for new_tensors, new_config, message in wrong:
        tensor_file.write(path, "LanguageModel", tensors | new_tensors, config | new_config)
        with pytest.raises(ValueError, match=message):
            LanguageModel.load(path)
    if weights_dtype == "int8":
        del tensors[f"{name}_scale"]
        tensor_file.write(path, "LanguageModel", tensors, config)
        with pytest.raises(ValueError, match="weights and configuration do not agree"):
            LanguageModel.load(path)
