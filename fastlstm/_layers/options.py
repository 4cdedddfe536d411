"""Options of an LSTM beyond the plain cell: checks, and the form in which the core takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastlstm import _validation

Activation = str | tuple[str, float] | tuple[str, float, float]

# Names in the order of fl_function_kind (src/cells.h), and the defaults of alpha and beta.
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "relu": (),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}
USUAL: tuple[Activation, ...] = ("sigmoid", "tanh", "tanh")

_Function = tuple[int, float, float]


class Options(NamedTuple):
    """`fl_options`, as the core takes it."""

    peephole: bool
    coupled: bool
    layer_norm: bool
    layer_norm_eps: float
    preact_clip: float
    cell_clip: float
    zoneout: tuple[float, float]
    functions: list[tuple[_Function, _Function, _Function]]  # of each direction


# What float32 can hold: a layer may be saved in the one type and loaded in the other.
_LEAST, _MOST = 2.0**-126, 3.4e38


def bound(value: Any, name: str) -> float | None:
    """None, or a number above 0 that float32 can hold too."""
    return None if value is None else _positive(value, name, "None or a number above 0")


def epsilon(value: Any, name: str) -> float:
    """A number above 0 that float32 can hold too."""
    return _positive(value, name, "a number above 0")


def _positive(value: Any, name: str, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    if not _LEAST <= value <= _MOST:
        raise ValueError(f"{name}: expected {expected}, got {value}")
    return float(value)


def zoneout(value: Any, name: str) -> tuple[float, float]:
    """Two rates."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{name}: expected a pair (rate of h, rate of c), got {value!r}")
    h, c = (_validation.probability(value[i], f"{name}[{i}]") for i in (0, 1))
    return h, c


def activations(value: Any, name: str) -> tuple[Activation, ...]:
    """Three functions, or three for each direction."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) not in (3, 6):
        raise ValueError(
            f"{name}: expected 3 functions (gates, candidate, cell state), or 6 if bidirectional, "
            f"got {value!r}"
        )
    return tuple(_activation(entry, f"{name}[{i}]") for i, entry in enumerate(value))


def _activation(value: Any, name: str) -> Activation:
    """The name alone where alpha and beta are the default ones."""
    parts = (value,) if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or not parts or not isinstance(parts[0], str):
        raise TypeError(f"{name}: expected a name or (name, alpha, beta), got {value!r}")
    if parts[0] not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{name}: expected one of {known}, got {parts[0]!r}")
    defaults = ACTIVATIONS[parts[0]]
    if len(parts) - 1 > len(defaults):
        raise ValueError(
            f"{name}: expected at most {len(defaults)} numbers with {parts[0]!r}, got {value!r}"
        )
    for number in parts[1:]:
        real = isinstance(number, int | float | np.floating | np.integer)
        if not real or not -_MOST <= number <= _MOST:
            raise ValueError(f"{name}: expected finite numbers with {parts[0]!r}, got {value!r}")
    numbers = (*map(float, parts[1:]), *defaults[len(parts) - 1 :])
    return parts[0] if numbers == defaults else (parts[0], *numbers)  # type: ignore[return-value]


def flag(value: Any, name: str) -> bool:
    """Whether it is true."""
    return bool(value)


def units(value: Any, name: str) -> int:
    """A number of units, or 0."""
    return _validation.integer(value, name, 0)


class Option(NamedTuple):
    """An argument that only an LSTM has."""

    default: Any
    check: Callable[[Any, str], Any]
    """From an argument and its name to the value of the attribute."""
    plain: bool = False
    """Whether the kernels of the plain cell do: it does not concern them."""


LSTM_OPTIONS = {
    "proj_size": Option(0, units, plain=True),
    "peephole": Option(False, flag),
    "coupled": Option(False, flag),
    "layer_norm": Option(False, flag),
    "layer_norm_eps": Option(1e-5, epsilon),
    "cell_clip": Option(None, bound),
    "preact_clip": Option(None, bound),
    "activations": Option(USUAL, activations),
    "zoneout": Option((0.0, 0.0), zoneout),
    "recurrent_dropout": Option(0.0, _validation.probability, plain=True),
}
"""The table of options; the constructor of `LSTM` has them as arguments, for its help."""


def functions(
    chosen: Sequence[Activation], directions: int
) -> list[tuple[_Function, _Function, _Function]]:
    """Kinds, alphas and betas, by direction."""
    found = []
    for entry in chosen:
        name, *numbers = (entry,) if isinstance(entry, str) else entry
        alpha, beta = (*(numbers or ACTIVATIONS[name]), 0.0, 0.0)[:2]
        found.append((list(ACTIVATIONS).index(name), alpha, beta))
    return [(a, b, c) for a, b, c in (found[:3], found[-3:])][:directions]
