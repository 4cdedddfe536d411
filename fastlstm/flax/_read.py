"""Layers of Flax, read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _conversion
from fastlstm._conversion import DirectionWeights, ForeignLayer
from fastlstm._layers.cells import GATES
from fastlstm._layers.gru import GRU
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.rnn import RNN
from fastlstm.flax._names import (
    DIRECTIONS,
    NAMES,
    NNX,
    SEPARATE,
    Form,
)

Array = NDArray[Any]


def from_flax(params: Any, **options: Any) -> LSTM | GRU | RNN:
    """Make a layer of the parameters of a recurrent cell of Flax, or of a stack of them.

    Parameters
    ----------
    params : mapping, or list of mappings
        Of ``LSTMCell``, ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell``, of linen or nnx: the
        cell's own dense layers, or these within levels of one name, such as ``{"params":
        {"cell": ...}}`` of ``nn.RNN``; or two directions, ``{"forward_rnn": ..., "backward_rnn":
        ...}``, as of ``Bidirectional``.  Of nnx: ``nnx.state(module, nnx.Param)`` or its pure
        dictionary.  A list is a stack in which each reads the output of the one before.
    **options
        Further arguments of the constructor: ``dtype`` instead of that of the weights,
        ``batch_first=False``, and what parameters do not tell, if it is not the default:
        `activations` of an LSTM, that is ``(gate_fn, activation_fn, activation_fn)``, and
        `nonlinearity` of an RNN.

    Returns
    -------
    LSTM, GRU or RNN
        With ``batch_first=True``, because ``RNN`` of Flax has (B, T, I) unless ``time_major``.

    Raises
    ------
    TypeError, ValueError
        If `params` is something else, or an array is missing, too many or of the wrong shape.

    Notes
    -----
    The one bias of Flax becomes ``bias_ih``, and ``bias_hh`` is 0, but for n of a linen GRU, which
    has both.  No value is changed, so `to_flax_params` returns the same bits.

    * The carry of an LSTM of Flax is **(c, h)**; the state here is (h, c), each (L*D, B, H).
    * `seq_lengths` is ``lengths``; Flax leaves outputs past the end that are no results, and here
      they are 0.
    * Parameters do not tell ``reverse``, nor ``residual`` of a SimpleCell.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.flax import from_flax
    >>> dense_i = {"kernel": np.ones((2, 12), "f4")}
    >>> dense_h = {"kernel": np.ones((3, 12), "f4"), "bias": np.ones(12, "f4")}
    >>> from_flax({"dense_i": dense_i, "dense_h": dense_h})
    LSTM(2, 3, batch_first=True)
    """
    entries = params if isinstance(params, list | tuple) else [params]
    if not entries:
        raise ValueError("params: expected a mapping, or a list of at least one, got none")
    several = isinstance(params, list | tuple)
    sources = [
        _source(entry, f"params[{number}]" if several else "params")
        for number, entry in enumerate(entries)
    ]
    layer: LSTM | GRU | RNN = _conversion.build(sources, {"batch_first": True, **options})
    return layer


def _source(tree: Any, name: str) -> ForeignLayer:
    """Read a cell, or two directions of one."""
    tree, name = _unwrapped(tree, name)
    if not tree.keys() & set(DIRECTIONS):
        cell, part = _part(tree, name)
        return ForeignLayer(cell, [part], {})
    _check_names(tree, DIRECTIONS, name)
    ways = [_part(*_unwrapped(tree[way], f"{name}[{way!r}]")) for way in DIRECTIONS]
    (cell, forward), (other, backward) = ways
    if cell != other:
        raise ValueError(f"{name}: expected two directions of one cell, got {cell} and {other}")
    return ForeignLayer(cell, [forward, backward], {})


def _unwrapped(tree: Any, name: str) -> tuple[Mapping[str, Any], str]:
    """What is below levels of one name, and below the random streams that a State has too."""
    while True:
        if not isinstance(tree, Mapping):
            got = type(tree).__name__
            raise TypeError(f"{name}: expected a mapping, got {got}; of nnx, nnx.state(module)")
        tree = {key: tree[key] for key in tree if key != "rngs"}
        if len(tree) != 1 or tree.keys() & (NAMES | set(DIRECTIONS)):
            return tree, name
        [(key, tree)] = tree.items()
        name = f"{name}[{key!r}]"


def _check_names(tree: Mapping[str, Any], names: tuple[str, ...], name: str) -> None:
    if not isinstance(tree, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(tree).__name__}")
    if set(tree) != set(names):
        got = ", ".join(map(str, tree)) or "nothing"
        raise ValueError(f"{name}: expected {', '.join(names)}, got {got}")


def _form_of(tree: Mapping[str, Any], name: str) -> Form:
    """The form whose names these are, or most of them."""
    if tree.keys() & {"dense_i", "dense_h"}:
        _check_names(tree, ("dense_i", "dense_h"), name)
        kernel = tree["dense_h"].get("kernel") if isinstance(tree["dense_h"], Mapping) else None
        recurrent = _conversion.real(kernel, f"{name}['dense_h']['kernel']")
        return NNX[_conversion.cell_of(recurrent, f"{name}['dense_h']['kernel']")]
    form = max(SEPARATE, key=lambda form: len(tree.keys() & set(form.inputs + form.hidden)))
    _check_names(tree, form.inputs + form.hidden, name)
    return form


def _part(tree: Mapping[str, Any], name: str) -> tuple[str, DirectionWeights]:
    """The cell, and its weights in our layout."""
    form = _form_of(tree, name)
    for dense in form.inputs + form.hidden:
        leaves = ("kernel", "bias") if dense in form.biased else ("kernel",)
        _check_names(tree[dense], leaves, f"{name}[{dense!r}]")
    gates = GATES[form.cell] // len(form.hidden)  # of one dense layer
    first, second = form.inputs[0], form.hidden[0]
    kernel = _conversion.real(tree[first]["kernel"], f"{name}[{first!r}]['kernel']")
    recurrent = _conversion.real(tree[second]["kernel"], f"{name}[{second!r}]['kernel']")
    if kernel.ndim != 2 or not kernel.size:
        raise ValueError(f"{name}[{first!r}]['kernel']: expected (I, H), got {kernel.shape}")
    hidden = recurrent.shape[0] if recurrent.ndim else 0
    part: DirectionWeights = {}
    for suffix, names, inputs in [
        ("ih", form.inputs, kernel.shape[0]),
        ("hh", form.hidden, hidden),
    ]:
        kernels, biases = [], []
        for dense in names:
            where, leaves = f"{name}[{dense!r}]", tree[dense]
            shape = (inputs, gates * hidden)
            kernels.append(_conversion.shaped(leaves["kernel"], f"{where}['kernel']", shape))
            zeros = np.zeros(shape[1], kernels[-1].dtype)
            bias = leaves["bias"] if dense in form.biased else zeros
            biases.append(_conversion.shaped(bias, f"{where}['bias']", shape[1:]))
        part[f"weight_{suffix}"] = np.concatenate(kernels, axis=1).T
        part[f"bias_{suffix}"] = np.concatenate(biases)
    if form.cell == "lstm":  # our one bias is the first of two
        part["bias_ih"], part["bias_hh"] = part["bias_hh"], part["bias_ih"]
    return form.cell, part
