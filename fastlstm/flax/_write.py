"""Parameters for cells of Flax."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _conversion
from fastlstm._conversion import DirectionWeights
from fastlstm._layers.cells import GATES, cell_name
from fastlstm._layers.gru import GRU
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.rnn import RNN
from fastlstm.flax._names import (
    DIRECTIONS,
    LINEN,
    NNX,
    Form,
    Tree,
)

Array = NDArray[Any]


def to_flax_params(layer: LSTM | GRU | RNN, api: str = "linen") -> list[Tree]:
    """Return the parameters for modules of Flax.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    api : {"linen", "nnx"}, default "linen"
        Of linen: for ``LSTMCell`` and ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell``;
        of nnx: for ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell``.

    Returns
    -------
    list of dict
        For each layer of the stack: ``{"cell": ...}`` for ``RNN`` around the cell, or
        ``{"forward_rnn": {"cell": ...}, "backward_rnn": {"cell": ...}}`` for ``Bidirectional``.
        Use it as ``module.apply({"params": tree}, x)`` with linen, and with nnx as
        ``nnx.update(module, tree)``.

    Raises
    ------
    TypeError, ValueError
        If `layer` is no layer, or has what Flax has not: an option, such as
        ``reset_after=False``, or, for nnx, a GRU whose ``bias_hh`` of n is not 0.

    Notes
    -----
    Two biases are one in Flax and are summed, but for n of a linen GRU; without `bias`, they
    are 0.  Make the cells with ``gate_fn`` and ``activation_fn`` if they are not the default ones.

    Examples
    --------
    >>> import fastlstm
    >>> from fastlstm.flax import to_flax_params
    >>> [tree] = to_flax_params(fastlstm.LSTM(2, 3), api="nnx")
    >>> {name: list(dense) for name, dense in tree["cell"].items()}
    {'dense_i': ['kernel'], 'dense_h': ['kernel', 'bias']}
    """
    cell = cell_name(layer)
    if api not in ("linen", "nnx"):
        raise ValueError(f"api: expected 'linen' or 'nnx', got {api!r}")
    _conversion.check_plain(layer, "Flax")
    if not getattr(layer, "reset_after", True):
        raise ValueError("layer: Flax has no GRU with reset_after=False")
    form = {"linen": LINEN, "nnx": NNX}[api][cell]
    trees: list[Tree] = []
    for number, parts in enumerate(_conversion.parts_of(layer)):
        cells = [{"cell": _tree(part, form, f"layer {number}")} for part in parts]
        trees.append(cells[0] if len(cells) == 1 else dict(zip(DIRECTIONS, cells, strict=True)))
    return trees


def _tree(part: DirectionWeights, form: Form, name: str) -> Tree:
    """The dense layers of one cell."""
    gates, count = GATES[form.cell], len(form.hidden)
    first, second = (np.split(part[f"bias_{suffix}"], gates) for suffix in ("ih", "hh"))
    biases = [_conversion.summed(a, b) for a, b in zip(first, second, strict=True)]
    beside: dict[str, Array] = {}
    if form.cell == "gru" and "hn" in form.biased:  # r multiplies the second bias of n
        biases[2], beside = first[2], {"hn": second[2]}
    elif form.cell == "gru" and second[2].any():
        raise ValueError(f"{name}: nnx.GRUCell has no second bias of n, the layer has bias_hh != 0")
    tree: Tree = {}
    for suffix, names in [("ih", form.inputs), ("hh", form.hidden)]:
        kernels = np.split(part[f"weight_{suffix}"], count)
        parts = np.split(np.concatenate(biases), count)
        for dense, kernel, bias in zip(names, kernels, parts, strict=True):
            tree[dense] = {"kernel": np.array(kernel.T, order="C")}
            if dense in form.biased:
                tree[dense]["bias"] = beside.get(dense, bias)
    return tree
