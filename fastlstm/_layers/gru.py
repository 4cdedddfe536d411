"""The gated recurrent unit."""

from __future__ import annotations

from typing import Any, ClassVar, Never

from numpy.typing import ArrayLike, DTypeLike

from fastlstm._layers.base import Layer
from fastlstm._layers.calls import Array
from fastlstm._layers.config import Arguments
from fastlstm._layers.forget_bias import Bias, ForgetBias
from fastlstm._layers.trace import GRUTrace


class GRU(Layer[Array, ArrayLike, GRUTrace]):
    r"""A stack of gated recurrent unit layers, on the CPU.

    As ``torch.nn.GRU``.  For each layer, direction and time step:

    .. math::

        r &= \sigma(W_r x_t + U_r h_{t-1} + b_r)    & z &= \sigma(W_z x_t + U_z h_{t-1} + b_z) \\
        n &= \tanh(W_n x_t + b_{in} + r \odot (U_n h_{t-1} + b_{hn}))
        & h_t &= (1 - z) \odot n + z \odot h_{t-1}

    Everything that `LSTM` offers holds for it, with one state: ``y, h_n = gru(x, h_0)``.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, seed
        As for `LSTM`.
    reset_after : bool, default True
        Whether r multiplies after the product with U_n, as above, in torch and in cuDNN; else it
        multiplies h before, as in ONNX's default and in the paper:
        :math:`n = \tanh(W_n x_t + b_{in} + U_n (r \odot h_{t-1}) + b_{hn})`.
    forget_bias, max_lag
        As for `LSTM`, of the update gate z, which keeps the state here.

    Attributes
    ----------
    parameters : Parameters
        ``weight_ih_l0`` (3H, I), ``weight_hh_l0`` (3H, H), ``bias_ih_l0`` and ``bias_hh_l0``
        (3H,), gates in the order r, z, n; and so on, as for `LSTM`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> gru = fastlstm.GRU(32, 64, num_layers=2, seed=0)
    >>> y, h_n = gru(np.zeros((100, 8, 32), np.float32))
    >>> y.shape, h_n.shape
    ((100, 8, 64), (2, 8, 64))
    """

    _TRACE = GRUTrace
    _OPTIONS: ClassVar[dict[str, Any]] = {"reset_after": True}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        reset_after: bool = True,
        forget_bias: Bias = None,
        max_lag: int | None = None,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        **options: Never,
    ) -> None:
        self._refuse(options)
        self.reset_after = bool(reset_after)
        self._cell = "gru" if self.reset_after else "gru_before"
        self._set_up(
            Arguments(
                input_size,
                hidden_size,
                num_layers,
                bias,
                batch_first,
                dropout,
                bidirectional,
                dtype,
                seed,
                ForgetBias.of(forget_bias, max_lag, bias),
            )
        )

    def _keeping_gates(self, is_drawn: bool) -> dict[int, int]:
        return {1: 1}
