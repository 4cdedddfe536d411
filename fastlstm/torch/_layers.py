"""From the weights of a module to a layer that has them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastlstm import _validation
from fastlstm._core.threads import get_num_threads
from fastlstm._layers.base import Layer
from fastlstm._layers.gru import GRU
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.rnn import RNN
from fastlstm._parameters import Parameters
from fastlstm.torch._watch import Watch

Array = NDArray[Any]
AnyLayer = Layer[Any, Any, Any]

CHUNK = 1 << 15  # values compared at a time: a difference is mostly in the first of them


def num_threads() -> int:
    """How many threads a call of a module may use: no more than torch in the thread that asks."""
    return min(get_num_threads(), torch.get_num_threads())


class Spec(NamedTuple):
    """What a layer is made from, beside its weights: the attributes of a module of torch."""

    mode: str
    """LSTM, GRU, RNN_TANH or RNN_RELU."""
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    proj_size: int
    weights_dtype: str
    """Of weights in fewer bits, or nothing."""

    def make(self, dtype: np.dtype[Any]) -> AnyLayer:
        """A new layer, whose weights have all bits."""
        options = self._asdict()
        del options["weights_dtype"]
        mode, proj_size = options.pop("mode"), options.pop("proj_size")
        if mode == "LSTM":
            return LSTM(**options, proj_size=proj_size, dtype=dtype)
        if mode == "GRU":
            return GRU(**options, dtype=dtype)
        return RNN(**options, nonlinearity=mode.removeprefix("RNN_").lower(), dtype=dtype)


class Layers:
    """The layer of a module: the one of the last call, as long as it has the same weights.

    A layer that has been used never changes: there may be tapes of it.  When the weights have
    changed, a copy takes its place.  To notice that, each call compares all of them: in training
    they change all the time.  Weights of fewer bits are for inference, where reading those of
    float32 would take longer than a step.  So a `Watch` says if they need to be compared with the
    layer of which they were made.
    """

    def __init__(self) -> None:
        self._last: tuple[Spec, AnyLayer, AnyLayer, Watch | None] | None = None

    def forget(self) -> None:
        """Make the layer again at the next call."""
        self._last = None

    def get(
        self, spec: Spec, weights: list[Tensor], *, batch_first: bool, dropout: float
    ) -> AnyLayer:
        """A layer with these weights."""
        last = self._last
        if last and last[0] == spec and last[3] and last[3].unchanged(weights):
            _, source, layer, watch = last
        else:
            watch = Watch(weights) if spec.weights_dtype else None  # before they are read
            source, layer = self._made(spec, [of(weight) for weight in weights])
        if (layer.batch_first, layer.dropout) != (batch_first, dropout):
            layer = sibling(layer)
            layer.batch_first = batch_first
            layer.dropout = _validation.probability(dropout, "dropout")
        self._last = spec, source, layer, watch
        return layer

    def _made(self, spec: Spec, weights: list[Array]) -> tuple[AnyLayer, AnyLayer]:
        """The layer with these weights, and the same in as few bits as are wanted."""
        last = self._last
        if last is None or last[0] != spec or last[1].dtype != weights[0].dtype:
            source = with_weights(spec.make(weights[0].dtype), weights)
        elif have_changed(last[1].parameters, weights):
            source = with_weights(last[1], weights)
        else:
            return last[1], last[2]
        return source, source.quantize(spec.weights_dtype) if spec.weights_dtype else source


def of(tensor: Tensor) -> Array:
    """The array over the memory of a tensor."""
    array: Array = tensor.detach().numpy()
    return array


def have_changed(parameters: Parameters, weights: list[Array]) -> bool:
    """Whether any bit differs."""
    pairs = zip(parameters.values(), weights, strict=True)
    return not all(a.shape == b.shape and same_bits(a, b) for a, b in pairs)


def same_bits(a: Array, b: Array) -> bool:
    bits = np.uint32 if a.itemsize == 4 else np.uint64
    a, b = a.reshape(-1).view(bits), b.reshape(-1).view(bits)
    return all((a[i : i + CHUNK] == b[i : i + CHUNK]).all() for i in range(0, a.size, CHUNK))


def with_weights(layer: AnyLayer, weights: list[Array]) -> AnyLayer:
    """A copy of the layer with other weights."""
    shapes = {name: array.shape for name, array in layer.parameters.items()}
    for (name, shape), weight in zip(shapes.items(), weights, strict=True):
        if weight.shape != shape:
            raise ValueError(f"{name}: expected {shape}, got {weight.shape}")
    parameters = Parameters(shapes, layer.dtype)
    with parameters.update() as flat:
        np.concatenate([weight.reshape(-1) for weight in weights], out=flat)
    return sibling(layer, parameters=parameters, _packed=None, _num_threads=num_threads)


def sibling(layer: AnyLayer, **changed: Any) -> AnyLayer:
    """A copy of the layer that shares its work space, and all that is not changed."""
    other: AnyLayer = object.__new__(type(layer))
    other.__dict__.update(layer.__dict__, **changed)  # copy.copy prepares a new layer
    return other
