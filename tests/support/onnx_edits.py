"""Edits of files of ONNX: what other programs write, and what is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fastlstm.onnx import to_onnx

Edit = Callable[[Any], None]


def written(path: Path, layer: Any, *edits: Edit) -> Path:
    """The file of a layer, edited."""
    to_onnx(layer, path)
    file = onnx.load(path)
    for edit in edits:
        edit(file)
    path.write_bytes(file.SerializeToString())
    return path


def node_of(file: Any, name: str) -> Any:
    [node] = [node for node in file.graph.node if node.name == name]
    return node


def tensor_of(file: Any, name: str) -> Any:
    [tensor] = [tensor for tensor in file.graph.initializer if tensor.name == name]
    return tensor


def stored(name: str, array: Any) -> Edit:
    """An edit that adds a tensor, or replaces one."""

    def edit(file: Any) -> None:
        kept = [tensor for tensor in file.graph.initializer if tensor.name != name]
        del file.graph.initializer[:]
        tensor = onnx.numpy_helper.from_array(np.asarray(array), name)
        file.graph.initializer.extend([*kept, tensor])

    return edit


def wired(node: str, position: int, value: str) -> Edit:
    """An edit that connects an input of a node."""

    def edit(file: Any) -> None:
        inputs = node_of(file, node).input
        inputs.extend([""] * (position + 1 - len(inputs)))
        inputs[position] = value

    return edit


def asking(node: str, **attributes: Any) -> Edit:
    """An edit that sets attributes of a node."""

    def edit(file: Any) -> None:
        asked = node_of(file, node)
        kept = [attribute for attribute in asked.attribute if attribute.name not in attributes]
        del asked.attribute[:]
        made = [onnx.helper.make_attribute(name, value) for name, value in attributes.items()]
        asked.attribute.extend([*kept, *made])

    return edit


def made_by(op: str, inputs: list[str], output: str, **attributes: Any) -> Edit:
    """An edit that puts a node before all others."""

    def edit(file: Any) -> None:
        node = onnx.helper.make_node(op, inputs, [output], **attributes)
        file.graph.node.insert(0, node)

    return edit


def lengths_input(file: Any) -> None:
    file.graph.input.append(onnx.helper.make_tensor_value_info("lengths", 6, ["B"]))
