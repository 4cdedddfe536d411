"""Losses of predictions, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastlstm import _validation
from fastlstm._core import heads, library, memory
from fastlstm._core.threads import chosen_isa, get_num_threads
from fastlstm._parameters import Array
from fastlstm.heads._sums import sum_in_order


def cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, weights: ArrayLike | None = None
) -> tuple[float, Array]:
    """The mean of ``-log softmax(logits)[target]`` over all predictions, and its gradient.

    As ``torch.nn.functional.cross_entropy`` with classes in the last axis::

        p = e^logits / sum(e^logits)
        loss = sum(w * -log p[target]) / sum(w)          (w = 1 without weights)
        dlogits = w / sum(w) * (p - one_hot(target))

    The bits do not depend on threads or instruction set; those of a row of `dlogits` not on the
    other rows but for the factor of the mean.

    Parameters
    ----------
    logits : (..., K) array of float32 or float64
        -inf stands for a class that is impossible.
    targets : (...) array of int
        From 0 to K-1.
    weights : (...) array of numbers, optional
        How much each prediction counts, at least 0.  One of weight 0 has a gradient of zeros,
        whatever its logits are: so a mask of rows of different lengths is such weights.

    Returns
    -------
    loss : float
    dlogits : array like `logits`

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong dtype or shape, a target is no class, a weight is negative or not
        finite; or there is nothing to take a mean of.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> logits = np.log([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])
    >>> loss, dlogits = fastlstm.heads.cross_entropy(logits, [0, 1])
    >>> bool(np.isclose(loss, (np.log(2) + np.log(8)) / 2))
    True
    >>> dlogits.round(4)
    array([[-0.25  ,  0.125 ,  0.125 ],
           [ 0.0625, -0.4375,  0.375 ]])
    >>> mask = np.arange(2) < 1  # the second is padding
    >>> bool(np.isclose(fastlstm.heads.cross_entropy(logits, [0, 1], weights=mask)[0], np.log(2)))
    True
    """
    z = _floats(logits, "logits")
    if not (z.ndim and z.size):
        got = _validation.shape_text(z.shape)
        raise ValueError(f"logits: expected (..., K) with at least one prediction, got {got}")
    classes = _classes(targets, z.shape[:-1])
    counts = np.ones(classes.shape) if weights is None else _weights(weights, classes.shape)
    total = sum_in_order(counts)
    dz, nll = memory.empty(z.shape, z.dtype), np.empty(classes.shape, z.dtype)
    heads.loss(
        chosen_isa(),
        library.BufferCache(),
        z.reshape(-1, z.shape[-1]),
        classes.ravel(),
        nll.ravel(),
        dz.reshape(-1, z.shape[-1]),
        get_num_threads(),
        1.0,
        (counts / total).astype(z.dtype).ravel(),
    )
    return _weighted_sum(counts, nll) / total, dz


def mse(
    y: ArrayLike, target: ArrayLike, *, weights: ArrayLike | None = None
) -> tuple[float, Array]:
    """The mean of ``(y - target)**2`` over all elements, and its gradient.

    As ``torch.nn.functional.mse_loss``; with weights, ``sum(w * (y - target)**2) / sum(w)``, where
    w has the shape of y.  The bits do not depend on threads or instruction set.

    Parameters
    ----------
    y : array of float32 or float64
    target : array like `y`
    weights : array like `y`, or without its last axis, optional
        How much each element, or all of a row, counts: at least 0.  What has weight 0 has a
        gradient of 0, whatever it is: so a mask of rows of different lengths is such weights.

    Returns
    -------
    loss : float
    dy : array like `y`

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong dtype or shape, or a weight is negative or not finite; or there is
        nothing to take a mean of.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> fastlstm.heads.mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    (2.0, array([ 0., -2.]))
    """
    y = _floats(y, "y")
    target = _validation.like(target, "target", y.shape, y.dtype)
    if not y.size:
        raise ValueError(f"y: expected at least one element, got {_validation.shape_text(y.shape)}")
    counts = None if weights is None else _weights(weights, y.shape, y.shape[:-1])
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.subtract(y, target, out=memory.empty(y.shape, y.dtype))
        squares = memory.empty(y.shape, np.dtype(np.float64))
        np.square(error, dtype=np.float64, out=squares)
        if counts is None:
            return sum_in_order(squares) / y.size, np.multiply(error, 2 / y.size, out=error)
        counts = np.broadcast_to(counts if counts.ndim == y.ndim else counts[..., None], y.shape)
        total = sum_in_order(counts)
        error *= (2 * counts / total).astype(y.dtype)
    error[counts == 0] = 0
    return _weighted_sum(counts, squares) / total, error


def _floats(value: Any, name: str) -> Array:
    """A contiguous array of float32 or float64."""
    return np.asarray(_validation.convert(value, name, None), order="C")


def _classes(value: Any, shape: tuple[int, ...]) -> Array:
    """The core refuses those that are none."""
    array = _validation.indices(value, "targets")
    if array.shape != shape:
        text = _validation.shape_text
        raise ValueError(f"targets: expected {text(shape)}, got {text(array.shape)}")
    return array


def _weights(value: Any, *shapes: tuple[int, ...]) -> Array:
    """An array of float64 of one of these shapes."""
    array = _validation.array_of(value, "weights", "fiub", "real numbers").astype(np.float64)
    if array.shape not in shapes:
        expected = " or ".join(map(_validation.shape_text, shapes))
        got = _validation.shape_text(array.shape)
        raise ValueError(f"weights: expected {expected}, got {got}")
    wrong = array[~((array >= 0) & (array < np.inf))]
    if wrong.size:
        raise ValueError(f"weights: expected finite numbers of at least 0, got {wrong[0]}")
    with np.errstate(over="ignore"):
        total = sum_in_order(array)
    if not 0 < total < np.inf:
        raise ValueError(f"weights: expected a finite sum above 0, got {total}")
    return array


def _weighted_sum(weights: Array, losses: Array) -> float:
    """Without those of weight 0, which may be not-a-numbers."""
    with np.errstate(invalid="ignore", over="ignore"):
        return sum_in_order(np.where(weights > 0, weights * losses, 0))
