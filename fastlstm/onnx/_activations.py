"""Activation functions: ONNX's three attributes, and the entries of our ``activations``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm._layers.options import ACTIVATIONS

Entry = str | tuple[str | float, ...]  # a name, or (name, alpha), or (name, alpha, beta)

ONNX_NAMES = {name: name.title().replace("_", "") for name in ACTIVATIONS}
_NO_DEFAULTS = {"affine", "scaled_tanh"}  # no operator of ONNX has them: runtimes guess
_OUR_NAMES = {onnx_name.lower(): name for name, onnx_name in ONNX_NAMES.items()}


def read(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Entry]:
    """Entries from ONNX's attributes: each function takes the next alpha and beta if it has one.

    Examples
    --------
    >>> read(["HardSigmoid", "Tanh", "LeakyRelu"], [0.25, 0.1], [])
    [('hard_sigmoid', 0.25, 0.5), 'tanh', ('leaky_relu', 0.1)]
    """
    left = {"activation_alpha": list(alphas), "activation_beta": list(betas)}
    entries = []
    for onnx_name in names:
        name = _OUR_NAMES.get(onnx_name.lower())
        if name is None:
            known = ", ".join(ONNX_NAMES.values())
            raise ValueError(f"activations: expected names out of {known}, got {onnx_name!r}")
        entries.append(_entry(name, left))
    for attribute, values in left.items():
        if values:
            raise ValueError(
                f"{attribute}: expected a number for each function that has one, "
                f"got {len(values)} more"
            )
    return entries


def write(entries: Sequence[Entry]) -> dict[str, Any]:
    """ONNX's attributes from entries, with every alpha and beta: runtimes differ in defaults.

    Examples
    --------
    >>> write(["sigmoid", ("elu", 0.5), "hard_sigmoid"])["activation_alpha"]
    [0.5, 0.2]
    """
    names: list[str] = []
    values: tuple[list[float], list[float]] = ([], [])
    for entry in entries:
        name, *given = (entry,) if isinstance(entry, str) else entry
        if name not in ONNX_NAMES:
            raise ValueError(f"activations: ONNX has no twin of {name!r}")
        names.append(ONNX_NAMES[str(name)])
        for k, default in enumerate(ACTIVATIONS[str(name)]):
            values[k].append(float(given[k]) if k < len(given) else default)
    found = {"activations": names, "activation_alpha": values[0], "activation_beta": values[1]}
    return {attribute: value for attribute, value in found.items() if value}


def decimal(value: float) -> float:
    """The shortest decimal fraction that rounds to a float32: what its author wrote."""
    return float(str(np.float32(value)))


def _entry(name: str, left: dict[str, list[float]]) -> Entry:
    """One entry, with the next alpha and beta."""
    given = []
    for default, (attribute, values) in zip(ACTIVATIONS[name], left.items(), strict=False):
        if not values and name in _NO_DEFAULTS:
            raise ValueError(f"{attribute}: missing, ONNX has no default for {ONNX_NAMES[name]}")
        given.append(decimal(values.pop(0)) if values else default)
    return name if tuple(given) == ACTIVATIONS[name] else (name, *given)
