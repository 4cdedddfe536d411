"""Layers in files of ONNX, and single nodes of ONNX.  Needs onnx: ``pip install fastlstm[onnx]``.

`to_onnx` writes a layer as plain nodes of LSTM, GRU or RNN that ONNX Runtime runs; `from_onnx`
reads such nodes, from whatever wrote them; `run_node` does what one node says.  Whatever a file or
a layer asks for and the other side cannot do is an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike, DTypeLike, NDArray

try:
    import onnx as _onnx  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "onnx":
        raise
    text = "fastlstm.onnx needs onnx: pip install 'fastlstm[onnx]'"
    raise ModuleNotFoundError(text, name="onnx") from None

from fastlstm.onnx import _read, _run, _write
from fastlstm.onnx._mapping import AnyLayer

__all__ = ["from_onnx", "run_node", "to_onnx"]


def to_onnx(
    layer: AnyLayer, path: str | os.PathLike[str], *, dynamic_quantize: bool = False
) -> None:
    """Write a layer as a model of ONNX, one node for each layer of the stack.

    The model has the inputs ``x``, ``h_0`` (and ``c_0`` of an LSTM) and the outputs ``y``, ``h_n``
    (and ``c_n``), with the shapes of calling the layer and any number of steps T and rows B.  It
    is of opset 14, and has no lengths.

    `dropout` and `recurrent_dropout` act in training only and are not written.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Of float32 or float64.  ONNX Runtime has no float64 nodes of these kinds on CPUs.

        Weights of int8 are stored as such, in front of nodes that compute with float32:
        ``DequantizeLinear`` multiplies them by the scales.  (ONNX Runtime does so at each call,
        unless its option ``session.disable_quant_qdq`` is "1".)  Those of 16 bits are widened:
        the file has float32.
    path : path-like
        A file that exists is replaced when the new one is complete.
    dynamic_quantize : bool, default False
        Write an LSTM of int8 as ``com.microsoft.DynamicQuantizeLSTM`` of ONNX Runtime, which
        computes with 8 bits, too.  It has one scale for x of all steps and rows of a call, and one
        for all rows of h, so its results depend on the batch; and on processors with AVX2 or
        AVX-512 alone, without VNNI, sums can saturate, and results are worse.

    Raises
    ------
    TypeError
        If `layer` is none.
    ValueError
        If it has an option that ONNX cannot express (projections, layer normalization, a clip of
        the cell, zoneout), or more than 2 GiB of weights; or for `dynamic_quantize` is no LSTM of
        int8.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If a float64 layer has an alpha, beta or clip of more digits than float32 holds: ONNX's
        attributes are float32, so it is rounded.

    Notes
    -----
    Not every runtime does what a node says.  OpenVINO ignores peepholes and ``input_forget``
    (coupled gates) without an error, and knows few activation functions; ONNX Runtime does all.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastlstm
    >>> from fastlstm import onnx
    >>> path = os.path.join(tempfile.mkdtemp(), "layer.onnx")
    >>> onnx.to_onnx(fastlstm.GRU(2, 3, 2, bidirectional=True), path)
    >>> onnx.from_onnx(path)
    GRU(2, 3, num_layers=2, bidirectional=True)
    >>> onnx.to_onnx(fastlstm.LSTM(2, 3).quantize("int8"), path, dynamic_quantize=True)
    >>> onnx.from_onnx(path)
    LSTM(2, 3, weights_dtype='int8')
    """
    _write.write(layer, path, dynamic_quantize)


def from_onnx(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    dtype: DTypeLike | None = None,
    cell: str | None = None,
) -> Any:
    """Read a layer from a model of ONNX.

    The model may hold more than the layer; only nodes of LSTM, GRU and RNN are looked at, and of
    ONNX Runtime's DynamicQuantizeLSTM.  Nodes of which each reads all of the output of the one
    before, as `to_onnx` and the exporters of torch write them, are the layers of one stack.  Their
    weights have to be stored in the file, but for what a few operators make of them, such as
    ``Transpose`` or ``ConstantOfShape``; the layer may have 64 MiB, and 8 bytes for each byte of
    constants in the file.

    Nodes in the branches of an ``If``, or in the body of a ``Loop`` or ``Scan``, are read too, if
    they are asked for by `name`; what is around them is for the caller.

    Weights of int8 or uint8 in DynamicQuantizeLSTM, or behind ``DequantizeLinear``, become those of
    a layer of int8 (see `quantize` of a layer), with the same integers and scales.  Such a layer
    computes with 8 bits of x and h, each row and step with a scale of its own, where ONNX Runtime
    has float32 behind ``DequantizeLinear``, and one scale for all rows in DynamicQuantizeLSTM: so
    results are close and not equal.  Give ``dtype="float32"`` for a layer of float32.

    What a node reads when it runs is for the caller of the layer: initial states are its `state`,
    ``sequence_lens`` are its `lengths`.  Stored initial states other than zeros, and stored
    lengths, are refused.  Rows without steps differ: their final state is the initial one here,
    and zero in ONNX Runtime.

    Parameters
    ----------
    path : path-like
    name : str, optional
        Of the node to begin with, or of its first output if it has none.  Needed if the main
        graph has several that are not layers of one stack, or none.  Within another node, its
        name alone if there is no other of this name, else where it is, too:
        "If_0.then_branch/LSTM_3".
    dtype : {"float32", "float64"}, optional
        To convert the weights to, those of 8 bits too.  Default: that of the file; half precision
        has to be converted.
    cell : {"lstm", "gru", "rnn"}, optional
        To look at nodes of this cell only.

    Returns
    -------
    LSTM, GRU or RNN
        With `batch_first`, if the node has ``layout=1`` or reads a transposed sequence.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a model of ONNX, or damaged; if it has no such node, or several and no
        `name` is given; if a small file makes a large layer; if a node asks for what our layers
        cannot do, such as the reverse direction alone, or a `clip` or other activation functions
        of a GRU; or if `cell` is another name.
    TypeError
        If `name` is no str.

    Warns
    -----
    UserWarning
        If there are weights of 8 bits that a layer of int8 cannot have, so that it is one of
        float32: a row with several scales, integers less the zero point beyond -128 to 127, other
        weights of float32 beside them.

    Examples
    --------
    See `to_onnx`.
    """
    return _read.read(path, name, dtype, cell)


def run_node(
    op_type: str, inputs: Mapping[str, ArrayLike], attributes: Mapping[str, Any] | None = None
) -> dict[str, NDArray[Any]]:
    """Compute the outputs of one node of ONNX, by making a layer of it.

    All inputs and attributes of LSTM-22, GRU-22 and RNN-22 (and of their versions 7 and 14), with
    these limits: float32 and float64 only; `clip` only for LSTM; activation functions Sigmoid and
    Tanh for GRU, and Tanh or Relu for RNN.  Where the definition is silent, the result is that of
    ONNX Runtime: rows without steps end with a state of zeros, whatever their initial state.

    Parameters
    ----------
    op_type : {"LSTM", "GRU", "RNN"}
    inputs : mapping of str to array
        By ONNX's names: X, W, R; B, sequence_lens, initial_h, and initial_c and P of an LSTM.
    attributes : mapping of str to value, optional
        By ONNX's names.

    Returns
    -------
    dict of str to array
        ``Y`` (T, D, B, H), ``Y_h`` (D, B, H) and of an LSTM ``Y_c`` (D, B, H); with ``layout=1``
        (B, T, D, H) and (B, D, H).

    Raises
    ------
    TypeError, ValueError
        If something is missing, unknown, of the wrong type or shape, or not available.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm import onnx
    >>> x, w, r = (np.ones(shape, np.float32) for shape in [(5, 2, 3), (1, 16, 3), (1, 16, 4)])
    >>> outputs = onnx.run_node("LSTM", {"X": x, "W": w, "R": r}, {"direction": "reverse"})
    >>> {name: array.shape for name, array in outputs.items()}
    {'Y': (5, 1, 2, 4), 'Y_h': (1, 2, 4), 'Y_c': (1, 2, 4)}
    """
    return _run.run(op_type, inputs, attributes or {})
