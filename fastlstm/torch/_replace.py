"""Replacing the recurrent modules of a model."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import numpy as np
import torch

from fastlstm.torch import _ops
from fastlstm.torch._modules import GRU, LSTM, REAL, RNN, Module, spec_of

Model = TypeVar("Model", bound=torch.nn.Module)

BRIDGES: dict[type[torch.nn.RNNBase], type[Module]] = {
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
    torch.nn.RNN: RNN,
}


def replace(model: Model) -> Model:
    """Let fastlstm compute every ``torch.nn.LSTM``, ``GRU`` and ``RNN`` of a model, in place.

    A module stays the same object, with the same parameters, hooks and mode; what changes is its
    class.  So optimizers, and whoever else refers to it, need not know.

    Parameters
    ----------
    model : torch.nn.Module
        It may itself be one of them.

    Returns
    -------
    torch.nn.Module
        `model`.

    Warns
    -----
    UserWarning
        For each module that is left as it is, with the reason: it is not on the CPU, not of
        float32 or float64, or of a subclass, whose own code would be lost.

    Raises
    ------
    TypeError
        If `model` is not a module.

    Notes
    -----
    Whether a model will be differentiated twice cannot be known here; one that is raises
    ``RuntimeError`` then.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> model = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 4), "head": torch.nn.Linear(4, 2)})
    >>> model = fastlstm.torch.replace(model)
    >>> type(model["rnn"])
    <class 'fastlstm.torch.GRU'>
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for path, module in model.named_modules():
        if not isinstance(module, torch.nn.RNNBase) or isinstance(module, Module):
            continue
        reason = refusal(module)
        if reason:
            name = f"{path or 'the model'} ({type(module).__name__})"
            warnings.warn(f"fastlstm.torch.replace leaves {name} alone: {reason}", stacklevel=2)
            continue
        module.__class__ = BRIDGES[type(module)]
        module._of_fastlstm = _ops.new_layers()
    return model


def refusal(module: torch.nn.RNNBase) -> str:
    """Why a module cannot be replaced, or nothing."""
    if type(module) not in BRIDGES:
        return "it is of a subclass"
    module._update_flat_weights()
    weights: list[Any] = module._flat_weights
    devices = {str(weight.device) for weight in weights if weight.device.type != "cpu"}
    if devices:
        return f"its parameters are on {', '.join(sorted(devices))}"
    dtypes = {weight.dtype for weight in weights}
    if len(dtypes) > 1 or not dtypes <= set(REAL):
        return f"its parameters are {', '.join(sorted(map(str, dtypes)))}"
    try:
        spec_of(module).make(np.dtype(np.float32))
    except ValueError as error:
        return str(error)
    return ""
