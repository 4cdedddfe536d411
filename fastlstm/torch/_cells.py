"""The cells: torch's own, computed as one step of one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.rnn import RNNCellBase

from fastlstm.torch._bridge import Bridge


class Cell(Bridge, RNNCellBase):
    """One step of one layer."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Make one step.

        Parameters
        ----------
        input : tensor (B, I), or (I,)
            float32 or float64, as the parameters, on the CPU.  B = 0 is legal.
        hx : (h, c), or h of a GRUCell or RNNCell, optional
            Tensors (B, H), or (H,) without a batch.  Default: zeros.

        Returns
        -------
        (h, c), or h : tensors like `hx`

        Raises
        ------
        TypeError
            If a tensor or parameter is not float32 or float64, or not on the CPU, or `hx` is
            not the state of such a cell.
        ValueError, RuntimeError
            If a tensor has the wrong number of axes, or the wrong size, as torch's cells do.
        """
        states = self._parts(hx)
        if not isinstance(input, Tensor):
            raise TypeError(f"input: expected a tensor, got {type(input).__name__}")
        lead = input.shape[:-1]
        shape = (*lead, self.hidden_size)
        self._check_shape(input, "input", (*lead, self.input_size))
        for part in states:
            self._check_shape(part, "hx", shape)
        self._check(input, states)
        new = (None,) * (3 - input.dim())  # one step, and perhaps one row
        _, states = self._compute(input[new], None, [part[new] for part in states])
        return self._state([part.view(shape) for part in states])

    def _check_shape(self, tensor: Tensor, name: str, shape: tuple[int, ...]) -> None:
        if tensor.dim() not in (1, 2):
            raise ValueError(f"{name}: expected 1-D or 2-D, got {tensor.dim()}-D")
        if tensor.shape != shape:
            raise RuntimeError(f"{name}: expected {shape}, got {tuple(tensor.shape)}")


class LSTMCell(Cell, torch.nn.LSTMCell):
    """``torch.nn.LSTMCell``, computed by fastlstm.

    Parameters
    ----------
    *args, **kwargs
        Those of ``torch.nn.LSTMCell``.

    Raises
    ------
    TypeError
        As ``torch.nn.LSTMCell`` does.

    Notes
    -----
    A step costs a whole call of a layer, and all weights are read to find out whether they have
    changed: more time than torch's own cell takes.  Where the inputs of all steps are known
    beforehand, call an `LSTM` once; for inference step by step, see `fastlstm.LSTM.stream`.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> cell = fastlstm.torch.LSTMCell(3, 4)
    >>> h, c = cell(torch.zeros(5, 3))
    >>> h, c = cell(torch.ones(5, 3), (h, c))
    >>> h.shape, c.shape
    (torch.Size([5, 4]), torch.Size([5, 4]))
    >>> h.sum().backward()
    >>> cell.weight_hh.grad.shape
    torch.Size([16, 4])
    """


class GRUCell(Cell, torch.nn.GRUCell):
    """``torch.nn.GRUCell``, computed by fastlstm.

    Parameters
    ----------
    *args, **kwargs
        Those of ``torch.nn.GRUCell``.

    Raises
    ------
    TypeError
        As ``torch.nn.GRUCell`` does.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> cell = fastlstm.torch.GRUCell(3, 4)
    >>> cell(torch.zeros(3)).shape
    torch.Size([4])
    """


class RNNCell(Cell, torch.nn.RNNCell):
    """``torch.nn.RNNCell``, computed by fastlstm.

    Parameters
    ----------
    *args, **kwargs
        Those of ``torch.nn.RNNCell``.

    Raises
    ------
    TypeError
        As ``torch.nn.RNNCell`` does.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> cell = fastlstm.torch.RNNCell(3, 4, nonlinearity="relu")
    >>> cell(torch.zeros(5, 3)).shape
    torch.Size([5, 4])
    """
