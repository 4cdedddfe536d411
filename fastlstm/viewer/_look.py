"""`look`: a page that shows what a layer or a language model did with an input."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation
from fastlstm._io.atomic import StrPath, replacing
from fastlstm._layers.base import Layer
from fastlstm._layers.cells import cell_name
from fastlstm._layers.lstm import LSTM
from fastlstm.heads._softmax import log_softmax, softmax_nll
from fastlstm.models import LanguageModel
from fastlstm.viewer import _page
from fastlstm.viewer._cells import Part, adds_up, parts_of, shows
from fastlstm.viewer._influence import Influence, why_no_gradients
from fastlstm.viewer._pack import Pack
from fastlstm.viewer._statistics import most_changed, of_units, widest

Array = NDArray[Any]

MOST_BYTES = 10_000_000
REACH = 64  # steps back that gradients are computed for, where no places are named
LIKELIEST = 5


class Look:
    """A page that shows what a layer did; `look` makes it.

    In a notebook it shows itself.  `html` is the page, one self-contained text: it needs no
    network, and its content-security policy lets it ask for none.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> fastlstm.look(fastlstm.LSTM(2, 8, seed=0), np.ones((50, 2), np.float32))
    Look(LSTM, 1 layer of 8 units, 50 steps, 0.1 MB)
    """

    def __init__(self, about: dict[str, Any], pack: Pack, static: str) -> None:
        self._about, self._static = about, static
        self.html = _page.html(about, pack.text())

    def save(self, path: StrPath) -> None:
        """Write the page as a file; one that exists is replaced when the new one is complete.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        with replacing(path) as file:
            file.write(self.html.encode("utf-8"))

    def _repr_html_(self) -> str:
        return _page.in_notebook(self.html, self._static)

    @property
    def description(self) -> str:
        """What it shows, and its size."""
        about = self._about
        read = "character" if about["text"] is not None else "step"
        read += "s" * (about["steps"] != 1)
        size = len(self.html.encode("utf-8")) / 1e6
        return f"{about['model']}, {about['steps']:,} {read}, {size:.1f} MB"

    def __repr__(self) -> str:
        return f"Look({self.description})"


def look(
    model: LanguageModel | Layer[Any, Any, Any],
    text: str | ArrayLike,
    why: Iterable[int] = (),
    *,
    unit: int | None = None,
) -> Look:
    """Show in a browser or a notebook what the gates, states and units of a model do.

    Values are those of `trace` within 0.004 (states: within 1/65534 of a unit's largest);
    statistics and bits per character are exact.

    Parameters
    ----------
    model : LanguageModel, or LSTM, GRU or RNN
        A language model reads a text, a layer a numeric series.
    text : str, or (T, I) array
        What it reads; of a layer's dtype.
    why : iterable of int, optional
        Places, from 0: for these, gradients are followed to the very first step.  Default: for
        all places, but only 64 steps back (and ahead, where a layer reads both ways).
    unit : int, optional
        That the page begins with.  Default: the one whose state changes most.

    Returns
    -------
    Look
        ``look.save("look.html")`` writes the page, a notebook shows it.

    Raises
    ------
    TypeError, ValueError
        If `text` is not for such a model, has characters it does not know, is empty or so
        long that the page would have more than 10 MB, or there is no such place or unit.

    Notes
    -----
    An arc goes to each of the other steps t with the largest shares in the sum of
    \\|d log p / d x_t\\|, eight at most, as wide as its share: p is the probability of the
    character that follows, and x_t what the layer reads, the embedding of a character [1]_.
    For a series, the sum of the outputs takes the place of log p.

    .. [1] A. Madsen, "Visualizing memorization in RNNs", Distill, 2019.

    Examples
    --------
    >>> import fastlstm
    >>> from fastlstm.models import LanguageModel
    >>> text = "the cat sat on the mat. " * 100
    >>> model = LanguageModel(text, hidden_size=16, seed=1)
    >>> history = model.fit(text, steps=20)
    >>> page = fastlstm.look(model, "the cat sat on the mat.")
    >>> page
    Look(LSTM, 1 layer of 16 units, 23 characters, 0.1 MB)
    >>> page.save("look.html")  # doctest: +SKIP
    """
    if not isinstance(model, LanguageModel | Layer):
        raise TypeError(
            f"model: expected a LanguageModel, LSTM, GRU or RNN, got {type(model).__name__}"
        )
    if not isinstance(why, Iterable):
        raise TypeError(f"why: expected a sequence of places, got {type(why).__name__}")
    layer = model.lstm if isinstance(model, LanguageModel) else model
    cell_name(layer)  # of those that the page can draw
    if unit is not None:
        unit = _validation.integer(unit, "unit", 0, layer.hidden_size - 1)
    places = tuple(_validation.integer(place, "why", 0) for place in why)
    model = copy.deepcopy(model)  # another thread may go on training it
    if isinstance(model, LanguageModel):
        return _of_text(model, text, places, unit)
    return _of_series(model, text, places, unit)


def _leave_nothing_to_chance(layer: Layer[Any, Any, Any]) -> None:
    """Switch off what `forward` draws, but zoneout, which is an option and no rate."""
    layer.dropout = 0.0
    if isinstance(layer, LSTM) and layer.recurrent_dropout:
        layer.recurrent_dropout = 0.0


def _of_text(model: LanguageModel, text: Any, why: tuple[int, ...], unit: int | None) -> Look:
    codes = model._alphabet.encode(text)
    layer, embedding = model.lstm, model.parameters["embedding.weight"]
    places = _places(layer, "text", len(codes), why)
    parts = _parts(layer, layer.trace(codes, embedding=embedding), embedding[codes], "text")
    pack = Pack()
    about = _about(layer, parts, pack, text, unit)
    about["input"] = {"table": pack.add_fine(embedding), "codes": pack.add_integers(codes[None])}
    hidden = parts[-1].values["hidden"]
    weight, bias = model.parameters["linear.weight"], model.parameters["linear.bias"]
    probabilities = np.exp(log_softmax(hidden @ weight.T + bias))
    about["next"] = _next(model, pack, hidden, probabilities, codes)
    # The character that follows; after the last one, the likeliest.
    target = np.append(codes[1:], probabilities[-1].argmax()).astype(np.intp)

    def loss(_: Array, at: Array) -> Array:
        dlogits = -probabilities[at]
        dlogits[np.arange(len(at)), target[at]] += 1
        gradient: Array = dlogits @ weight
        return gradient

    about["why"] = _why(layer, parts, embedding[codes], places, bool(why), loss, pack)
    return _made(layer, about, pack, parts[0], "text")


def _of_series(layer: Layer[Any, Any, Any], x: Any, why: tuple[int, ...], unit: int | None) -> Look:
    if isinstance(x, str):
        raise TypeError("text: expected an array (T, I), as the model is a layer; got str")
    array = _validation.convert(x, "x", layer.dtype)
    if array.ndim != 2 or array.shape[1] != layer.input_size:
        raise ValueError(f"x: expected (T, {layer.input_size}), got {array.shape}")
    places = _places(layer, "x", len(array), why)
    parts = _parts(layer, layer.trace(array), array, "x")
    pack = Pack()
    about = _about(layer, parts, pack, None, unit)
    about["input"] = {"values": pack.add_fine(array.T)}
    about["why"] = _why(layer, parts, array, places, bool(why), lambda y, _: np.ones_like(y), pack)
    return _made(layer, about, pack, parts[0], "x")


def _places(layer: Layer[Any, Any, Any], name: str, steps: int, why: tuple[int, ...]) -> Array:
    """The places asked for, or all; after a look at what they are asked of."""
    if steps < 1:
        raise ValueError(f"{name}: expected at least one step, got none")
    for place in why:
        _validation.integer(place, "why", 0, steps - 1)
    if why and (reason := why_no_gradients(layer)):
        raise ValueError(f"why: expected a layer that has gradients, got one with {reason}")
    size = 6 * steps * layer.hidden_size * layer.num_layers * (2 if layer.bidirectional else 1)
    if size > 4 * MOST_BYTES:  # certain to be too large: not worth computing
        raise _too_large(layer, name, steps, size)
    return np.array(sorted(set(why)) or range(steps))


def _parts(layer: Layer[Any, Any, Any], traces: list[Any], x: Array, name: str) -> list[Part]:
    for number, trace in enumerate(traces):
        finite = np.isfinite(trace.hidden).all(axis=1)
        if not finite.all():
            level = number // (len(traces) // layer.num_layers) + 1
            raise ValueError(
                f"{name}: expected finite states, got NaN or infinity at step "
                f"{int(finite.argmin())} in layer {level}"
            )
    return parts_of(layer, traces, x)


def _about(
    layer: Layer[Any, Any, Any], parts: list[Part], pack: Pack, text: str | None, unit: int | None
) -> dict[str, Any]:
    steps = len(parts[0].values["hidden"])
    layers = f"{layer.num_layers} layer{'s' * (layer.num_layers > 1)} of {layer.hidden_size} units"
    both = ", both directions" if layer.bidirectional else ""
    unit = widest(parts[0]) if unit is None else unit
    return {
        "model": f"{parts[0].kind}, {layers}{both}",
        "steps": steps,
        "text": text,
        "unit": unit,
        "at": most_changed(parts[0], unit),
        "layers": [_layer(part, pack, text, len(parts), layer.num_layers) for part in parts],
    }


def _layer(part: Part, pack: Pack, text: str | None, parts: int, levels: int) -> dict[str, Any]:
    """What the page knows of a layer and direction: values by unit, weights, statistics."""
    direction = "" if parts == levels else (", backward" if part.reverse else ", forward")
    stored = {
        name: pack.add_fine(values.T) if name == "cell" else pack.add(values.T)
        for name, values in part.values.items()
        if name != "hidden" or not (shows(part) and part.functions[2] == "tanh")
    }
    weights = None
    if part.weights:
        weights = {
            name: pack.add_fine(values.reshape(len(values), -1))
            for name, values in part.weights._asdict().items()
        }
    return {
        "label": f"layer {part.layer + 1}{direction}",
        "cell": part.kind,
        "reverse": part.reverse,
        "reset_after": part.reset_after,
        "gates": part.gates,
        "state": part.state,
        "adds_up": adds_up(part),
        "shows": shows(part),
        "functions": [f if isinstance(f, str) else f[0] for f in part.functions],
        "units": part.values[part.state].shape[1],
        "values": stored,
        "weights": weights,
        "below": part.below,
        "statistics": of_units(part, text),
    }


def _next(
    model: LanguageModel, pack: Pack, hidden: Array, probabilities: Array, codes: Array
) -> dict[str, Any]:
    """The likeliest characters after each one, and how surprising the one that came was."""
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :LIKELIEST]
    chances = np.take_along_axis(probabilities, likeliest, 1)
    nll = softmax_nll(model.lstm, model.parameters, hidden[:-1, None], codes[1:, None])
    bits = nll[:, 0].astype(np.float64) / math.log(2)
    return {
        "alphabet": model.alphabet,
        "likeliest": pack.add_integers(likeliest),
        "chances": pack.add_fine(chances),
        "bits": [round(float(b), 4) for b in bits],
        "mean": float(bits.mean()) if len(bits) else None,
    }


def _why(
    layer: Layer[Any, Any, Any],
    parts: list[Part],
    x: Array,
    places: Array,
    all_the_way: bool,
    loss: Any,
    pack: Pack,
) -> dict[str, Any] | None:
    if why_no_gradients(layer):
        return None
    _leave_nothing_to_chance(layer)
    reach = len(x) if all_the_way else REACH
    steps, shares = Influence(layer, parts, x, reach, loss).of(places)
    return {
        "places": places.tolist(),
        "reach": None if all_the_way else reach,
        "steps": pack.add_integers(steps),
        "shares": pack.add(shares),
    }


def _made(
    layer: Layer[Any, Any, Any], about: dict[str, Any], pack: Pack, part: Part, name: str
) -> Look:
    text, unit, values = about["text"], about["unit"], part.values[part.state]
    steps = [str(step) + " " for step in range(len(values))] if text is None else list(text)
    state = "cell" if part.state == "cell" else "hidden"
    caption = f"{about['model']}: the {state} state of unit {unit}, blue above 0, orange below."
    page = Look(about, pack, _page.static(steps, values[:, unit], caption))
    size = len(page.html.encode("utf-8"))
    if size > MOST_BYTES:
        raise _too_large(layer, name, about["steps"], size)
    return page


def _too_large(layer: Layer[Any, Any, Any], name: str, steps: int, size: int) -> ValueError:
    # What does not grow with the steps: about this much of scripts, and the weights.
    fixed = 80_000 + 3 * sum(np.size(array) for array in layer.parameters.values())
    fits = max(0, int(0.95 * steps * (MOST_BYTES - fixed) / max(size, fixed + 1)))
    return ValueError(
        f"{name}: expected what fits a page of {MOST_BYTES // 10**6} MB, about {fits:,} steps; got "
        f"{steps:,}, which take {size / 1e6:,.0f} MB"
    )
