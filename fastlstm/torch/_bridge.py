"""What the modules have in common: torch's parameters, and a layer of fastlstm that computes."""

# Not all of torch's functions are typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sys
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import RNNBase
from torch.nn.modules.rnn import RNNCellBase

from fastlstm.torch import _compiled, _ops
from fastlstm.torch._layers import Layers, Spec

REAL = (torch.float32, torch.float64)
HOME = "fastlstm.torch"  # where the classes are public


class Bridge(torch.nn.Module):
    """The base of all modules; its subclasses are also those of a class of torch."""

    _of_fastlstm: tuple[int, Layers]
    weights_dtype: str | None = None
    """Of weights in fewer bits, which `replace` was asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._of_fastlstm = _ops.new_layers()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[misc]
        state.pop("_of_fastlstm", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._of_fastlstm = _ops.new_layers()

    def _get_name(self) -> str:
        """What ``print(model)`` shows."""
        name = type(self).__name__
        return f"{HOME}.{name}" if type(self).__module__ == HOME else name

    def extra_repr(self) -> str:
        """What ``print(model)`` shows between the brackets."""
        text = super().extra_repr()
        return f"{text}, weights_dtype={self.weights_dtype}" if self.weights_dtype else text

    def __prepare_scriptable__(self) -> NoReturn:
        """Tell ``torch.jit.script``, which asks for what it shall read instead."""
        raise RuntimeError(
            f"torch.jit.script: cannot read {self._get_name()}; use torch.compile, torch.export or "
            "torch.jit.trace, or give the model back to torch with fastlstm.torch.restore"
        )

    def _parts(self, hx: Any) -> list[Tensor]:
        """The tensors of a state: h, and c if there is one."""
        if hx is None:
            return []
        two = isinstance(self, torch.nn.LSTM | torch.nn.LSTMCell)
        parts = hx if two else (hx,)
        expected = "a pair of tensors" if two else "a tensor"
        if not isinstance(parts, tuple | list) or len(parts) != 1 + two:
            raise TypeError(f"hx: expected {expected}, got {type(hx).__name__}")
        if not all(isinstance(part, Tensor) for part in parts):
            got = ", ".join(type(part).__name__ for part in parts)
            raise TypeError(f"hx: expected {expected}, got {got}")
        return list(parts)

    def _state(self, parts: list[Tensor]) -> Any:
        return tuple(parts) if len(parts) == 2 else parts[0]

    def _check(self, x: Tensor, states: list[Tensor]) -> None:
        """Refuse what is on another device or of another type."""
        weights = weights_of(self)
        dtype, real = next(iter(weights.values())).dtype, REAL[: 1 if self.weights_dtype else 2]
        names = ["input", *("hx" for _ in states), *weights]
        for name, tensor in zip(names, (x, *states, *weights.values()), strict=True):
            if tensor.device.type != "cpu":
                raise TypeError(f"{name}: expected a tensor on the CPU, got one on {tensor.device}")
            if tensor.dtype not in real or tensor.dtype != dtype:
                expected = dtype if dtype in real else " or ".join(map(str, real))
                raise TypeError(f"{name}: expected {expected}, got {tensor.dtype}")

    def _compute(
        self,
        x: Tensor,
        batch_sizes: Tensor | None,
        states: list[Tensor],
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
    ) -> tuple[Tensor, list[Tensor]]:
        """y, and h_n and perhaps c_n, of rows sorted as the data of packed ones are."""
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError("fastlstm.torch: no transforms of torch.func; use torch's own there")
        weights = list(weights_of(self).values())
        tensors = [x, *states, *weights]
        differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        if self.weights_dtype and (self.training or differentiable):
            raise RuntimeError(
                f"{self._get_name()}: weights of {self.weights_dtype} are for inference: call "
                "eval() and compute within torch.no_grad(), or replace the model without "
                "weights_dtype"
            )
        taped = differentiable or dropout > 0
        options = (self._of_fastlstm[0], taped, batch_first, dropout, *spec_of(self))
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            y, *state_n, _ = _compiled.run(x, batch_sizes, states, weights, *options)
        else:
            if "torch._dynamo" in sys.modules:  # else nothing is compiled; it is slow to import
                _ops.hide()
            if differentiable:
                count = len(states)
                y, *state_n = _ops.Run.apply(x, batch_sizes, count, options, *states, *weights)
            else:
                y, *state_n, _ = _ops.run(x, batch_sizes, states, weights, *options)
        return y, [part for part in state_n if part.dim() > 1]


def spec_of(module: torch.nn.Module) -> Spec:
    """What the layer of a recurrent module is made from; a cell is one layer."""
    if not isinstance(module, RNNCellBase):
        names = Spec._fields[:-1]
        return Spec._make([*(getattr(module, name) for name in names), weights_dtype_of(module)])
    if isinstance(module, torch.nn.RNNCell):
        mode = f"RNN_{module.nonlinearity.upper()}"
    else:
        mode = "LSTM" if isinstance(module, torch.nn.LSTMCell) else "GRU"
    sizes = module.input_size, module.hidden_size
    return Spec(mode, *sizes, 1, module.bias, False, 0, weights_dtype_of(module))


def weights_dtype_of(module: torch.nn.Module) -> str:
    """As a `Spec` has it; a module of torch has none."""
    return getattr(module, "weights_dtype", None) or ""


def weights_of(module: torch.nn.Module) -> dict[str, Any]:
    """The weights of a recurrent module, in the order of a layer's parameters."""
    if isinstance(module, RNNBase):
        return dict(zip(module._flat_weights_names, module._flat_weights, strict=True))
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    return {name: getattr(module, name) for name in names[: 4 if module.bias else 2]}
