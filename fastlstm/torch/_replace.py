"""Replacing the recurrent modules of a model, and undoing it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from torch.nn import RNNBase
from torch.nn.modules.rnn import RNNCellBase

from fastlstm._layers.quantize import check_weight_type
from fastlstm.torch import _ops
from fastlstm.torch._bridge import REAL, Bridge, spec_of, weights_of
from fastlstm.torch._cells import GRUCell, LSTMCell, RNNCell
from fastlstm.torch._layers import of, with_weights
from fastlstm.torch._modules import GRU, LSTM, RNN

Model = TypeVar("Model", bound=torch.nn.Module)

BRIDGES: dict[type[torch.nn.Module], type[Bridge]] = {
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
    torch.nn.RNN: RNN,
    torch.nn.LSTMCell: LSTMCell,
    torch.nn.GRUCell: GRUCell,
    torch.nn.RNNCell: RNNCell,
}
ORIGINALS: dict[type[torch.nn.Module], type[torch.nn.Module]]
ORIGINALS = {bridge: original for original, bridge in BRIDGES.items()}
NAMES = {kind.__name__ for kind in BRIDGES}


def replace(model: Model, *, cells: bool = False, weights_dtype: str | None = None) -> Model:
    """Let fastlstm compute every recurrent module of a model, in place.

    These are ``torch.nn.LSTM``, ``GRU``, ``RNN`` and, on request, ``LSTMCell``, ``GRUCell`` and
    ``RNNCell``.  A module stays the same object, with the same parameters, hooks and mode; what
    changes is its class.  So optimizers, and whoever else refers to it, need not know.  `restore`
    undoes it.

    Parameters
    ----------
    model : torch.nn.Module
        It may itself be one of them.
    cells : bool, default False
        Whether to replace cells too.  Called step by step they are slower than torch's, see
        `LSTMCell`; their results do not depend on the batch or the machine.
    weights_dtype : {"int8", "bfloat16", "float16"}, optional
        Compute with weights of fewer bits, as of `fastlstm.LSTM.quantize`: for inference, with
        parameters of float32.  In training mode, and where gradients would be recorded, a call
        raises ``RuntimeError``: use ``eval()`` and ``torch.no_grad()``.  Modules that were
        replaced before get these weights too, or without it their own.

    Returns
    -------
    torch.nn.Module
        `model`.

    Warns
    -----
    UserWarning
        If modules are left as they are; it lists them, with the reasons: not on the CPU, not of
        float32 or float64, scripted, quantized, a cell, or of a subclass, whose own code would be
        lost; or they cannot have weights of `weights_dtype`.

    Raises
    ------
    TypeError, ValueError
        If `model` is not a module, or `weights_dtype` is none of these.

    Notes
    -----
    With `weights_dtype` the parameters stay what they are, of float32, and so do ``state_dict``,
    pickles, and what `restore` gives back; a pickled or copied module computes with weights of
    fewer bits again.  They are made of the parameters at the first call, and made again when those
    have changed, as by ``load_state_dict``.  So this saves time, no memory.  Step by step, use the
    layer, ``fastlstm.LSTM.from_torch(module).quantize("int8")``: calls of modules take longer.

    A change is noticed at the next call if torch counts it, as those within ``torch.no_grad()`` and
    by most optimizers; if the parameter has other memory; if it is in a bias; and if it reaches one
    of 64 values, evenly spread, of a matrix.  What is left is a write to few values of a matrix
    through ``.data`` or ``numpy()``: call `replace` again after it.

    What happens to the model later cannot be known here:

    * ``torch.ao.quantization.quantize_dynamic`` looks for torch's classes, and leaves those of
      fastlstm as they are, without a word.  To quantize, `restore` the model first.
    * ``torch.jit.script`` raises ``RuntimeError``.
    * So does differentiating it twice.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> model = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 4), "head": torch.nn.Linear(4, 2)})
    >>> fastlstm.torch.replace(model)
    ModuleDict(
      (rnn): fastlstm.torch.GRU(3, 4)
      (head): Linear(in_features=4, out_features=2, bias=True)
    )

    With weights of 8 bits:

    >>> model = fastlstm.torch.replace(model, weights_dtype="int8").eval()
    >>> model["rnn"]
    fastlstm.torch.GRU(3, 4, weights_dtype=int8)
    >>> with torch.no_grad():
    ...     y, h_n = model["rnn"](torch.zeros(7, 5, 3))
    """
    if weights_dtype is not None:
        check_weight_type(weights_dtype)
    left = []
    for path, module in recurrent_modules(model):
        if isinstance(module, Bridge) and weights_dtype is None:
            module.weights_dtype = None
            continue
        reason = refusal(module, weights_dtype)
        if not reason and type(module) in BRIDGES and isinstance(module, RNNCellBase) and not cells:
            reason = "torch's cells are faster; replace(model, cells=True) takes them"
        if reason:
            left.append(f"{name_of(path, module)}: {reason}")
            continue
        if isinstance(module, Bridge):
            module._of_fastlstm[1].forget()
        else:
            module.__class__ = BRIDGES[type(module)]
            vars(module)["_of_fastlstm"] = _ops.new_layers()
        vars(module)["weights_dtype"] = weights_dtype
    warn_of("replace", left)
    return model


def restore(model: Model) -> Model:
    """Let torch compute a model again: the opposite of `replace`.

    Modules that were made as those of `fastlstm.torch` become torch's, too.  Objects, parameters,
    hooks and modes stay the same, so that training may go on.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        `model`.

    Warns
    -----
    UserWarning
        If modules are left as they are, because they are of a subclass of one of fastlstm's; it
        lists them.

    Raises
    ------
    TypeError
        If `model` is not a module.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> model = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 4), "head": torch.nn.Linear(4, 2)})
    >>> fastlstm.torch.restore(fastlstm.torch.replace(model))
    ModuleDict(
      (rnn): GRU(3, 4)
      (head): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    left = []
    for path, module in recurrent_modules(model):
        if type(module) in ORIGINALS:
            del module._of_fastlstm
            vars(module).pop("weights_dtype", None)
            module.__class__ = ORIGINALS[type(module)]
        elif isinstance(module, Bridge):
            left.append(f"{name_of(path, module)}: it is of a subclass")
    warn_of("restore", left)
    return model


def recurrent_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Recurrent modules and cells of a model, whoever computes them, and where they are."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for path, module in model.named_modules():
        if isinstance(module, RNNBase | RNNCellBase) or is_scripted(module) or is_quantized(module):
            yield path, module


def is_scripted(module: torch.nn.Module) -> bool:
    """Whether it is a recurrent module or cell of torch that has been scripted or traced."""
    if not isinstance(module, torch.jit.ScriptModule):
        return False
    name: str = module._c._type().qualified_name()
    return name.startswith("__torch__.torch.nn.modules.rnn.")


def is_quantized(module: torch.nn.Module) -> bool:
    """Whether it is a quantized recurrent module or cell of torch, or will be."""
    kind = type(module)
    return kind.__module__.startswith("torch.ao.nn.quant") and kind.__name__ in NAMES


def refusal(module: torch.nn.Module, weights_dtype: str | None) -> str:
    """Why a module cannot be replaced, or have such weights, or nothing."""
    if is_scripted(module):
        return "it is scripted"
    if is_quantized(module):
        return "it is quantized"
    if type(module) not in BRIDGES and not isinstance(module, Bridge):
        return "it is of a subclass"
    if isinstance(module, RNNBase):
        module._update_flat_weights()
    weights = list(weights_of(module).values())
    devices = {str(weight.device) for weight in weights if weight.device.type != "cpu"}
    if devices:
        return f"its parameters are on {', '.join(sorted(devices))}"
    dtypes = {weight.dtype for weight in weights}
    if len(dtypes) > 1 or not dtypes <= set(REAL):
        return f"its parameters are {', '.join(sorted(map(str, dtypes)))}"
    if weights_dtype and dtypes != {torch.float32}:
        return f"its parameters are torch.float64; for {weights_dtype} they have to be float32"
    try:
        layer = spec_of(module).make(np.dtype(np.float32))
        if weights_dtype:
            with_weights(layer, [of(weight) for weight in weights]).quantize(weights_dtype)
    except ValueError as error:
        return str(error)
    return ""


def name_of(path: str, module: torch.nn.Module) -> str:
    """Where a module is, and of which class."""
    kind = getattr(module, "original_name", type(module).__name__)  # before it was scripted
    return f"{path or 'the model'} ({kind})"


def warn_of(function: str, left: list[str]) -> None:
    if left:
        message = "\n  ".join([f"fastlstm.torch.{function} leaves these modules alone:", *left])
        warnings.warn(message, stacklevel=3)
