"""Weights of 8 and 16 bits: every instruction set against the NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, same_bits

import fastlstm
from fastlstm import reference
from fastlstm._stored_weights import StoredWeights
from fastlstm.reference import low_bits

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "no-bias": ("LSTM", {"bias": False}),
    "projected": ("LSTM", {"proj_size": 5}),
    "peephole": ("LSTM", {"peephole": True, "coupled": True}),
    "normed": ("LSTM", {"layer_norm": True}),
    "gru": ("GRU", {}),
    "gru-before": ("GRU", {"reset_after": False}),
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "slstm": ("SLSTM", {}),
}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
# I, H at the edges of tiles, vectors and groups of four.
SIZES = [(1, 7), (3, 9), (4, 16), (5, 17), (40, 33), (66, 64), (31, 130)]


def layer_of(cell: tuple[str, dict[str, Any]], *sizes: int, **options: Any) -> Any:
    if cell[0] == "SLSTM":
        options["num_heads"] = next(n for n in range(2, sizes[1] + 1) if sizes[1] % n == 0)
    return getattr(fastlstm, cell[0])(*sizes, **cell[1], **options, seed=1)


def reference_of(layer: Any, cell: tuple[str, dict[str, Any]], weights_dtype: str) -> Any:
    twin = getattr(reference, cell[0])(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        bidirectional=layer.bidirectional,
        bias=layer.bias,
        **{k: getattr(layer, k) for k in layer._OPTIONS},
    )
    twin.load_state_dict(layer.state_dict())
    low_bits.quantize(twin, weights_dtype)
    return twin


@every_cell
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_int8_over_many_steps(
    rng: Generator, byte_isa: str, cell: tuple[str, dict[str, Any]], size: tuple[int, int]
) -> None:
    """Each step from the layer's own state, whose bits the reference then has: the same integers.

    One of them that differed would be seen: it moves a sum by s_x s_w, 1e-4 and more of it.
    """
    layer = layer_of(cell, *size)
    twin = reference_of(layer, cell, "int8")
    small = layer.quantize("int8")
    stream = small.stream(3)
    for _ in range(40):
        x = rng.standard_normal((3, size[0]), dtype=np.float32) * 2
        before = stream.state
        y = stream.step(x).copy()
        expected = twin(x[None], before)[0][0]
        np.testing.assert_allclose(y, expected, rtol=2e-6, atol=2e-6)


@every_cell
@pytest.mark.parametrize("weights_dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_16_bits_are_a_float_layer_of_rounded_weights(
    rng: Generator,
    isa: str,
    cell: tuple[str, dict[str, Any]],
    size: tuple[int, int],
    weights_dtype: str,
) -> None:
    layer = layer_of(cell, *size, num_layers=2)
    twin = reference_of(layer, cell, weights_dtype)
    layer.parameters.flat = rng.standard_normal(layer.parameters.flat.size) * 0.3
    twin.load_state_dict(layer.state_dict())
    low_bits.quantize(twin, weights_dtype)
    small = layer.quantize(weights_dtype)
    layer.load_state_dict(dict(twin.parameters))
    for rows in (1, 2, 5, 8):
        x = rng.standard_normal((6, rows, size[0]), dtype=np.float32)
        assert same_bits(small(x)[0], layer(x)[0])


def test_rounding_to_16_bits() -> None:
    """To nearest even, denormal halves and the largest numbers too."""
    layer = fastlstm.RNN(8, 1, bias=False)
    values = [1 + 2**-8, 1 + 3 * 2**-8, 2**-24, 3 * 2**-25, 2**-14 - 2**-25, 65504, -1e-30, 0.1]
    layer.parameters["weight_ih_l0"] = [values]
    half = np.array([values], np.float32).astype(np.float16)
    assert same_bits(layer.quantize("float16").state_dict()["weight_ih_l0"], half)
    bfloat = layer.quantize("bfloat16").state_dict()["weight_ih_l0"][0]
    assert bfloat[:2].tolist() == [1, 1 + 2**-6]
    assert (bfloat.view(np.uint32) & 0xFFFF == 0).all()
    np.testing.assert_allclose(bfloat, values, rtol=2**-8)
    for weights_dtype in ("bfloat16", "float16"):
        small = layer.quantize(weights_dtype)
        x = np.eye(8, dtype=np.float32)
        other = fastlstm.RNN(8, 1, bias=False)
        other.load_state_dict(small.state_dict())
        assert same_bits(small(x)[0], other(x)[0])


def rnn_of(q: Array, scale: Array, *, first_bias: float = 0) -> fastlstm.RNN:
    """A layer whose output is the product with these integers, plus the bias, if positive."""
    rows, columns = q.shape
    layer = fastlstm.RNN(columns, rows, nonlinearity="relu")
    shapes = {name: array.shape for name, array in layer.parameters.items()}
    arrays = {
        "weight_ih_l0": q.astype(np.int8),
        "weight_ih_l0_scale": scale.astype(np.float32),
        "weight_hh_l0": np.zeros((rows, rows), np.int8),
        "weight_hh_l0_scale": np.zeros(rows, np.float32),
        "bias_ih_l0": np.full(rows, first_bias, np.float32),
        "bias_hh_l0": np.zeros(rows, np.float32),
    }
    return layer._with_weights(StoredWeights("int8", shapes, arrays))


@pytest.mark.parametrize("weight", [127, -127, -128])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 63, 64, 1000, 132_000])
def test_sums_do_not_saturate(byte_isa: str, weight: int, columns: int) -> None:
    """The largest products there are, all of one sign, and -128, which some files have."""
    small = rnn_of(np.full((5, columns), weight), np.full(5, 0.5))
    sign = np.float32(np.sign(weight))
    total = np.float32(127 * abs(weight) * columns)  # rounded once
    expected = total * np.float32(np.float32(1) / np.float32(127) * np.float32(0.5))
    for x in (np.full((1, 3, columns), sign), np.full((1, 1, columns), sign)):
        assert (small(x)[0] == expected).all()


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_rows_that_are_zero_tiny_huge_or_not_finite(
    rng: Generator, byte_isa: str, rows: int
) -> None:
    """Each counts for itself alone."""
    layer = fastlstm.LSTM(19, 21, seed=1)
    small = layer.quantize("int8")
    x = rng.standard_normal((1, rows, 19), dtype=np.float32)
    expected = small(x)[0]
    zero = small(np.zeros((1, 1, 19), np.float32))[0][0, 0]
    for value, result in [(0.0, zero), (2.0**-101, zero), (1e-39, zero), (np.nan, None)]:
        y = small(np.concatenate([x, np.full((1, 1, 19), value, np.float32)], axis=1))[0]
        assert same_bits(y[:, :-1], expected)
        if result is None:
            assert np.isnan(y[0, -1]).all()
        else:
            assert same_bits(y[0, -1], result)
    x[0, 0, 3] = np.inf
    y = small(x)[0]
    assert np.isnan(y[0, 0]).all()
    assert same_bits(y[0, 1:], expected[0, 1:])
    x[0, 0] = 1e38
    twin = reference_of(layer, CELLS["lstm"], "int8")
    np.testing.assert_allclose(small(x)[0], twin(x)[0], rtol=1e-6, atol=1e-6)


def test_integers_of_the_weights_are_those_of_the_reference(rng: Generator) -> None:
    layer = fastlstm.LSTM(40, 30, proj_size=7, seed=1)
    w = rng.standard_normal((120, 40), dtype=np.float32)
    w[3] = 0
    w[4] = 1e-44
    w[5] *= 1e-38
    layer.parameters["weight_ih_l0"] = w
    stored = layer.quantize("int8").parameters
    for name in ("weight_ih_l0", "weight_hh_l0", "weight_hr_l0"):
        q, scale = low_bits.quantize_weights(layer.parameters[name])
        assert (stored[name] == q).all()
        assert same_bits(stored[f"{name}_scale"], scale)


@every_cell
def test_bits_are_the_same_on_every_instruction_set(
    rng: Generator, byte_isa: str, cell: tuple[str, dict[str, Any]], monkeypatch: Any
) -> None:
    """But for the one without fused multiply-adds."""
    if byte_isa == "baseline":
        pytest.skip("it rounds twice")
    x = rng.standard_normal((9, 8, 21), dtype=np.float32)
    one = layer_of(cell, 21, 50, num_layers=2, bidirectional=True)
    monkeypatch.delenv("FASTLSTM_ISA")
    other = layer_of(cell, 21, 50, num_layers=2, bidirectional=True)
    assert (one.isa, other.isa) == (byte_isa, fastlstm.isas()[0])
    for weights_dtype in ("int8", "bfloat16", "float16"):
        assert same_bits(one.quantize(weights_dtype)(x)[0], other.quantize(weights_dtype)(x)[0])
