"""Gradients cut to a norm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastlstm._core import updates
from fastlstm._core.threads import get_num_threads
from fastlstm._parameters import Gradients
from fastlstm._validation import bound


def clip_grad_norm(grads: Gradients | Sequence[Gradients], max_norm: float) -> float:
    """Scale gradients in place so that their norm together is at most `max_norm`.

    As ``torch.nn.utils.clip_grad_norm_``: everything is multiplied by
    ``min(1, max_norm / (norm + 1e-6))``, where norm is the root of the sum of all squares.

    Parameters
    ----------
    grads : Gradients or sequence of Gradients
    max_norm : float
        At least 0; infinity only measures.

    Returns
    -------
    float
        The norm before scaling.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm._parameters import Gradients
    >>> grads = Gradients({"w": (2,)}, np.array([3.0, 4.0]))
    >>> clip_grad_norm(grads, 1.0)
    5.0
    >>> grads["w"].round(4)
    array([0.6, 0.8])
    """
    given = [grads] if isinstance(grads, Gradients) else list(grads)
    for grad in given:
        if not isinstance(grad, Gradients):
            raise TypeError(f"grads: expected Gradients, got {type(grad).__name__}")
    limit = bound("max_norm", max_norm)
    threads = get_num_threads()
    flats = (np.ascontiguousarray(grad.flat) for grad in given)
    norm = math.sqrt(sum(updates.sum_of_squares(flat, threads) for flat in flats))
    scale = limit / (norm + 1e-6)
    if not scale >= 1:  # NaN has to spread, as in torch
        for grad in given:
            grad.flat[...] *= scale
    return norm
