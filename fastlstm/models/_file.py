"""The file of a language model: what has to be in it, checked before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._io import tensor_file
from fastlstm._io.atomic import StrPath
from fastlstm._layers.cells import BIASES, CELLS, GATES, HEADS
from fastlstm._layers.config import WEIGHT_TYPES
from fastlstm._stored_weights import check_scales, stored_layout, widened

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]

_KIND = "LanguageModel"
_SIZES = ("embedding_size", "hidden_size", "num_layers")


def write(path: StrPath, tensors: Mapping[str, Array], config: Mapping[str, Any]) -> None:
    """Write a model; a file that exists is replaced only when the new one is complete."""
    tensor_file.write(path, _KIND, tensors, config)


def read(path: StrPath) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a model's tensors and configuration, which agree with each other.

    The configuration of a model that was quantized has ``weights_dtype``, and ``cell`` that of one
    whose cell is not the LSTM's.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is another kind of file, incomplete, or not consistent.
    """
    tensors, config = tensor_file.read(path, _KIND)
    check_scales(path, tensors)
    fault = _fault_of(config)
    if fault:
        raise tensor_file.damaged(path, fault)
    found = {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}
    if found != _expected_layout(config, len(tensors)):
        raise ValueError(f"{path}: weights and configuration do not agree")
    if not all(np.isfinite(widened(tensor)).all() for tensor in tensors.values()):
        raise ValueError(f"{path}: some weights are not finite numbers")
    return tensors, config


def shapes_of_heads(count: int, config: Mapping[str, Any]) -> Shapes:
    """Shapes of embedding and output layer, for `count` characters."""
    return {
        "embedding.weight": (count, config["embedding_size"]),
        "linear.weight": (count, config["hidden_size"]),
        "linear.bias": (count,),
    }


def cell_of(config: Mapping[str, Any]) -> Any:
    """The name of the recurrent layer's cell, with which the names of its tensors begin."""
    return config.get("cell", "lstm")


def _expected_layout(
    config: Mapping[str, Any], n_tensors: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The type and shape of each tensor."""
    layer = _shapes_of_layer(config, n_tensors)
    heads = shapes_of_heads(len(config["alphabet"]), config)
    layout = {name: ("float32", shape) for name, shape in heads.items()}
    if "weights_dtype" in config:
        stored = stored_layout(layer, config["weights_dtype"])
    else:
        stored = {name: ("float32", shape) for name, shape in layer.items()}
    return layout | {f"{cell_of(config)}.{name}": of for name, of in stored.items()}


def _shapes_of_layer(config: Mapping[str, Any], n_tensors: int) -> Shapes:
    shapes: Shapes = {}
    cell = cell_of(config)
    hidden, width = config["hidden_size"], config["embedding_size"]
    rows, recurrent = GATES[cell] * hidden, hidden // HEADS[cell]
    # No more layers than the file can have, however many it claims.
    for layer in range(min(config["num_layers"], n_tensors)):
        shapes[f"weight_ih_l{layer}"] = (rows, width)
        shapes[f"weight_hh_l{layer}"] = (rows, recurrent)
        shapes |= {f"{bias}_l{layer}": (rows,) for bias in BIASES[cell]}
        width = hidden
    return shapes


def _fault_of(config: dict[str, Any]) -> str | None:
    """What is wrong with a configuration, or None."""
    names = {"alphabet", "dropout", *_SIZES}
    if set(config) - {"cell", "weights_dtype"} != names:
        return f"expected {', '.join(sorted(names))}, got {', '.join(sorted(config)):.200}"
    stored = config.get("weights_dtype", "int8")
    if not isinstance(stored, str) or stored not in WEIGHT_TYPES[1:]:
        expected = ", ".join(WEIGHT_TYPES[1:])
        return f"weights_dtype: expected one of {expected}, got {stored!r:.60}"
    cell = cell_of(config)
    if cell not in list(CELLS):  # which need not be hashable
        return f"cell: expected one of {', '.join(CELLS)}, got {cell!r:.60}"
    alphabet, dropout = config["alphabet"], config["dropout"]
    if not isinstance(alphabet, str) or alphabet != "".join(sorted(set(alphabet))):
        return f"alphabet: expected different characters, sorted, got {alphabet!r:.60}"
    for name in _SIZES:
        if type(config[name]) is not int or config[name] < 1:
            return f"{name}: expected an integer of at least 1, got {config[name]!r:.60}"
    if config["hidden_size"] % HEADS[cell]:
        return f"hidden_size: expected a multiple of {HEADS[cell]}, got {config['hidden_size']}"
    if type(dropout) not in (int, float) or not 0 <= dropout <= 1:
        return f"dropout: expected a number from 0 to 1, got {dropout!r:.60}"
    return None
