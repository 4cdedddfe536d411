"""Weights in and out of a layer: state dictionaries, torch, files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastlstm._io import tensor_file
from fastlstm._layers import torch_dynamic
from fastlstm._layers.quantize import Quantizer, check_weight_type
from fastlstm._stored_weights import StoredWeights, check_scales, stored_layout

Array = NDArray[Any]

# Constructor arguments of all recurrent layers of torch that are attributes of the module.
_TORCH_OPTIONS = (
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
)

_CELL_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # of the parameters of torch's cells

# Options that show in the names of the weights.
_LSTM_OPTIONS = ("proj_size", "peephole", "layer_norm")

# Sizes of a layer that takes no memory.
_SMALLEST = {"input_size": 1, "hidden_size": 2, "num_layers": 1, "proj_size": 1, "num_heads": 1}


class Weights(Quantizer):
    """What every layer can do with its weights."""

    def __init__(self, *sizes: int, **options: Any) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters under torch's names.

        Returns
        -------
        dict of str to array
            Of int8 with the scales of each matrix beside it, ``weight_ih_l0_scale``; of bfloat16 as
            float32, which NumPy has.

        Examples
        --------
        >>> import fastlstm
        >>> list(fastlstm.LSTM(2, 3, bias=False).state_dict())
        ['weight_ih_l0', 'weight_hh_l0']
        """
        with self.parameters.lock:  # all of the same moment
            return {name: array.copy() for name, array in self.parameters.items()}

    def load_state_dict(self, mapping: Mapping[str, Any], strict: bool = True) -> None:
        """Replace the parameters by the arrays or torch tensors of a mapping.

        Values of another floating-point type are converted.

        Parameters
        ----------
        mapping : mapping of str to array
        strict : bool, default True
            If false, names may be missing, and names that are no parameters are ignored.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unknown, or an array has the wrong shape or no real numbers.
            Then nothing is changed.
        """
        self._check_trainable("load_state_dict")
        self.parameters.assign(self.parameters.matching(mapping, strict))

    @classmethod
    def from_torch(cls, source: Any, **options: Any) -> Self:
        """Make a layer of a torch module or cell, or of its state dictionary.

        Parameters
        ----------
        source : module of torch, or mapping of str to array or tensor
            The module is ``torch.nn.LSTM`` or ``LSTMCell`` for an LSTM, and so on; or one that
            ``torch.ao.quantization.quantize_dynamic`` made of it, of qint8 or float16, which
            becomes a layer with the same integers and scales (see `quantize`).  torch rounds all
            of x, and all of h, with one scale to 7 bits, so its results are close, not equal.
            A mapping needs no torch; sizes are read from its shapes, and its names are those of a
            module, ``weight_ih_l0``, or of a cell, ``weight_ih``.
        **options
            Constructor arguments to set or to override, such as ``batch_first``, which a
            mapping does not tell.  The default of ``dtype`` is float64 if any of the weights is,
            else float32, which holds float16 and bfloat16, too.  Lists of numbers have no type of
            their own and become float32.  Given for a quantized module, it widens the weights.

        Raises
        ------
        TypeError, ValueError
            If `source` is neither, or has names or shapes that are not those of this cell, or
            quantized weights that a layer cannot have: with zero points.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> mapping = {"weight_ih_l0": np.ones((12, 2)), "weight_hh_l0": np.ones((12, 3))}
        >>> fastlstm.LSTM.from_torch(mapping, batch_first=True)
        LSTM(2, 3, bias=False, batch_first=True, dtype='float64')
        >>> fastlstm.LSTM.from_torch(mapping, dtype="float32")
        LSTM(2, 3, bias=False)
        """
        stack = ("state_dict", "mode", *_TORCH_OPTIONS)
        cell = ("state_dict", "input_size", "hidden_size", "bias", "weight_ih", "weight_hh")
        dynamic = torch_dynamic.is_dynamic(source)
        if isinstance(source, Mapping):
            mapping = _named_as_layer(source)
            found = cls._options_in(mapping)
        elif dynamic or any(all(hasattr(source, n) for n in names) for names in (stack, cell)):
            tensors = torch_dynamic.tensors_of(source) if dynamic else source.state_dict()
            mapping = _named_as_layer(tensors)
            names = (*_TORCH_OPTIONS, *cls._OPTIONS)
            found = {name: getattr(source, name) for name in names if hasattr(source, name)}
        else:
            expected = f"a torch.nn.{cls.__name__}, a torch.nn.{cls.__name__}Cell or a mapping"
            raise TypeError(f"source: expected {expected}, got {type(source).__name__}")
        foreign = [name for name in _LSTM_OPTIONS if found.get(name) and name not in cls._OPTIONS]
        if foreign:
            raise ValueError(f"source: expected weights of a {cls.__name__}, got {foreign[0]}")
        wide = any(getattr(value, "itemsize", 4) > 4 for value in mapping.values())
        layer = cls(**{"dtype": "float64" if wide else "float32", **found, **options})
        if dynamic:
            return layer._of_dynamic(mapping, widen="dtype" in options)
        layer.load_state_dict(mapping)
        return layer

    def _of_dynamic(self, tensors: Mapping[str, Any], widen: bool) -> Self:
        """The layer with the weights of a module that torch quantized."""
        if torch_dynamic.is_int8(tensors) and not widen:
            arrays = torch_dynamic.in_bytes(tensors)
            return self._with_weights(checked_weights(self, arrays, "int8"))
        self.load_state_dict(torch_dynamic.widened(tensors))
        return self if widen else self.quantize("float16")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer to a .safetensors file, its configuration in the metadata.

        Parameters
        ----------
        path : path-like
            A file that exists is replaced when the new one is complete.

        Raises
        ------
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import os, tempfile
        >>> import fastlstm
        >>> path = os.path.join(tempfile.mkdtemp(), "layer.safetensors")
        >>> fastlstm.LSTM(2, 3, bidirectional=True).save(path)
        >>> fastlstm.LSTM.load(path)
        LSTM(2, 3, bidirectional=True)
        """
        tensor_file.write(path, type(self).__name__, self._tensors(), self._configuration())

    def _tensors(self) -> Mapping[str, Array]:
        """The parameters as a file has them."""
        weights: Any = self.parameters
        tensors: Mapping[str, Array]
        tensors = weights.stored() if self._weights_dtype else weights.snapshot()
        return tensors

    def _with_tensors(self, tensors: Mapping[str, Array], stored: str | None) -> Self:
        """This layer with the parameters of a file; or, of weights in fewer bits, another."""
        if stored is not None:
            return self._with_weights(checked_weights(self, tensors, stored))
        self.load_state_dict(tensors)
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str], weights_dtype: str | None = None) -> Self:
        """Read a layer that `save` wrote.

        Parameters
        ----------
        path : path-like
        weights_dtype : {"int8", "bfloat16", "float16"}, optional
            As of `quantize`; a file of such weights needs none.

        Raises
        ------
        OSError
            If the file cannot be read.
        TypeError, ValueError
            If it is another kind of file, incomplete or damaged, or cannot have such weights.

        Examples
        --------
        >>> import os, tempfile
        >>> import fastlstm
        >>> path = os.path.join(tempfile.mkdtemp(), "small.safetensors")
        >>> fastlstm.LSTM(2, 3, seed=0).quantize("int8").save(path)
        >>> fastlstm.LSTM.load(path)
        LSTM(2, 3, weights_dtype='int8')
        """
        if weights_dtype is not None:
            check_weight_type(weights_dtype)
        tensors, options = tensor_file.read(path, cls.__name__)
        check_scales(path, tensors)
        stored = options.pop("weights_dtype", None)
        layer = cls._of_tensors(path, tensors, options, stored)
        if weights_dtype is None or weights_dtype == stored:
            return layer
        return layer.quantize(weights_dtype)

    @classmethod
    def _of_tensors(
        cls,
        path: str | os.PathLike[str],
        tensors: dict[str, Array],
        options: dict[str, Any],
        stored: Any,
    ) -> Self:
        """The layer of a file; `stored` is the type of its weights, or None."""
        try:
            found = cls._options_in(tensors)
            if not found.items() <= options.items():
                raise ValueError(f"sizes of the weights: {found}")
            cls._check_shapes(tensors, options)
            return cls(**options)._with_tensors(tensors, stored)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: weights and configuration do not agree ({error})") from None

    @classmethod
    def _options_in(cls, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """Sizes and options of a layer of this cell that has such weights."""
        return _options_of(mapping)

    @classmethod
    def _check_shapes(cls, tensors: Mapping[str, Array], options: Mapping[str, Any]) -> None:
        """Refuse tensors of other shapes than a layer with these options has.

        The layer is not made: a small file may claim one that is larger than the memory, with
        shapes such as (0, 100_000).  A tiny one of the same kind knows the rules.
        """
        sizes = {name: options[name] for name in _SMALLEST if options.get(name)}
        smallest = {name: _SMALLEST[name] for name in sizes}
        layer: Any = cls(**{**options, **smallest, "dropout": 0.0})  # of no effect, with a warning
        vars(layer).update(sizes)
        for name, shape in layer._parameter_shapes().items():
            if name not in tensors:
                raise ValueError(f"missing: {name}")
            if tensors[name].shape != shape:
                raise ValueError(f"{name}: expected {shape}, got {tensors[name].shape}")


def checked_weights(layer: Weights, tensors: Mapping[str, Array], stored: Any) -> StoredWeights:
    """The weights of a file, whose names and types must be those of such a layer."""
    check_weight_type(stored)
    shapes = {name: array.shape for name, array in layer.parameters.items()}
    layout = stored_layout(shapes, stored)
    for name, (dtype, shape) in layout.items():
        found = tensors.get(name)
        if found is None or (found.dtype.name, found.shape) != (dtype, shape):
            got = "none" if found is None else f"{found.dtype} {found.shape}"
            raise ValueError(f"{name}: expected {dtype} {shape}, got {got}")
    return StoredWeights(stored, shapes, {name: tensors[name] for name in layout})


def _named_as_layer(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of a layer, whose names may be those of a cell of torch."""
    if "weight_ih" in mapping and "weight_ih_l0" not in mapping:
        return {f"{n}_l0" if n in _CELL_NAMES else n: value for n, value in mapping.items()}
    return mapping


def _options_of(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes and options of a layer, from the names and shapes in its state dictionary."""
    for name in ("weight_ih_l0", "weight_hh_l0"):
        if name not in mapping or len(np.shape(mapping[name])) != 2:
            raise ValueError(f"source: expected a matrix {name!r}{_instead(mapping)}")
    options: dict[str, Any] = {}
    hidden = np.shape(mapping["weight_hh_l0"])[1]
    if np.ndim(mapping.get("weight_hr_l0", 0)) == 2:
        options["proj_size"], hidden = np.shape(mapping["weight_hr_l0"])
    given = {"peephole": "weight_ch_l0", "layer_norm": "weight_ln_l0"}
    options |= {option: True for option, name in given.items() if name in mapping}
    layers = 1
    while f"weight_ih_l{layers}" in mapping:
        layers += 1
    return options | {
        "input_size": np.shape(mapping["weight_ih_l0"])[1],
        "hidden_size": hidden,
        "num_layers": layers,
        "bias": "bias_ih_l0" in mapping,
        "bidirectional": "weight_ih_l0_reverse" in mapping,
    }


def _instead(mapping: Mapping[str, Any]) -> str:
    """What a mapping has that is not of one layer, for an error: its prefixes or its names."""
    ends = (".weight_ih_l0", ".weight_ih")
    found = {n.removesuffix(end) for n in map(str, mapping) for end in ends if n.endswith(end)}
    if not found:
        return f" among {list(mapping)}"
    prefixes = " or ".join(repr(f"{start}.") for start in sorted(found))
    return f", got names that begin with {prefixes}; pass those of one layer, without that"
