"""What the bridges have in common: from weights of other libraries to layers, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.cells import CELLS, COMMON, GATES, cell_name

Array = NDArray[Any]
DirectionWeights = dict[
    str, Array
]  # weight_ih, weight_hh, bias_ih, bias_hh of one layer and direction

ZRN = (1, 0, 2)  # from r, z, n to z, r, n, and back
ACTIVATIONS = ("sigmoid", "tanh", "tanh")  # the default of an LSTM

_OVERRIDABLE = ("batch_first", "dtype")  # by options; the others are facts of the source


class ForeignLayer(NamedTuple):
    """One layer of another library."""

    cell: str  # one of CELLS
    parts: list[DirectionWeights]  # one or two directions
    options: dict[str, Any]  # arguments of our constructor that are known


def real(value: Any, name: str) -> Array:
    """An array of real numbers; those of 16 bits are widened."""
    try:
        array = np.asarray(value)
    except Exception as error:  # nested lists of unequal lengths, tensors on another device, ...
        raise TypeError(f"{name}: expected an array, got {error}") from None
    if array.dtype.name == "bfloat16":  # which is no floating-point type to NumPy
        array = array.astype(np.float32)
    if isinstance(value, list | tuple) and array.dtype.kind in "iu":  # of JSON: 0 for 0.0
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def shaped(value: Any, name: str, *shapes: tuple[int, ...]) -> Array:
    """An array of real numbers of one of these shapes."""
    array = real(value, name)
    if array.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name}: expected {expected}, got {array.shape}")
    return array


def cell_of(recurrent: Array, name: str) -> str:
    """The cell with a recurrent kernel (H, gates * H)."""
    if recurrent.ndim == 2 and recurrent.size:
        for cell in COMMON:
            if recurrent.shape[1] == GATES[cell] * recurrent.shape[0]:
                return cell
    raise ValueError(
        f"{name}: expected (H, 4H) of an LSTM, (H, 3H) of a GRU or (H, H) of a plain RNN, "
        f"got {recurrent.shape}"
    )


def reordered(array: Array, order: Sequence[int]) -> Array:
    """Gates along the last axis in another order."""
    blocks = np.split(array, len(order), axis=-1)
    return np.concatenate([blocks[gate] for gate in order], axis=-1)


def summed(first: Array, second: Array) -> Array:
    """The one bias that does what two do."""
    return np.where(second == 0, first, first + second)  # -0 + 0 would be +0


def parts_of(layer: Any) -> list[list[DirectionWeights]]:
    """The parameters of each layer and direction; biases of 0 if it has none."""
    suffixes = ("", "_reverse") if layer.bidirectional else ("",)
    no_bias = np.zeros(GATES[cell_name(layer)] * layer.hidden_size, layer.dtype)
    parameters = layer.parameters.snapshot()
    return [
        [
            {
                name: np.array(parameters.get(f"{name}_l{number}{suffix}", no_bias))
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            for suffix in suffixes
        ]
        for number in range(layer.num_layers)
    ]


def check_plain(layer: Any, library: str) -> None:
    """Refuse a layer with an option that changes results and that the library does not have."""
    carried = ("activations", "recurrent_dropout", "nonlinearity", "reset_after")
    for name, default in type(layer)._OPTIONS.items():
        value = getattr(layer, name)
        if name not in carried and value != default:
            raise ValueError(f"layer: {library} has no {name}, and the layer has {value!r}")
    activations = getattr(layer, "activations", ACTIVATIONS)
    for direction in range(0, len(activations), 3):
        _, candidate, hidden = activations[direction : direction + 3]
        if candidate != hidden:
            raise ValueError(
                f"layer: {library} has one activation for candidate and hidden state, "
                f"the layer has {candidate!r} and {hidden!r}"
            )


def build(sources: Sequence[ForeignLayer], overrides: Mapping[str, Any]) -> Any:
    """Make one layer; the sources are read from the lowest to the highest.

    Parameters
    ----------
    sources : sequence of ForeignLayer
    overrides : mapping of str to object
        Arguments of the constructor.

    Raises
    ------
    TypeError, ValueError
        If they are of different kinds or sizes, or contradict the arguments.
    """
    found = _agreed(sources)
    for name, value in overrides.items():
        if name in found and name not in _OVERRIDABLE and value != found[name]:
            raise ValueError(f"{name}: expected {found[name]!r} for this source, got {value!r}")
    arrays = [array for source in sources for part in source.parts for array in part.values()]
    double = any(array.dtype.itemsize > 4 for array in arrays)
    arguments = {"dtype": "float64" if double else "float32", **found, **overrides}
    if arguments.get("activations") == ACTIVATIONS:
        del arguments["activations"]
    layer = CELLS[sources[0].cell](**arguments)
    layer.load_state_dict(
        {
            f"{name}_l{number}{suffix}": array
            for number, source in enumerate(sources)
            for suffix, part in zip(("", "_reverse"), source.parts, strict=False)
            for name, array in part.items()
        }
    )
    return layer


def _agreed(sources: Sequence[ForeignLayer]) -> dict[str, Any]:
    """Arguments of the constructor: what all layers and directions have in common."""
    agreed: dict[str, Any] = {}
    width = sources[0].parts[0]["weight_ih"].shape[1]
    sizes = {"input_size": width, "num_layers": len(sources)}
    for number, (cell, parts, options) in enumerate(sources):
        for part in parts:
            found = {
                "cell": cell,
                "hidden_size": part["weight_hh"].shape[1],
                "bias": "bias_ih" in part,
                "bidirectional": len(parts) == 2,
                **options,
            }
            agreed = agreed or found
            for name in sorted(agreed.keys() | found.keys()):
                if found.get(name) != agreed.get(name):
                    raise ValueError(
                        f"source: layers and directions differ in {name}: {agreed.get(name)!r} "
                        f"and {found.get(name)!r}; make a layer of each"
                    )
            if part["weight_ih"].shape[1] != width:
                got = part["weight_ih"].shape[1]
                raise ValueError(f"source: layer {number} reads {got} features, expected {width}")
        width = len(parts) * agreed["hidden_size"]
    del agreed["cell"]
    return {**sizes, **agreed}
