"""The file of a language model: what has to be in it, checked before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._io import tensor_file
from fastlstm._io.atomic import StrPath

Array = NDArray[np.float32]
Shapes = dict[str, tuple[int, ...]]

_KIND = "LanguageModel"
_SIZES = ("embedding_size", "hidden_size", "num_layers")


def write(path: StrPath, tensors: Mapping[str, Array], config: Mapping[str, Any]) -> None:
    """Write a model; a file that exists is replaced only when the new one is complete."""
    tensor_file.write(path, _KIND, tensors, config)


def read(path: StrPath) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a model's tensors and configuration, which agree with each other.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is another kind of file, incomplete, or not consistent.
    """
    tensors, config = tensor_file.read(path, _KIND)
    fault = _fault_of(config)
    if fault:
        raise tensor_file.damaged(path, fault)
    shapes = _expected_shapes(config, len(tensors))
    found = {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}
    if found != {name: ("float32", shape) for name, shape in shapes.items()}:
        raise ValueError(f"{path}: weights and configuration do not agree")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError(f"{path}: some weights are not finite numbers")
    return tensors, config


def shapes_of_heads(count: int, config: Mapping[str, Any]) -> Shapes:
    """Shapes of embedding and output layer, for `count` characters."""
    return {
        "embedding.weight": (count, config["embedding_size"]),
        "linear.weight": (count, config["hidden_size"]),
        "linear.bias": (count,),
    }


def _expected_shapes(config: Mapping[str, Any], n_tensors: int) -> Shapes:
    shapes = shapes_of_heads(len(config["alphabet"]), config)
    hidden, width = config["hidden_size"], config["embedding_size"]
    # No more layers than the file can have, however many it claims.
    for layer in range(min(config["num_layers"], n_tensors)):
        shapes[f"lstm.weight_ih_l{layer}"] = (4 * hidden, width)
        shapes[f"lstm.weight_hh_l{layer}"] = (4 * hidden, hidden)
        shapes[f"lstm.bias_ih_l{layer}"] = shapes[f"lstm.bias_hh_l{layer}"] = (4 * hidden,)
        width = hidden
    return shapes


def _fault_of(config: dict[str, Any]) -> str | None:
    """What is wrong with a configuration, or None."""
    names = {"alphabet", "dropout", *_SIZES}
    if set(config) != names:
        return f"expected {', '.join(sorted(names))}, got {', '.join(sorted(config)):.200}"
    alphabet, dropout = config["alphabet"], config["dropout"]
    if not isinstance(alphabet, str) or alphabet != "".join(sorted(set(alphabet))):
        return f"alphabet: expected different characters, sorted, got {alphabet!r:.60}"
    for name in _SIZES:
        if type(config[name]) is not int or config[name] < 1:
            return f"{name}: expected an integer of at least 1, got {config[name]!r:.60}"
    if type(dropout) not in (int, float) or not 0 <= dropout <= 1:
        return f"dropout: expected a number from 0 to 1, got {dropout!r:.60}"
    return None
