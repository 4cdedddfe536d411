"""The functions that a gate, the candidate and the output of an LSTM can have, and their slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastlstm.reference.cells import Array, sigmoid

Entry = str | tuple[str] | tuple[str, float] | tuple[str, float, float]


class Activation(NamedTuple):
    """y = function(x, alpha, beta) and dy/dx = derivative(x, y, alpha, beta)."""

    function: Callable[[Array, float, float], Array]
    derivative: Callable[[Array, Array, float, float], Array]
    alpha: float = 0.0
    beta: float = 0.0

    def __call__(self, x: Array) -> Array:
        return self.function(x, self.alpha, self.beta)

    def slope(self, x: Array, y: Array) -> Array:
        """dy/dx at x, where y = self(x)."""
        return self.derivative(x, y, self.alpha, self.beta)


# Names and defaults are those of ONNX.  At a kink the slope is 0, but alpha of leaky_relu and elu.
ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(
        lambda x, a, b: sigmoid(x),
        lambda x, y, a, b: y * (1 - y),
    ),
    "tanh": Activation(
        lambda x, a, b: np.tanh(x),
        lambda x, y, a, b: 1 - y**2,
    ),
    "relu": Activation(
        lambda x, a, b: np.maximum(x, 0),
        lambda x, y, a, b: np.where(x > 0, 1.0, 0.0),
    ),
    "affine": Activation(
        lambda x, a, b: a * x + b,
        lambda x, y, a, b: np.full_like(x, a),
        alpha=1.0,
    ),
    "leaky_relu": Activation(
        lambda x, a, b: np.where(x > 0, x, a * x),
        lambda x, y, a, b: np.where(x > 0, 1.0, a),
        alpha=0.01,
    ),
    "thresholded_relu": Activation(
        lambda x, a, b: np.where(x > a, x, 0.0),
        lambda x, y, a, b: np.where(x > a, 1.0, 0.0),
        alpha=1.0,
    ),
    "scaled_tanh": Activation(
        lambda x, a, b: a * np.tanh(b * x),
        lambda x, y, a, b: a * b * (1 - np.tanh(b * x) ** 2),
        alpha=1.0,
        beta=1.0,
    ),
    "hard_sigmoid": Activation(
        lambda x, a, b: np.clip(a * x + b, 0, 1),
        lambda x, y, a, b: np.where((y > 0) & (y < 1), a, 0.0),
        alpha=0.2,
        beta=0.5,
    ),
    "elu": Activation(
        lambda x, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
        lambda x, y, a, b: np.where(x > 0, 1.0, y + a),
        alpha=1.0,
    ),
    "softsign": Activation(
        lambda x, a, b: x / (1 + np.abs(x)),
        lambda x, y, a, b: (1 - np.abs(y)) ** 2,
    ),
    "softplus": Activation(
        lambda x, a, b: np.logaddexp(0, x),
        lambda x, y, a, b: sigmoid(x),
    ),
}


def activation(entry: Entry) -> Activation:
    """The activation of a name, or of a name with its alpha, or with its alpha and beta.

    >>> activation(("affine", 2.0, 1.0))(np.array([3.0]))
    array([7.])
    """
    if isinstance(entry, str):
        entry = (entry,)
    name, constants = entry[0], list(entry[1:])
    if name not in ACTIVATIONS:
        raise ValueError(f"activations: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    found = ACTIVATIONS[name]
    alpha, beta = constants + [found.alpha, found.beta][len(constants) :]
    return found._replace(alpha=alpha, beta=beta)
