"""Gradients cut to a norm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastlstm._core import updates
from fastlstm._core.threads import get_num_threads
from fastlstm._parameters import Array, Gradients
from fastlstm._validation import bound
from fastlstm.optim._targets import Trainable, check_writable, items_of, refuse_shared


def clip_grad_norm(grads: Trainable, max_norm: float) -> float:
    """Scale gradients in place so that their norm together is at most `max_norm`.

    As ``torch.nn.utils.clip_grad_norm_``: everything is multiplied by
    ``min(1, max_norm / (norm + 1e-6))``, where norm is the root of the sum of all squares.

    Parameters
    ----------
    grads : Gradients, mapping of str to array, array, or sequence of these
        Arrays of float32 or float64.  A mapping of plain arrays has the norm, to the bit, of
        `Gradients` with the same arrays in the same order.
    max_norm : float
        At least 0; infinity only measures.

    Returns
    -------
    float
        The norm before scaling.

    Raises
    ------
    TypeError, ValueError
        One of them is no such array or read-only, or two share memory: nothing has been changed
        then.

    Examples
    --------
    >>> import numpy as np
    >>> grads = {"w": np.array([3.0, 4.0])}
    >>> clip_grad_norm(grads, 1.0)
    5.0
    >>> grads["w"].round(4)
    array([0.6, 0.8])
    """
    limit = bound("max_norm", max_norm)
    given = items_of(grads, "grads")
    arrays = [pair for name, item in given for pair in _arrays_of(item, name)]
    for name, array in arrays:
        check_writable(array, name)
    refuse_shared(arrays)
    threads = get_num_threads()
    norm = math.sqrt(sum(updates.sum_of_squares(_vector_of(item), threads) for _, item in given))
    scale = limit / (norm + 1e-6)
    if not scale >= 1:  # NaN has to spread, as in torch
        for _, array in arrays:
            array *= scale
    return norm


def _arrays_of(item: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(item, Gradients):
        yield name, item.flat
    elif isinstance(item, Mapping):
        yield from ((f"{name}[{key!r}]", array) for key, array in item.items())
    else:
        yield name, item


def _vector_of(item: Mapping[str, Array] | Array) -> Array:
    if isinstance(item, Gradients):
        return np.ascontiguousarray(item.flat)
    if isinstance(item, Mapping):
        return np.concatenate([array.ravel() for array in item.values()] or [np.empty(0)])
    return item.ravel()
