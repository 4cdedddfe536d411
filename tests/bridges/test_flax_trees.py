"""Trees as Flax has them, without Flax: what is refused, export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.compare import same_bits
from support.flax_trees import LAYERS, H, I, check_trees, every_api, flat

import fastlstm
from fastlstm.flax import from_flax, to_flax_params


def tree_of(cell: str = "lstm", api: str = "linen", inputs: int = I, hidden: int = H) -> Any:
    """A tree of random arrays; the second bias of n is 0."""
    layer = LAYERS[cell](inputs, hidden, seed=inputs)
    layer.parameters["bias_hh_l0"] = np.zeros(layer.parameters["bias_hh_l0"].shape)
    return to_flax_params(layer, api)[0]["cell"]


@every_api
@pytest.mark.parametrize("cell", LAYERS)
def test_round_trip(cell: str, api: str) -> None:
    """Bit for bit, not-a-numbers and signs of zeros too."""
    tree = tree_of(cell, api)
    for dense in tree.values():
        dense["kernel"][0, 0] = np.nan
        if "bias" in dense:
            dense["bias"][0] = -0.0
    source = {"forward_rnn": {"cell": tree}, "backward_rnn": {"cell": tree_of(cell, api)}}
    [returned] = to_flax_params(from_flax(source), api)
    check_trees(returned, source)


def test_exports_are_copies() -> None:
    layer = fastlstm.LSTM(1, 1, seed=1)
    before = layer.parameters.flat.copy()
    for api in ("linen", "nnx"):
        for array in flat(to_flax_params(layer, api)[0]).values():
            assert array.flags.c_contiguous
            array[...] = 7
    assert same_bits(layer.parameters.flat, before)


def without(tree: Any, *names: str) -> Any:
    """A tree with a branch less."""
    *path, last = names
    if not path:
        return {name: branch for name, branch in tree.items() if name != last}
    return {**tree, path[0]: without(tree[path[0]], *path[1:], last)}


def with_leaf(tree: Any, value: Any, *names: str) -> Any:
    """A tree with another leaf, or one more."""
    first, *rest = names
    return {**tree, first: with_leaf(tree.get(first, {}), value, *rest) if rest else value}


LSTM, NNX_LSTM = tree_of(), tree_of(api="nnx")

REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "None": (None, TypeError, "params: expected a mapping, got NoneType"),
    "nothing": ([], ValueError, "params: expected a mapping, or a list .* got none"),
    "an array": ([np.ones(3)], TypeError, r"params\[0\]: expected a mapping, got ndarray"),
    "empty": ({}, ValueError, "params: expected .*, got nothing"),
    "leaf only": ({"cell": {"kernel": np.ones(3)}}, TypeError, "expected a mapping, got ndarray"),
    "missing gate": (
        without(LSTM, "ig"),
        ValueError,
        "params: expected ii, if, ig, .*, got ii, if, io",
    ),
    "missing half": (without(NNX_LSTM, "dense_h"), ValueError, "expected dense_i, dense_h, got de"),
    "missing kernel": (
        without(LSTM, "hf", "kernel"),
        ValueError,
        r"params\['hf'\]: expected kernel, bias, got bias",
    ),
    "missing fused kernel": (
        without(NNX_LSTM, "dense_h", "kernel"),
        TypeError,
        r"params\['dense_h'\]\['kernel'\]: expected real numbers, got object",
    ),
    "missing bias": (without(LSTM, "hf", "bias"), ValueError, "expected kernel, bias, got kernel"),
    "extra gate": (with_leaf(LSTM, {}, "ic"), ValueError, "params: expected ii, .*, got .*, ic"),
    "extra bias": (
        with_leaf(LSTM, np.ones(H), "ii", "bias"),
        ValueError,
        r"params\['ii'\]: expected kernel, got .*bias",
    ),
    "second bias of n": (
        with_leaf(tree_of("gru", "nnx"), np.ones(3 * H), "dense_h", "bias"),
        ValueError,
        r"params\['dense_h'\]: expected kernel, got .*bias",
    ),
    "another cell": (
        {"hf": LSTM["hf"], "hn": LSTM["hg"], "if": LSTM["ii"], "in": LSTM["ig"]},  # MGUCell
        ValueError,
        "params: expected .*, got hf, hn, if, in",
    ),
    "kernel": (
        with_leaf(LSTM, np.ones((I, H + 1)), "io", "kernel"),
        ValueError,
        r"params\['io'\]\['kernel'\]: expected \(6, 9\), got \(6, 10\)",
    ),
    "recurrent kernel": (
        with_leaf(LSTM, np.ones((H, H + 1)), "hi", "kernel"),
        ValueError,
        r"\['hi'\]\['kernel'\]: expected \(9, 9\), got \(9, 10\)",
    ),
    "flat kernel": (
        with_leaf(LSTM, np.ones(H), "ii", "kernel"),
        ValueError,
        r"\['ii'\]\['kernel'\]: expected \(I, H\), got \(9,\)",
    ),
    "number": (
        with_leaf(LSTM, np.float32(1), "hi", "kernel"),
        ValueError,
        r"\['kernel'\]: expected \(6, 0\), got \(6, 9\)",
    ),
    "bias": (
        with_leaf(NNX_LSTM, np.ones(H), "dense_h", "bias"),
        ValueError,
        r"\['dense_h'\]\['bias'\]: expected \(36,\), got \(9,\)",
    ),
    "gate count": (
        with_leaf(NNX_LSTM, np.ones((H, 2 * H)), "dense_h", "kernel"),
        ValueError,
        r"\['dense_h'\]\['kernel'\]: expected \(H, 4H\) of an LSTM, .*, got \(9, 18\)",
    ),
    "gate count of the input": (
        with_leaf(NNX_LSTM, np.ones((I, 3 * H)), "dense_i", "kernel"),
        ValueError,
        r"\['dense_i'\]\['kernel'\]: expected \(6, 36\), got \(6, 27\)",
    ),
    "no dense layer": (
        with_leaf(LSTM, np.ones((H, H)), "hi"),
        TypeError,
        r"params\['hi'\]: expected a mapping, got ndarray",
    ),
    "integers": (
        with_leaf(LSTM, np.ones((I, H), int), "if", "kernel"),
        TypeError,
        r"\['if'\]\['kernel'\]: expected real numbers, got int64",
    ),
    "one direction": ({"forward_rnn": LSTM}, ValueError, "expected forward_rnn, backward_rnn, got"),
    "cells of directions": (
        {"forward_rnn": LSTM, "backward_rnn": tree_of("rnn")},
        ValueError,
        "expected two directions of one cell, got lstm and rnn",
    ),
    "sizes of directions": (
        {"forward_rnn": LSTM, "backward_rnn": tree_of(hidden=H + 1)},
        ValueError,
        "layers and directions differ in hidden_size: 9 and 10",
    ),
    "cells of layers": ([LSTM, tree_of("gru", inputs=H)], ValueError, "differ in cell"),
    "second layer": ([LSTM, LSTM], ValueError, "source: layer 1 reads 6 features, expected 9"),
}


@pytest.mark.parametrize(("tree", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_trees(tree: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        from_flax(tree)
    assert caught.type is error


def test_options() -> None:
    made = from_flax(tree_of("rnn"), nonlinearity="relu", dtype="float64", batch_first=False)
    assert repr(made) == "RNN(6, 9, nonlinearity='relu', dtype='float64')"
    with pytest.raises(ValueError, match="num_layers: expected 1 for this source, got 2"):
        from_flax(LSTM, num_layers=2)


REFUSED_LAYERS: dict[str, tuple[Callable[[], Any], str, type[Exception], str]] = {
    "no layer": (lambda: LSTM, "linen", TypeError, "layer: expected a fastlstm.LSTM, .* got dict"),
    "api": (lambda: fastlstm.GRU(I, H), "jax", ValueError, "expected 'linen' or 'nnx', got 'jax'"),
    "second bias of n": (
        lambda: fastlstm.GRU(I, H),
        "nnx",
        ValueError,
        "layer 0: nnx.GRUCell has no second bias of n, the layer has bias_hh != 0",
    ),
}


@pytest.mark.parametrize(
    ("make", "api", "error", "message"), REFUSED_LAYERS.values(), ids=REFUSED_LAYERS
)
def test_refused_layers(
    make: Callable[[], Any], api: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        to_flax_params(make(), api)
    assert caught.type is error


def test_reset_before() -> None:
    layer = fastlstm.GRU(I, H, reset_after=False)
    with pytest.raises(ValueError, match="Flax has no GRU with reset_after=False"):
        to_flax_params(layer)


@pytest.mark.parametrize("weights_dtype", ["int8", "bfloat16", "float16"])
@pytest.mark.parametrize("cell", LAYERS.values())
def test_weights_of_few_bits(cell: Any, weights_dtype: str) -> None:
    """Flax has none such; those of the layer before are for export."""
    small = cell(I, H).quantize(weights_dtype)
    message = f"layer: expected weights of float32, got {weights_dtype}; use the layer that was qua"
    with pytest.raises(ValueError, match=f"^{message}"):
        to_flax_params(small)
