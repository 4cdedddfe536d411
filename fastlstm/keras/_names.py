"""What Keras calls cells and functions, and its order of gates."""

from __future__ import annotations

from typing import Any

from fastlstm._conversion import ZRN
from fastlstm._layers.cells import GATES

CLASSES = {
    "LSTM": "lstm",
    "LSTMCell": "lstm",
    "GRU": "gru",
    "GRUCell": "gru",
    "SimpleRNN": "rnn",
    "SimpleRNNCell": "rnn",
}
# Keras 3's hard_sigmoid is relu6(x + 3) / 6; its leaky_relu has a steeper slope than most.
ACTIVATIONS: dict[str, Any] = {
    **{name: name for name in ("sigmoid", "tanh", "relu", "elu", "softsign", "softplus")},
    "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
    "leaky_relu": ("leaky_relu", 0.2),
    "linear": ("affine", 1.0, 0.0),
}
DEFAULTS = {"elu": (1.0,), "hard_sigmoid": (0.2, 0.5), "leaky_relu": (0.01,), "affine": (1.0, 0.0)}


def spelled_out(activation: Any) -> tuple[Any, ...]:
    """An activation with all its parameters."""
    name, *given = (activation,) if isinstance(activation, str) else activation
    return (name, *given, *DEFAULTS.get(name, ())[len(given) :])


def order_of(cell: str) -> tuple[int, ...]:
    """Our gates in the order of Keras, and back."""
    return ZRN if cell == "gru" else tuple(range(GATES[cell]))
