"""The values of a graph, as far as they are followed: arrangements of axes, and constants.

Sizes that are not fixed get unusual numbers, so that no constant of the graph fits them by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm.onnx._axes import RULES, VIEWS, Arrangement, Axis, Value, axis
from fastlstm.onnx._model import Graph, array_of, attributes_of
from fastlstm.onnx._quantized import MOVES, Quantized, moved

SOME_SIZE = 1_000_003  # of an axis whose size is not fixed; the next has two more, and so on


class Values:
    """Values of a graph by name, computed when they are asked for.

    Parameters
    ----------
    graph : Graph
    outer : Values, optional
        Those of the graph that it is inside of.

    Attributes
    ----------
    known : dict of str to Value
        What was computed, and what the caller knows about values that are not followed.
    """

    def __init__(self, graph: Graph, outer: Values | None = None) -> None:
        self._graph, self._outer = graph, outer
        self._main: Values = self if outer is None else outer._main
        self.known: dict[str, Value] = {}
        self._sizes: dict[str, int] = {}
        self._left = 2 * graph.nbytes + 2**16  # elements that may be copied, of the main graph

    def __getitem__(self, name: str) -> Value:
        for k in self._graph.needed_for([name], self.known):
            node = self._graph.nodes[k]
            outputs = self._computed(node)
            for k, output in enumerate(node.output):
                self.known.setdefault(output, outputs[k] if k < len(outputs) else None)
        return self._ready(name)

    def some_axis(self, name: str) -> Axis:
        """An axis whose size is not fixed; the same name is the same axis."""
        sizes = self._main._sizes
        return axis(name, sizes.setdefault(name, SOME_SIZE + 2 * len(sizes)))

    def _ready(self, name: str) -> Value:
        if name not in self.known:
            self.known[name] = self._start(name)
        return self.known[name]

    def _start(self, name: str) -> Value:
        """A value that no node of this graph makes."""
        if self._outer is not None and self._graph.scope_of(name) is not self._graph:
            return self._outer[name]
        if name in self._graph.stored:
            return array_of(self._graph.stored[name])
        return self.beginning(name) if name in self._graph.inputs else None

    def beginning(self, name: str) -> Arrangement | None:
        """A value whose origin is not followed, if its shape is declared."""
        declared = self._graph.scope_of(name).declared
        if name not in declared:
            return None
        axes = [
            axis(f"{name} {k}", size)
            if isinstance(size, int)
            else self.some_axis(size or f"{name} {k}")
            for k, size in enumerate(declared[name])
        ]
        return Arrangement(name, tuple(axes))

    def _computed(self, node: Any) -> Sequence[Value]:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            return []
        inputs = [self._ready(name) for name in node.input]
        few_bits = any(isinstance(value, Quantized) for value in inputs)
        if node.op_type not in (VIEWS & MOVES if few_bits else VIEWS):
            constants = (value for value in inputs if isinstance(value, np.ndarray | Quantized))
            copied = sum(value.size for value in constants)
            if copied > self._main._left:  # a small file that multiplies its constants
                return []
            self._main._left -= copied
        try:
            attributes = {**attributes_of(node), "outputs": len(node.output)}
            outputs = moved(node.op_type, rule, inputs, attributes)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return []  # malformed, or not what the rule is about
        return outputs if isinstance(outputs, list) else [outputs]
