"""The layers: LSTM, GRU and RNN."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import ArrayLike, DTypeLike

from fastlstm import _arrays
from fastlstm._layer import Array, Layer, Pair, TraceKind
from fastlstm._trace import GRUTrace, LSTMTrace, RNNTrace, places

# What a state is made of, and what its gradient is called.
_NAMES = {False: ("h_0", "c_0"), True: ("dh_n", "dc_n")}


class LSTM(Layer[Pair, tuple[ArrayLike, ArrayLike], LSTMTrace]):
    r"""A stack of long short-term memory layers, on the CPU.

    Arguments, shapes and names are those of ``torch.nn.LSTM``.  For each layer, direction and
    time step, with :math:`\sigma(a) = 1/(1 + e^{-a})`:

    .. math::

        i &= \sigma(W_i x_t + U_i h_{t-1} + b_i)    & f &= \sigma(W_f x_t + U_f h_{t-1} + b_f) \\
        g &= \tanh(W_g x_t + U_g h_{t-1} + b_g)     & o &= \sigma(W_o x_t + U_o h_{t-1} + b_o) \\
        c_t &= f \odot c_{t-1} + i \odot g          & h_t &= o \odot \tanh(c_t)

    Results have the same bits whatever the batch, a row's place in it, the number of threads,
    the chunking of time and the instruction set (except the baseline one, for processors
    without fused multiply-add).

    Parameters
    ----------
    input_size : int
        Features of the input, I.
    hidden_size : int
        Hidden units of each layer and direction, H.
    num_layers : int, default 1
        Layers, L; each reads the output of the one below.
    bias : bool, default True
    batch_first : bool, default False
        `x` and `y` are (B, T, ...) instead of (T, B, ...).  States are not affected.
    dropout : float, default 0.0
        Rate of dropout on the output of every layer but the last; in `forward` only, because
        calling the layer is inference.
    bidirectional : bool, default False
        D = 2 directions, concatenated in the output; else D = 1.
    proj_size : int, default 0
        Must be 0: projections are not available yet.
    dtype : {"float32", "float64"}
        Of parameters, inputs and outputs.
    seed : int, optional
        Of the initial parameters, uniform within 1/sqrt(H), and of the dropout masks.

    Attributes
    ----------
    parameters : Parameters
        ``weight_ih_l0`` (4H, I), ``weight_hh_l0`` (4H, H), ``bias_ih_l0`` and ``bias_hh_l0``
        (4H,), gates in the order i, f, g, o; so for every layer, and with the suffix
        ``_reverse`` for the second direction.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    Memory beside parameters and results: a packed copy of the weights, a second one once
    `backward` was called, and a work space that is kept between calls and shared by them.  In
    values, with H' hidden units rounded up to whole vectors, it has at most

    * inference: min(L-1, 2) * C*B*D*H between layers, where C steps are 128 KiB of one layer's
      output or one step (T steps if D = 2), and for each thread, if it has less than 6 rows b,
      C'*b*4H' where C' is 24 steps or, if they are more, as many as are 128 KiB;
    * `forward`: the second of these, and the tape (`Tape.nbytes`);
    * `backward`: min(L-1, 2) * T*B*D*H between layers, 2*max(256, B)*4H gradients of gates, and
      256*(I' + H') inputs of weight gradients.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> lstm = fastlstm.LSTM(32, 64, num_layers=2, seed=0)
    >>> x = np.zeros((100, 8, 32), np.float32)
    >>> y, (h_n, c_n) = lstm(x)
    >>> y.shape, h_n.shape, c_n.shape
    ((100, 8, 64), (2, 8, 64), (2, 8, 64))
    """

    _GATES = 4
    _TRACE = LSTMTrace
    _PLACES = places(LSTMTrace)
    _OPTIONS: ClassVar[dict[str, Any]] = {"proj_size": 0}
    _cell = "lstm"

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
        proj_size: int = 0,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        if _arrays.integer(proj_size, "proj_size", 0) > 0:
            raise ValueError(f"proj_size: expected 0 (not available yet), got {proj_size}")
        self.proj_size = 0
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            seed=seed,
        )

    def _state_pair(
        self, value: Any, name: str, shape: tuple[int, ...], *, gradient: bool = False
    ) -> Pair:
        return _arrays.state(value, name, _NAMES[gradient], shape, self.dtype)

    def _state_of(self, h: Array, c: Array, *, gradient: bool = False) -> Pair:
        return h, c


class _OneState(Layer[Array, ArrayLike, TraceKind]):
    """A cell whose only state is h: for the core, c is a second copy of it.

    The gradient of c is then a part of that of h.
    """

    def _state_pair(
        self, value: Any, name: str, shape: tuple[int, ...], *, gradient: bool = False
    ) -> Pair:
        return _arrays.one_state(value, _NAMES[gradient][0], shape, self.dtype, not gradient)

    def _state_of(self, h: Array, c: Array, *, gradient: bool = False) -> Array:
        return h + c if gradient else h


class GRU(_OneState[GRUTrace]):
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
        Must be true: r multiplies after the product with U_n, as in torch and cuDNN.  The other
        form, in which r multiplies h before it, is not available yet.

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

    _GATES = 3
    _TRACE = GRUTrace
    _PLACES = places(GRUTrace)
    _OPTIONS: ClassVar[dict[str, Any]] = {"reset_after": True}
    _cell = "gru"

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
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        if not reset_after:
            raise ValueError("reset_after: expected True (False is not available yet), got False")
        self.reset_after = True
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            seed=seed,
        )


class RNN(_OneState[RNNTrace]):
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

    _GATES = 1
    _TRACE = RNNTrace
    _PLACES = places(RNNTrace)
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
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        self._cell = f"rnn_{nonlinearity}"
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            seed=seed,
        )
