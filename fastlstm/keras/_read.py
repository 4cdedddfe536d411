"""Layers of Keras, read."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _conversion
from fastlstm._conversion import ForeignLayer
from fastlstm._layers.cells import check_cell
from fastlstm._layers.gru import GRU
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.rnn import RNN
from fastlstm.keras._names import ACTIVATIONS, CLASSES, order_of

Array = NDArray[Any]


def from_keras(
    source: Any,
    *,
    cell: str | None = None,
    bidirectional: bool | None = None,
    **options: Any,
) -> LSTM | GRU | RNN:
    """Make a layer of a layer of Keras 3, of its weights, or of a stack of them.

    Parameters
    ----------
    source : layer of Keras, list of arrays, or list of these
        ``keras.layers.LSTM``, ``GRU`` or ``SimpleRNN``, a cell of these or ``RNN`` around one, or
        ``Bidirectional`` around one of them with ``merge_mode="concat"``; built.  Or what
        ``get_weights()`` of it returns: ``kernel`` (I, gates*H), ``recurrent_kernel``
        (H, gates*H) and perhaps ``bias``, once or, if bidirectional, twice.  A list of layers, or
        a list of lists of arrays, is a stack in which each reads the whole output of the one
        before; they need the same class and units.  An array may be nested lists of numbers, as
        JSON has it.
    cell : {"lstm", "gru", "rnn"}, optional
        What arrays are expected to be; their shapes tell.
    bidirectional : bool, optional
        Whether arrays are of a Bidirectional.  Their number tells, but for 4 or 6 arrays with
        I = H, which could as well be of two layers.
    **options
        Further arguments of the constructor: ``dtype`` instead of that of the weights (float32
        if all are nested lists),
        ``batch_first=False``, and what a list of arrays does not tell, if it is not the default:
        `reset_after` of a GRU without bias, `nonlinearity` of an RNN, `activations` of an LSTM.

    Returns
    -------
    LSTM, GRU or RNN
        With ``batch_first=True``, because Keras has (B, T, I).

    Raises
    ------
    TypeError, ValueError
        If `source` is something else, is not built, has an array too few or too many or of the
        wrong shape, or an option without a counterpart here: ``go_backwards`` (but within
        Bidirectional), ``stateful``, another ``merge_mode`` or activation.

    Warns
    -----
    UserWarning
        If the layer of Keras has ``dropout`` or ``recurrent_dropout``: both act in training only
        and draw other masks than ours, so they are left out.

    Notes
    -----
    The one bias of Keras becomes ``bias_ih``, and ``bias_hh`` is 0; a GRU with ``reset_after``
    has both.  No value is changed, so `to_keras_weights` returns the same bits.

    * States: ``(h_n, c_n)`` of L layers and D directions are (L*D, B, H) here; Keras has a list
      of arrays (B, H) for each layer: h, c, and for Bidirectional h, c of the forward and then of
      the backward layer.
    * ``return_sequences=False``: Keras returns ``h_n`` of the last layer.  With Bidirectional
      that is not ``y[:, -1]``, because the second direction ends at the first step.
    * Masks that end each row are ``lengths``.  Past the end `y` is 0, as with
      ``zero_output_for_mask=True``; without that Keras repeats the last output.  Masks with holes
      have no counterpart.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.keras import from_keras
    >>> kernel, recurrent_kernel, bias = np.ones((2, 12)), np.ones((3, 12)), np.ones(12)
    >>> from_keras([kernel, recurrent_kernel, bias], dtype="float32")
    LSTM(2, 3, batch_first=True)
    """
    if cell is not None:
        check_cell(cell)
    entries = _entries(source)
    _check_sequences(entries)
    sources = []
    dropped: set[str] = set()
    for entry in entries:
        if _is_layer(entry):
            found = _of_layer(entry, dropped)
        else:
            found = _of_arrays(entry, bidirectional, options.get("reset_after"))
        if cell is not None and found.cell != cell:
            raise ValueError(f"source: expected weights of cell {cell!r}, got {found.cell!r}")
        sources.append(found)
    overrides = options if bidirectional is None else {**options, "bidirectional": bidirectional}
    if not any(_is_layer(e) or any(hasattr(a, "dtype") for a in e) for e in entries):
        overrides = {"dtype": "float32", **overrides}
    layer: LSTM | GRU | RNN = _conversion.build(sources, {"batch_first": True, **overrides})
    if dropped:
        names = " and ".join(sorted(dropped))
        warnings.warn(f"from_keras: {names} left out: training only", UserWarning, stacklevel=2)
    return layer


def _is_layer(entry: Any) -> bool:
    return hasattr(entry, "get_config") and hasattr(entry, "get_weights")


def _is_array(entry: Any) -> bool:
    """Whether it is an array, or the nested lists of one."""
    if isinstance(entry, list | tuple):
        return 0 < _axes(entry) <= 2
    return hasattr(entry, "shape") and not _is_layer(entry)


def _axes(value: Any) -> int:
    """Dimensions, of nested lists by their first items; 0 if they are of layers."""
    depth = 0
    while isinstance(value, list | tuple) and value and depth < 3:
        depth, value = depth + 1, value[0]
    return 0 if _is_layer(value) else depth + len(getattr(value, "shape", ()))


def _entries(source: Any) -> list[Any]:
    """Layers, or lists of arrays, from the lowest to the highest."""
    if _is_layer(source):
        return [source]
    if not isinstance(source, list | tuple):
        got = type(source).__name__
        raise TypeError(f"source: expected a layer of Keras or a list of arrays, got {got}")
    if source and all(_is_array(entry) for entry in source):
        return [source]
    if not source or not all(_is_layer(e) or isinstance(e, list | tuple) for e in source):
        names = ", ".join(sorted({type(entry).__name__ for entry in source})) or "nothing"
        raise TypeError(f"source: expected arrays, or layers, or lists of arrays, got {names}")
    return list(source)


def _of_layer(layer: Any, dropped: set[str]) -> ForeignLayer:
    """Read a live layer, of one direction or two."""
    if type(layer).__name__ != "Bidirectional":
        return _of_direction(layer, False, dropped)
    if layer.merge_mode != "concat":
        raise ValueError(
            f"source: expected merge_mode='concat', got {layer.merge_mode!r}; "
            "give the weights of the two layers one by one"
        )
    forward = _of_direction(layer.forward_layer, False, dropped)
    return _both(forward, _of_direction(layer.backward_layer, True, dropped))


def _both(forward: ForeignLayer, backward: ForeignLayer) -> ForeignLayer:
    """Two directions of one layer."""
    options, others = dict(forward.options), dict(backward.options)
    ways = [o["activations"] for o in (options, others) if "activations" in o]
    if len(set(ways)) == 2:  # an LSTM may have other functions in each direction
        options["activations"] = others["activations"] = ways[0] + ways[1]
    if (forward.cell, options) != (backward.cell, others):
        raise ValueError(
            "source: expected two directions of one kind, "
            f"got {forward.cell} {options or ''} and {backward.cell} {others or ''}"
        )
    return ForeignLayer(forward.cell, forward.parts + backward.parts, options)


def _of_direction(layer: Any, backwards: bool, dropped: set[str]) -> ForeignLayer:
    """Read a live layer that runs in the expected direction."""
    core, settings = layer, {}
    if type(layer).__name__ == "RNN" and _is_layer(getattr(layer, "cell", None)):
        core, settings = layer.cell, layer.get_config()
    kind = type(core).__name__
    if kind not in CLASSES or not _is_layer(core):
        names = "an LSTM, GRU or SimpleRNN of Keras, one in a Bidirectional, or a list of them"
        raise TypeError(f"source: expected {names}, got {kind}")
    settings = {**settings, **core.get_config()}
    _check_settings(settings, kind, backwards)
    functions = _functions(CLASSES[kind], settings)
    arrays = core.get_weights()
    if not arrays:
        raise ValueError(f"source: the {kind} is not built: call it, or build() it, first")
    expected = 3 if settings.get("use_bias", True) else 2
    if len(arrays) != expected:
        raise ValueError(f"source: expected {expected} arrays in the {kind}, got {len(arrays)}")
    found = _of_kernels(arrays, kind, functions.get("reset_after"))
    if found.cell != CLASSES[kind]:
        raise ValueError(f"source: expected weights of cell {CLASSES[kind]!r}, got {found.cell!r}")
    dropped |= {name for name in ("dropout", "recurrent_dropout") if settings.get(name)}
    return ForeignLayer(found.cell, found.parts, functions)


def _check_settings(settings: dict[str, Any], kind: str, backwards: bool) -> None:
    """Refuse what a layer here would not do."""
    if "time_major" in settings:
        raise ValueError(
            f"source: expected a {kind} of Keras 3, got an older one; "
            "give its get_weights(), and activations if they are not the default ones"
        )
    if settings.get("go_backwards", backwards) != backwards:
        raise ValueError(
            f"source: expected go_backwards={backwards}, got {not backwards}; for one direction "
            "reverse the input, x[:, ::-1], and give get_weights()"
        )
    if settings.get("stateful", False):
        raise ValueError(
            "source: expected stateful=False; here the state is passed from call to call, "
            "y, state = layer(x, state): set it to False, or give get_weights()"
        )


def _functions(cell: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Options of our constructor, from the activations and the form of a GRU."""
    candidate = settings.get("activation")
    gate = settings.get("recurrent_activation")
    if cell == "rnn":
        if candidate not in ("tanh", "relu"):
            raise ValueError(f"source: expected activation 'tanh' or 'relu', got {candidate!r}")
        return {"nonlinearity": candidate}
    if cell == "gru":
        if (gate, candidate) != ("sigmoid", "tanh"):
            raise ValueError(
                "source: expected recurrent_activation 'sigmoid' and activation 'tanh' of a GRU, "
                f"got {gate!r} and {candidate!r}"
            )
        return {"reset_after": bool(settings.get("reset_after", True))}
    ours = []
    for activation in (gate, candidate, candidate):
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"source: expected activations among {known}, got {activation!r}")
        ours.append(ACTIVATIONS[activation])
    return {"activations": tuple(ours)}


def _check_sequences(layers: list[Any]) -> None:
    """In a stack, all layers but the last must pass on every step."""
    for number, layer in enumerate(layers[:-1]):
        inner = getattr(layer, "forward_layer", layer)
        if not getattr(inner, "return_sequences", True):
            raise ValueError(
                f"source: expected return_sequences=True of layer {number}, which another one reads"
            )


def _of_arrays(arrays: Any, bidirectional: bool | None, reset_after: bool | None) -> ForeignLayer:
    """Read what get_weights() returned for one layer."""
    count = len(arrays)
    if count not in (2, 3, 4, 6) or not all(_is_array(array) for array in arrays):
        raise ValueError(
            "source: expected kernel, recurrent_kernel and perhaps bias, once or twice, "
            f"got {count} objects; give a list for each layer"
        )
    if bidirectional is not None and bidirectional != (count > 3):
        expected = "4 or 6" if bidirectional else "2 or 3"
        raise ValueError(f"source: expected {expected} arrays, got {count}")
    if count <= 3:
        return _of_kernels(arrays, "source", reset_after)
    both = _both(
        _of_kernels(arrays[: count // 2], "source: forward", reset_after),
        _of_kernels(arrays[count // 2 :], "source: backward", reset_after),
    )
    inputs, hidden = (both.parts[0][name].shape[1] for name in ("weight_ih", "weight_hh"))
    if bidirectional is None and inputs == hidden:
        raise ValueError(
            f"bidirectional: {count} arrays with I = H may be of two layers or directions; "
            "expected True, or a list for each layer"
        )
    return both


def _of_kernels(arrays: Any, name: str, reset_after: bool | None) -> ForeignLayer:
    """The cell, and the weights of one direction in our layout."""
    recurrent = _conversion.real(arrays[1], f"{name}: recurrent_kernel")
    cell = _conversion.cell_of(recurrent, f"{name}: recurrent_kernel")
    width = recurrent.shape[1]
    kernel = _conversion.real(arrays[0], f"{name}: kernel")
    if kernel.ndim != 2 or kernel.shape[1] != width or not kernel.size:
        raise ValueError(f"{name}: kernel: expected (I, {width}), got {kernel.shape}")
    order = order_of(cell)
    part = {
        "weight_ih": _conversion.reordered(kernel, order).T,
        "weight_hh": _conversion.reordered(recurrent, order).T,
    }
    if len(arrays) == 3:
        forms = [True, False] if reset_after is None else [bool(reset_after)]
        two = [(2, width) if form else (width,) for form in forms]
        allowed = two if cell == "gru" else [(width,)]
        bias = _conversion.reordered(
            _conversion.shaped(arrays[2], f"{name}: bias", *allowed), order
        )
        first, second = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        part |= {"bias_ih": first, "bias_hh": second}
        reset_after = bias.ndim == 2
    elif cell == "gru" and reset_after is None:
        raise ValueError("reset_after: expected a value, a GRU without bias does not show it")
    return ForeignLayer(cell, [part], {"reset_after": reset_after} if cell == "gru" else {})
