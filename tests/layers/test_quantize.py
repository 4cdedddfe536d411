"""Layers with weights of 8 and 16 bits: everything that layers for inference can do."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, same_bits
from support.processes import needs_openmp

import fastlstm
from fastlstm._core import library
from fastlstm._core.caches import Caches

TYPES = ("int8", "bfloat16", "float16")
every_type = pytest.mark.parametrize("weights_dtype", TYPES)
LAYERS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "lstm": (fastlstm.LSTM, (31, 66, 2), {"bidirectional": True}),
    "projected": (fastlstm.LSTM, (9, 70, 2), {"proj_size": 33, "peephole": True}),
    "normed": (fastlstm.LSTM, (9, 50), {"layer_norm": True, "zoneout": (0.1, 0.2)}),
    "gru": (fastlstm.GRU, (20, 37, 3), {}),
    "gru-before": (fastlstm.GRU, (20, 67, 2), {"reset_after": False}),
    "rnn": (fastlstm.RNN, (5, 130), {}),
    "slstm": (fastlstm.SLSTM, (9, 66, 2), {"num_heads": 2}),
}
every_layer = pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)


def small_layer(kind: tuple[Any, tuple[int, ...], dict[str, Any]], weights_dtype: str) -> Any:
    cell, sizes, options = kind
    return cell(*sizes, **options, seed=1).quantize(weights_dtype)


def states_of(state: Any) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


def random_x(rng: Generator, layer: Any, steps: int, batch: int) -> Array:
    """Rows of very different sizes: scales of the whole batch would show."""
    x = rng.standard_normal((steps, batch, layer.input_size), dtype=np.float32)
    return np.asarray(x * np.exp(rng.uniform(-4, 4, (steps, batch, 1))), np.float32)


@every_type
@every_layer
def test_rows_and_chunks(
    rng: Generator, byte_isa: str, kind: tuple[Any, tuple[int, ...], dict[str, Any]],
    weights_dtype: str,
) -> None:  # fmt: skip
    """A row computes what it does alone; a sequence in parts what it does at once."""
    layer = small_layer(kind, weights_dtype)
    x = random_x(rng, layer, 13, 9)
    y, state = layer(x)
    for rows in (slice(0, 1), slice(3, 5), slice(2, 9)):
        assert same_bits(layer(x[:, rows])[0], y[:, rows])
    if layer.bidirectional:
        return
    first, middle = layer(x[:4])
    second, final = layer(x[4:], middle)
    assert same_bits(np.concatenate([first, second]), y)
    stream = layer.stream(9)
    assert same_bits(np.stack([stream.step(x_t).copy() for x_t in x]), y)
    for one, other in zip(states_of(final), states_of(state), strict=True):
        assert same_bits(one, other)


@needs_openmp
@every_type
@every_layer
def test_threads_and_plans(
    rng: Generator, kind: tuple[Any, tuple[int, ...], dict[str, Any]], weights_dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Rows shared or units, with inputs ahead or in each step: the same bits."""
    cell, sizes, options = kind
    layer = cell(sizes[0], 200, *sizes[2:], **options, seed=1).quantize(weights_dtype)
    monkeypatch.setattr(library, "PROCESSORS", 4)
    before, caches = fastlstm.get_num_threads(), library.planned_caches()
    try:
        for batch in (1, 3, 19):
            x = random_x(rng, layer, 30, batch)
            fastlstm.set_num_threads(1)
            library.set_caches(Caches(1 << 20, 1 << 30, 0))
            expected = layer(x)[0]
            for threads in (1, 2, 3):
                for sizes_of in (Caches(4 << 10, 16 << 10, 0), Caches(1 << 20, 1 << 30, 0)):
                    fastlstm.set_num_threads(threads)
                    library.set_caches(sizes_of)
                    assert same_bits(layer(x)[0], expected)
    finally:
        fastlstm.set_num_threads(before)
        library.set_caches(caches)


@every_type
@every_layer
def test_lengths_resets_and_trace(
    rng: Generator, kind: tuple[Any, tuple[int, ...], dict[str, Any]], weights_dtype: str
) -> None:
    layer = small_layer(kind, weights_dtype)
    x = random_x(rng, layer, 11, 4)
    y = layer(x, lengths=[11, 3, 0, 7])[0]
    assert same_bits(y[:3, 1], layer(x[:3, 1])[0])
    assert same_bits(y[:7, 3], layer(x[:7, 3])[0])
    assert not y[3:, 1].any()
    assert not y[:, 2].any()
    reset = np.zeros((11, 4), bool)
    reset[5] = True
    y = layer(x, reset=reset)[0]
    if not layer.bidirectional:
        assert same_bits(y[5:], layer(x[5:])[0])
    D, H = 1 + layer.bidirectional, y.shape[-1]
    hidden = [trace.hidden for trace in layer.trace(x)[-D:]]
    assert same_bits(np.concatenate(hidden, axis=-1).reshape(11, 4, H), layer(x)[0])


@every_type
@every_layer
def test_tokens(
    rng: Generator, byte_isa: str, kind: tuple[Any, tuple[int, ...], dict[str, Any]],
    weights_dtype: str,
) -> None:  # fmt: skip
    """Rows of a table are quantized as rows of x are."""
    layer = small_layer(kind, weights_dtype)
    width = layer.input_size
    for count, steps, batch in [(7, 9, 5), (50, 4, 3)]:
        table = random_x(rng, layer, count, 1)[:, 0]
        tokens = rng.integers(0, count, (steps, batch))
        assert same_bits(layer(tokens, embedding=table)[0], layer(table[tokens])[0])
    tokens = rng.integers(0, width, (6, 3))
    y = layer(tokens, embedding="one-hot")[0]
    assert same_bits(y, layer(np.eye(width, dtype=np.float32)[tokens])[0])


@every_type
def test_pools_and_blocks(rng: Generator, weights_dtype: str) -> None:
    layer = fastlstm.LSTM(16, 40, 2, seed=1).quantize(weights_dtype)
    x = random_x(rng, layer, 12, 3)
    y = layer(x)[0]
    pool = fastlstm.StreamPool(layer, 4)
    slots = [pool.open() for _ in range(3)]
    assert same_bits(np.stack([pool.step(x_t, slots).copy() for x_t in x[:5]]), y[:5])
    assert same_bits(pool.run(np.ascontiguousarray(x[5:]), slots), y[5:])
    stream = layer.stream(3)
    assert same_bits(stream.run(x), y)


@every_type
@every_layer
def test_files_and_copies(
    rng: Generator, tmp_path: Path, kind: tuple[Any, tuple[int, ...], dict[str, Any]],
    weights_dtype: str,
) -> None:  # fmt: skip
    cell, sizes, options = kind
    layer = cell(*sizes, **options, seed=1)
    small = layer.quantize(weights_dtype)
    x = random_x(rng, layer, 5, 3)
    y = small(x)[0]
    small.save(tmp_path / "small")
    layer.save(tmp_path / "float")
    bits = 8 if weights_dtype == "int8" else 16
    matrices = sum(a.size for n, a in layer.parameters.items() if a.ndim == 2)
    others = sum(a.size for n, a in layer.parameters.items() if a.ndim == 1)
    scales = sum(len(a) for n, a in layer.parameters.items() if a.ndim == 2 and bits == 8)
    data = matrices * bits // 8 + 4 * (others + scales)
    assert small.parameters.nbytes == data
    assert data < (tmp_path / "small").stat().st_size < data + 6000
    others = [
        cell.load(tmp_path / "small"),
        cell.load(tmp_path / "small", weights_dtype=weights_dtype),
        cell.load(tmp_path / "float", weights_dtype=weights_dtype),
        copy.copy(small),
        copy.deepcopy(small),
        pickle.loads(pickle.dumps(small)),
    ]
    for other in others:
        assert (type(other), repr(other)) == (cell, repr(small))
        assert other.weights_dtype == weights_dtype
        assert same_bits(other(x)[0], y)
        for name, array in small.state_dict().items():
            assert same_bits(other.state_dict()[name], array)


def test_later_edits_do_not_count(rng: Generator) -> None:
    layer = fastlstm.LSTM(4, 5, seed=1)
    small = layer.quantize("int8")
    x = random_x(rng, layer, 3, 2)
    y = small(x)[0]
    layer.parameters.flat = layer.parameters.flat * 2
    assert same_bits(small(x)[0], y)
    with pytest.raises(ValueError, match="read-only"):
        small.parameters["weight_ih_l0"][0, 0] = 1


def test_what_needs_float_weights(tmp_path: Path) -> None:
    layer = fastlstm.LSTM(4, 5, seed=1)
    small = layer.quantize("int8")
    x = np.zeros((2, 1, 4), np.float32)
    y, _, tape = layer.forward(x)
    end = "expected weights of float32, got int8: train the layer that was quantized"
    with pytest.raises(ValueError, match=f"forward: {end}"):
        small.forward(x)
    with pytest.raises(ValueError, match=f"backward: {end}"):
        small.backward(tape, y)
    with pytest.raises(ValueError, match=f"load_state_dict: {end}"):
        small.load_state_dict(layer.state_dict())
    with pytest.raises(ValueError, match="parameters: those of int8 cannot be exchanged"):
        small.parameters = layer.parameters
    with pytest.raises(
        TypeError, match="parameters: expected weights of float32 or float64, got i"
    ):
        fastlstm.optim.SGD(small.parameters, 0.1)
    with pytest.raises(ValueError, match="quantize: expected a layer of float32 weights, got int8"):
        small.quantize("float16")
    small.save(tmp_path / "small")
    with pytest.raises(ValueError, match="expected a layer of float32 weights, got int8"):
        fastlstm.LSTM.load(tmp_path / "small", weights_dtype="float16")


@pytest.mark.parametrize(
    ("weights_dtype", "error", "text"),
    [
        ("int4", ValueError, "expected one of 'bfloat16', 'float16', 'int8', got 'int4'"),
        ("float32", ValueError, "got 'float32'"),
        ("", ValueError, "got ''"),
        (np.int8, TypeError, "weights_dtype: expected a str, got type"),
    ],
)
def test_unknown_types(
    weights_dtype: Any, error: type[Exception], text: str, tmp_path: Path
) -> None:
    layer = fastlstm.GRU(2, 3)
    layer.save(tmp_path / "layer")
    with pytest.raises(error, match=text):
        layer.quantize(weights_dtype)
    with pytest.raises(error, match=text):
        fastlstm.GRU.load(tmp_path / "layer", weights_dtype=weights_dtype)


def test_weights_that_do_not_fit() -> None:
    layer = fastlstm.RNN(3, 2)
    w = np.ones((2, 3), np.float32)
    for value, weights_dtype, text in [
        (np.inf, "int8", "weight_ih_l0: expected finite numbers, to be int8"),
        (np.nan, "bfloat16", "weight_ih_l0: expected finite numbers"),
        (65520, "float16", "weight_ih_l0: expected magnitudes up to 65504, .* got 65520"),
        (3.4e38, "bfloat16", "weight_ih_l0: expected magnitudes up to 3.39e38"),
    ]:
        w[1, 2] = value
        layer.parameters["weight_ih_l0"] = w
        with pytest.raises(ValueError, match=text):
            layer.quantize(weights_dtype)
    with pytest.raises(ValueError, match="expected at most 132000 columns, to be int8, got 132001"):
        fastlstm.RNN(132_001, 1).quantize("int8")
    with pytest.raises(ValueError, match="expected a layer of float32, got float64; cast it"):
        fastlstm.RNN(3, 2, dtype="float64").quantize("int8")


@pytest.mark.parametrize("name", ["weight_hh_l0", "weight_hh_l0_scale", "bias_ih_l0"])
def test_damaged_files(name: str, tmp_path: Path) -> None:
    from fastlstm._io import tensor_file

    path = tmp_path / "small"
    small = fastlstm.LSTM(4, 5, seed=1).quantize("int8")
    stored = small.parameters.stored()
    for wrong in (None, stored[name][:-1], stored[name].astype(np.float64)):
        tensors = {k: v for k, v in stored.items() if k != name}
        if wrong is not None:
            tensors[name] = np.ascontiguousarray(wrong)
        tensor_file.write(path, "LSTM", tensors, small._configuration())
        with pytest.raises(ValueError, match="do not agree"):
            fastlstm.LSTM.load(path)
    tensor_file.write(path, "LSTM", stored, small._configuration() | {"weights_dtype": 3})
    with pytest.raises(ValueError, match="weights_dtype: expected a str, got int"):
        fastlstm.LSTM.load(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.5])
def test_scales_of_files_are_checked(value: float, tmp_path: Path) -> None:
    from fastlstm._io import tensor_file

    path, name = tmp_path / "small", "weight_hh_l0_scale"
    small = fastlstm.GRU(4, 5, seed=1).quantize("int8")
    stored = small.parameters.stored()
    scales = stored[name].copy()
    scales[[2, 3]] = 0, value
    tensor_file.write(path, "GRU", stored | {name: scales}, small._configuration())
    message = f"{path}: {name}: expected finite numbers of at least 0, got {value}"
    with pytest.raises(ValueError, match=re.escape(message)):
        fastlstm.GRU.load(path)
    scales[3] = 0
    tensor_file.write(path, "GRU", stored | {name: scales}, small._configuration())
    assert fastlstm.GRU.load(path).state_dict()[name][2] == 0
