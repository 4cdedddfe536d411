"""The modules that run over sequences: torch's own, with another forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fastlstm.torch._bridge import Bridge


class Stack(Bridge, torch.nn.RNNBase):
    """A stack of layers."""

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

    def _run(
        self, x: Tensor, batch_sizes: Tensor | None, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """y and the final states; with batch sizes `x` and y are the data of packed sequences."""
        self._check(x, states)
        self.check_input(x, batch_sizes)
        if states:
            self.check_forward_args(x, self._state(states), batch_sizes)
        dropout = self.dropout if self.training and self.num_layers > 1 else 0.0
        batch_first = self.batch_first and batch_sizes is None
        return self._compute(x, batch_sizes, states, batch_first=batch_first, dropout=dropout)


class LSTM(Stack, torch.nn.LSTM):
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


class GRU(Stack, torch.nn.GRU):
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


class RNN(Stack, torch.nn.RNN):
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
