"""The modules: torch's own, with another forward."""

# Not all of torch's functions are typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fastlstm.torch import _compiled, _ops
from fastlstm.torch._layers import Layers, Spec

REAL = (torch.float32, torch.float64)


class Module(torch.nn.RNNBase):
    """What the modules have in common."""

    _of_fastlstm: tuple[int, Layers]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._of_fastlstm = _ops.new_layers()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state.pop("_of_fastlstm", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._of_fastlstm = _ops.new_layers()

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run over a sequence.

        Parameters
        ----------
        input : tensor (T, B, I), or (B, T, I) with `batch_first`, or (T, I), or PackedSequence
            float32 or float64, as the parameters, on the CPU.  T = 0 and B = 0 are legal.
        hx : (h_0, c_0), or h_0 of a GRU or RNN, optional
            Tensors (L*D, B, H), or (L*D, H) without a batch.  Default: zeros.

        Returns
        -------
        output : tensor (T, B, D*H), or (B, T, D*H), or (T, D*H), or PackedSequence, as `input`
        (h_n, c_n), or h_n : tensors like `hx`

        Raises
        ------
        TypeError
            If a tensor or parameter is not float32 or float64, or not on the CPU, or `hx` is
            not the state of such a module.
        ValueError, RuntimeError
            If a shape is wrong, as torch's modules do.
        """
        self._update_flat_weights()
        states = self._parts(hx)
        if isinstance(input, PackedSequence):
            data, batch_sizes, order, back = input
            states = states if order is None else [part.index_select(1, order) for part in states]
            y, states = self._run(data, batch_sizes, states)
            states = states if back is None else [part.index_select(1, back) for part in states]
            return PackedSequence(y, batch_sizes, order, back), self._state(states)
        if not isinstance(input, Tensor):
            got = type(input).__name__
            raise TypeError(f"input: expected a tensor or a PackedSequence, got {got}")
        if input.dim() == 3:
            y, states = self._run(input, None, states)
            return y, self._state(states)
        if input.dim() != 2 or any(part.dim() != 2 for part in states):
            got = ", ".join(f"{part.dim()}-D" for part in (input, *states))
            raise ValueError(f"input, hx: expected all 3-D, or all 2-D without a batch, got {got}")
        batch = 0 if self.batch_first else 1
        states = [part.unsqueeze(1) for part in states]
        y, states = self._run(input.unsqueeze(batch), None, states)
        return y.squeeze(batch), self._state([part.squeeze(1) for part in states])

    def _parts(self, hx: Any) -> list[Tensor]:
        """The tensors of a state: h, and c if there is one."""
        if hx is None:
            return []
        parts = hx if self.mode == "LSTM" else (hx,)
        expected = "a pair of tensors" if self.mode == "LSTM" else "a tensor"
        count = 2 if self.mode == "LSTM" else 1
        if not isinstance(parts, tuple | list) or len(parts) != count:
            raise TypeError(f"hx: expected {expected}, got {type(hx).__name__}")
        if not all(isinstance(part, Tensor) for part in parts):
            got = ", ".join(type(part).__name__ for part in parts)
            raise TypeError(f"hx: expected {expected}, got {got}")
        return list(parts)

    def _state(self, parts: list[Tensor]) -> Any:
        return tuple(parts) if self.mode == "LSTM" else parts[0]

    def _run(
        self, x: Tensor, batch_sizes: Tensor | None, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """y, and h_n and perhaps c_n, of rows sorted as the data of packed ones are."""
        weights: list[Any] = self._flat_weights
        self._check(x, batch_sizes, states)
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError("fastlstm.torch: no transforms of torch.func; use torch's own there")
        tensors = [x, *states, *weights]
        dropout = self.dropout if self.training and self.num_layers > 1 else 0.0
        differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        options = (
            self._of_fastlstm[0],
            differentiable or dropout > 0,
            self.batch_first and batch_sizes is None,
            dropout,
            *spec_of(self),
        )
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            y, h_n, c_n, _ = _compiled.run(x, batch_sizes, states, weights, *options)
            return y, [h_n, c_n] if self.mode == "LSTM" else [h_n]
        if "torch._dynamo" in sys.modules:  # else nothing is compiled; it takes seconds to import
            _ops.hide()
        if differentiable:
            count = len(states)
            y, h_n, c_n = _ops.Run.apply(x, batch_sizes, count, options, *states, *weights)
        else:
            y, h_n, c_n, _ = _ops.run(x, batch_sizes, states, weights, *options)
        return y, [h_n, c_n] if self.mode == "LSTM" else [h_n]

    def _check(self, x: Tensor, batch_sizes: Tensor | None, states: list[Tensor]) -> None:
        weights: list[Any] = self._flat_weights
        dtype = weights[0].dtype
        names = ["input", *("hx" for _ in states), *self._flat_weights_names]
        for name, tensor in zip(names, (x, *states, *weights), strict=True):
            if tensor.device.type != "cpu":
                raise TypeError(f"{name}: expected a tensor on the CPU, got one on {tensor.device}")
            if tensor.dtype not in REAL or tensor.dtype != dtype:
                expected = dtype if dtype in REAL else "torch.float32 or torch.float64"
                raise TypeError(f"{name}: expected {expected}, got {tensor.dtype}")
        self.check_input(x, batch_sizes)
        if states:
            self.check_forward_args(x, self._state(states), batch_sizes)


def spec_of(module: torch.nn.RNNBase) -> Spec:
    """What its layer is made from."""
    return Spec(*(getattr(module, name) for name in Spec._fields))


class LSTM(Module, torch.nn.LSTM):
    """``torch.nn.LSTM``, computed by fastlstm.

    Parameters
    ----------
    *args, **kwargs
        Those of ``torch.nn.LSTM``.

    Raises
    ------
    TypeError, ValueError
        As ``torch.nn.LSTM`` does.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> lstm = fastlstm.torch.LSTM(3, 4, num_layers=2, batch_first=True)
    >>> y, (h_n, c_n) = lstm(torch.zeros(5, 7, 3))
    >>> y.shape, h_n.shape
    (torch.Size([5, 7, 4]), torch.Size([2, 5, 4]))
    >>> y.sum().backward()
    >>> lstm.weight_hh_l1.grad.shape
    torch.Size([16, 4])

    The parameters are torch's, and so is what is saved.

    >>> twin = torch.nn.LSTM(3, 4, num_layers=2, batch_first=True)
    >>> twin.load_state_dict(lstm.state_dict())
    <All keys matched successfully>
    >>> x = torch.randn(5, 7, 3)
    >>> bool((twin(x)[0] - lstm(x)[0]).abs().max() < 1e-6)
    True
    """


class GRU(Module, torch.nn.GRU):
    """``torch.nn.GRU``, computed by fastlstm.

    Parameters
    ----------
    *args, **kwargs
        Those of ``torch.nn.GRU``.

    Raises
    ------
    TypeError, ValueError
        As ``torch.nn.GRU`` does.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> gru = fastlstm.torch.GRU(3, 4, bidirectional=True)
    >>> y, h_n = gru(torch.zeros(7, 5, 3))
    >>> y.shape, h_n.shape
    (torch.Size([7, 5, 8]), torch.Size([2, 5, 4]))
    """


class RNN(Module, torch.nn.RNN):
    """``torch.nn.RNN``, computed by fastlstm.

    Parameters
    ----------
    *args, **kwargs
        Those of ``torch.nn.RNN``.

    Raises
    ------
    TypeError, ValueError
        As ``torch.nn.RNN`` does.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> rnn = fastlstm.torch.RNN(3, 4, nonlinearity="relu")
    >>> y, h_n = rnn(torch.zeros(7, 5, 3))
    >>> y.shape, h_n.shape
    (torch.Size([7, 5, 4]), torch.Size([1, 5, 4]))
    """
