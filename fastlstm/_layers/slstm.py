"""xLSTM's scalar cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Never, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastlstm import _validation
from fastlstm._layers import xlstm
from fastlstm._layers.base import Layer
from fastlstm._layers.calls import Array
from fastlstm._layers.config import Arguments
from fastlstm._layers.forget_bias import ForgetBias
from fastlstm._layers.trace import SLSTMTrace

State = tuple[Array, Array, Array, Array]
StateLike = tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]

_FORGET_BIAS = (3.0, 6.0)  # of the first and the last unit of a head


class SLSTM(Layer[State, StateLike, SLSTMTrace]):
    r"""A stack of sLSTM layers, the scalar cell of xLSTM, on the CPU.

    Its input gate is an exponential, so that what comes late can outweigh all that came before,
    and its cell state is a weighted mean: :math:`c / n`, where the normalizer n is the sum of the
    weights.  The units are cut into heads; U leads from each head to itself alone.  For each layer,
    direction and time step:

    .. math::

        a_q &= W_q x_t + U_q h_{t-1} + b_q \quad (q = i, f, z, o)
        & k &= m_{t-1} + \log \sigma(a_f) \\
        m_t &= \max(a_i, k) & i &= e^{a_i - m_t}, \quad f = e^{k - m_t} \\
        c_t &= f \odot c_{t-1} + i \odot \tanh(a_z) & n_t &= f \odot n_{t-1} + i \\
        h_t &= \sigma(a_o) \odot c_t / n_t

    The stabilizer m is what c and n are divided by, as a logarithm: h does not depend on it, and
    neither overflows.  Where n is 0, in a state of zeros above all, nothing is kept yet, and m is
    :math:`a_i`, with f at most 1.  It is asked unit by unit, so no row depends on another.

    It has the methods of `LSTM`, not its options, and four states:
    ``y, (h_n, c_n, n_n, m_n) = slstm(x, (h_0, c_0, n_0, m_0))``, each (L*D, B, H), the initial ones
    zeros.  The same bits for any batch, number of threads, chunks and instruction set.  Gradients
    are exact, those of all four states included.  Where :math:`a_i = k` they are those of
    :math:`m = a_i`, and that m depends on whether n is 0 is not differentiated.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, seed
        As for `LSTM`; `hidden_size` is a multiple of `num_heads`.
    num_heads : int, default 4
        Parts of the hidden units.

    Attributes
    ----------
    parameters : Parameters
        ``weight_ih_l0`` (4H, I), ``weight_hh_l0`` (4H, H/num_heads) and ``bias_ih_l0`` (4H,), gates
        in the order i, f, z, o; and so on, as for `LSTM`.  Row q*H + u of ``weight_hh_l0`` has the
        weights of unit u from the units of its head, in their order.  There is one vector of
        biases, as in xLSTM: the second one of torch's LSTM only adds to it.

        They begin uniform within 1/sqrt(H), those of U within 1/sqrt(H/num_heads); biases begin at
        0, except those of the forget gate, which rise from 3 to 6 within each head: so its units
        keep some 20 to 400 steps.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> slstm = fastlstm.SLSTM(32, 64, num_heads=4, seed=0)
    >>> y, (h_n, c_n, n_n, m_n) = slstm(np.zeros((100, 8, 32), np.float32))
    >>> y.shape, n_n.shape
    ((100, 8, 64), (1, 8, 64))
    """

    _TRACE = SLSTMTrace
    _OPTIONS: ClassVar[dict[str, Any]] = {"num_heads": 4}
    _cell = "slstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        num_heads: int = 4,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        **options: Never,
    ) -> None:
        self._refuse(options)
        self.num_heads = _validation.integer(num_heads, "num_heads", 1)
        if _validation.integer(hidden_size, "hidden_size", 1) % self.num_heads:
            raise ValueError(
                f"hidden_size: expected a multiple of num_heads, {self.num_heads}, "
                f"got {hidden_size}"
            )
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

    def _initialize(self, generator: np.random.Generator, forget: ForgetBias | None) -> None:
        super()._initialize(generator, forget)
        units, heads = self.hidden_size, self.num_heads
        biases = np.zeros((4, heads, units // heads))
        biases[1] = np.linspace(*_FORGET_BIAS, units // heads)
        for name in self.parameters:
            if name.startswith("weight_hh"):
                self.parameters[name] = self.parameters[name] * heads**0.5
            elif name.startswith("bias"):
                self.parameters[name] = biases.reshape(-1)

    @classmethod
    def _options_in(cls, mapping: Mapping[str, Any]) -> dict[str, Any]:
        options = super()._options_in(mapping)
        shape = np.shape(mapping["weight_hh_l0"])
        if len(shape) != 2 or not all(shape) or shape[0] % (4 * shape[1]):
            got = _validation.shape_text(shape)
            raise ValueError(f"weight_hh_l0: expected (4 * H, H / num_heads), got {got}")
        units = shape[0] // 4
        return options | {"hidden_size": units, "num_heads": units // shape[1]}

    @classmethod
    def from_torch(cls, source: Any, **options: Any) -> Self:
        """Make a layer of a mapping with the names and shapes of `state_dict`; torch has no sLSTM.

        See `from_xlstm` for modules.

        Parameters
        ----------
        source : mapping of str to array or tensor
        **options
            Constructor arguments to set or to override, such as ``batch_first``.

        Raises
        ------
        TypeError, ValueError
            If `source` is no such mapping.
        """
        if not isinstance(source, Mapping):
            got = type(source).__name__
            raise TypeError(
                f"source: expected a mapping, got {got}; torch has no sLSTM, see SLSTM.from_xlstm"
            )
        return super().from_torch(source, **options)

    @classmethod
    def from_xlstm(cls, source: Any, **options: Any) -> Self:
        """Make a layer of an sLSTM layer or cell of the package xlstm.

        Of a layer (``sLSTMLayer``) the four products of each head with its own inputs become one
        matrix, with zeros elsewhere.  Its group norm and its dropout are no part of the cell: `y`
        is what they are given.  One with a convolution is refused.  In its layers xlstm
        has the names ``fgate`` and ``igate`` swapped; each weight is loaded into the gate it feeds.

        A cell (``sLSTMCell``) reads sums of gates, (B, T, 4H) in the order i, f, z, o; it becomes a
        layer whose ``weight_ih_l0`` is the unit matrix, ``input_size`` 4H.

        Parameters
        ----------
        source : module of xlstm, or mapping of str to array or tensor
            A mapping is the state dictionary of such a module, of either of its backends; neither
            xlstm nor torch is needed for it.
        **options
            Constructor arguments to set or to override.  The default of ``batch_first`` is True, as
            in xlstm, that of ``dtype`` float64 if any of the weights is, else float32.

        Raises
        ------
        TypeError, ValueError
            If `source` is neither, or has other names or shapes than these.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> names = ["fgate.weight", "igate.weight", "zgate.weight", "ogate.weight"]
        >>> mapping = dict.fromkeys(names, np.ones((2, 3, 3), np.float32))
        >>> mapping["slstm_cell._recurrent_kernel_"] = np.zeros((2, 12, 3), np.float32)
        >>> mapping["slstm_cell._bias_"] = np.zeros(24, np.float32)
        >>> fastlstm.SLSTM.from_xlstm(mapping)
        SLSTM(6, 6, batch_first=True, num_heads=2)
        """
        weights = xlstm.weights_of(source)
        return cls.from_torch(weights, **{"batch_first": True, **options})
