"""The end of a language model: linear layer and softmax after its LSTM."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastlstm._core import heads, memory
from fastlstm._core.threads import get_num_threads
from fastlstm._layers.lstm import LSTM
from fastlstm._parameters import Gradients, Parameters

Array = NDArray[np.float32]
Indices = NDArray[np.intp]


def softmax_nll(lstm: LSTM, parameters: Parameters, y: Array, targets: Indices) -> Array:
    """Return -log p(target) [N] for the outputs y [N, H] of `lstm` and targets [N].

    `parameters` has ``linear.weight`` [V, H] and ``linear.bias`` [V].
    """
    nll = np.empty(len(y), np.float32)
    _run(lstm, parameters, y, targets, nll)
    return nll


def softmax_loss_backward(
    lstm: LSTM, parameters: Parameters, y: Array, targets: Indices, grads: Gradients
) -> tuple[float, Array]:
    """Return the mean of `softmax_nll` and its gradient dy [N, H].

    The gradients of the linear layer are written to `grads`.
    """
    nll, dy = np.empty(len(y), np.float32), memory.empty(y.shape, y.dtype)
    dweight, dbias = grads["linear.weight"], grads["linear.bias"]
    dweight.fill(0)
    dbias.fill(0)
    _run(lstm, parameters, y, targets, nll, dy, dweight, dbias)
    return float(nll.mean(dtype=np.float64)), dy


def _run(
    lstm: LSTM,
    parameters: Parameters,
    y: Array,
    targets: Indices,
    nll: Array,
    dy: Array | None = None,
    dweight: Array | None = None,
    dbias: Array | None = None,
) -> None:
    """The core's head, on the instruction set and in the work space of `lstm`."""
    weight, bias = parameters["linear.weight"], parameters["linear.bias"]
    targets = np.ascontiguousarray(targets, np.intp)
    heads.head(
        lstm.isa,
        lstm._scratch,
        y,
        weight,
        bias,
        targets,
        nll,
        dy,
        dweight,
        dbias,
        get_num_threads(),
    )
