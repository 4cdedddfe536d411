"""The plain recurrent cell."""

from __future__ import annotations

from typing import Any, ClassVar, Never

from numpy.typing import ArrayLike, DTypeLike

from fastlstm._layers.base import Layer
from fastlstm._layers.calls import Array
from fastlstm._layers.config import Arguments
from fastlstm._layers.trace import RNNTrace


class RNN(Layer[Array, ArrayLike, RNNTrace]):
    r"""A stack of plain recurrent layers, on the CPU.

    As ``torch.nn.RNN``.  For each layer, direction and time step, with f the tanh or
    max(0, .):

    .. math::

        h_t = f(W x_t + U h_{t-1} + b)

    Everything that `LSTM` offers holds for it, with one state: ``y, h_n = rnn(x, h_0)``.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, seed
        As for `LSTM`.
    nonlinearity : {"tanh", "relu"}

    Attributes
    ----------
    parameters : Parameters
        ``weight_ih_l0`` (H, I), ``weight_hh_l0`` (H, H), ``bias_ih_l0`` and ``bias_hh_l0`` (H,);
        and so on, as for `LSTM`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> rnn = fastlstm.RNN(32, 64, nonlinearity="relu", seed=0)
    >>> y, h_n = rnn(np.zeros((100, 8, 32), np.float32))
    >>> y.shape, h_n.shape
    ((100, 8, 64), (1, 8, 64))
    """

    _TRACE = RNNTrace
    _OPTIONS: ClassVar[dict[str, Any]] = {"nonlinearity": "tanh"}

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
        nonlinearity: str = "tanh",
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        **options: Never,
    ) -> None:
        self._refuse(options)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        self._cell = f"rnn_{nonlinearity}"
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
            )
        )
