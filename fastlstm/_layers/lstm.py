"""The LSTM, with all its options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.typing import ArrayLike, DTypeLike

from fastlstm import _validation
from fastlstm._layers import options as _options
from fastlstm._layers.base import Layer
from fastlstm._layers.calls import Array
from fastlstm._layers.config import Arguments
from fastlstm._layers.forget_bias import Bias, ForgetBias
from fastlstm._layers.trace import LSTMTrace


class LSTM(Layer[tuple[Array, Array], tuple[ArrayLike, ArrayLike], LSTMTrace]):
    r"""A stack of long short-term memory layers, on the CPU.

    Arguments, shapes and names are those of ``torch.nn.LSTM``.  For each layer, direction and
    time step, with :math:`\sigma(a) = 1/(1 + e^{-a})`:

    .. math::

        i &= \sigma(W_i x_t + U_i h_{t-1} + b_i)    & f &= \sigma(W_f x_t + U_f h_{t-1} + b_f) \\
        g &= \tanh(W_g x_t + U_g h_{t-1} + b_g)     & o &= \sigma(W_o x_t + U_o h_{t-1} + b_o) \\
        c_t &= f \odot c_{t-1} + i \odot g          & h_t &= o \odot \tanh(c_t)

    Results have the same bits whatever the batch, a row's place in it, the number of threads,
    the chunking of time and the instruction set (except the baseline one, for processors
    without fused multiply-add).  Only the sign and the payload of a NaN may differ.

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
        calling the layer is inference.  With one layer it has no effect, and a warning says so.
    bidirectional : bool, default False
        D = 2 directions, concatenated in the output; else D = 1.
    proj_size : int, default 0
        Units of a projection, P, less than H; 0: none.  Hidden states and outputs have Hout = P
        units then, else Hout = H.
    peephole : bool, default False
        Gates see the cell state too.
    coupled : bool, default False
        f = 1 - i, and no weights for f (CIFG), as ``input_forget`` of ONNX; TFLite has
        i = 1 - f.  For weights of TFLite, negate W, U, b and p of its forget gate: they are those
        of i here.
    layer_norm : bool, default False
        Each gate's sums have mean 0 and variance 1 over its H units before gain and bias.
    layer_norm_eps : float, default 1e-5
        What the layer norm adds to the variance, above 0: 1e-5 as ``torch.nn.LayerNorm``, 1e-8
        for weights of TFLite.  Only with `layer_norm`.
    cell_clip, preact_clip : float, optional
        Bounds of the cell state, as TensorFlow's ``cell_clip``, and of what the gates'
        functions are given, as ONNX's ``clip``.  Default: none.
    activations : sequence of 3 str or tuple, or of 6 if bidirectional
        Functions of the gates i, f and o, of the candidate g, and of the cell state: ONNX's
        eleven, ``sigmoid``, ``tanh``, ``relu``, ``affine``, ``leaky_relu``, ``thresholded_relu``,
        ``scaled_tanh``, ``hard_sigmoid``, ``elu``, ``softsign``, ``softplus``, or with their
        numbers (name, alpha, beta).
    zoneout : (float, float), default (0.0, 0.0)
        Rates at which units of h and of c stay as they were: at random in `forward`; a mean
        weighted by these rates when the layer is called.
    recurrent_dropout : float, default 0.0
        Rate of dropout on the hidden state that the gates read, with one mask for all steps of a
        call; in `forward` only.
    forget_bias : float or "chrono", optional
        The sum of both biases of the forget gate at first: 1 is the usual choice, and a gate with
        the bias b keeps the cell state for about exp(b) steps.  "chrono" draws such a time for each
        unit: b_f = log(u), with u uniform in [1, max_lag - 1], and b_i = -b_f, because what is kept
        for long is seldom written (Tallec and Ollivier, 2018).  If `coupled`, b_i = -b_f is all
        there is.  Default: as all other biases.
    max_lag : int, optional
        How many steps are to be remembered, at least 2; only with "chrono", which needs it.
    dtype : {"float32", "float64"}
        Of parameters, inputs and outputs.
    seed : int, optional
        Of the initial parameters, uniform within 1/sqrt(H), and of the dropout masks.

    Attributes
    ----------
    parameters : Parameters
        ``weight_ih_l0`` (4H, I), ``weight_hh_l0`` (4H, H), ``bias_ih_l0`` and ``bias_hh_l0``
        (4H,), gates in the order i, f, g, o (coupled: 3H, i, g, o); where there are any,
        ``weight_hr_l0`` (P, H), peepholes ``weight_ch_l0`` (3H,) in the order i, f, o (coupled: 2H)
        and gains ``weight_ln_l0`` (4H,), initially 1; so for every layer, and with the suffix
        ``_reverse`` for the second direction.  ``weight_hh`` has Hout columns.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    With all options, r the mask of recurrent dropout, N the norm and A the chosen functions:

    .. math::

        a_q &= W_q x_t + U_q (r \odot h_{t-1})     & a_i &\mathrel{+}= p_i \odot c_{t-1}, \quad
        a_f \mathrel{+}= p_f \odot c_{t-1}, \quad a_o \mathrel{+}= p_o \odot C_t \\
        z_q &= \mathrm{clip}(\gamma_q \odot N(a_q) + b_q)
        & q &= A_q(z_q), \quad f = 1 - i \text{ if coupled} \\
        C_t &= \mathrm{clip}(f \odot c_{t-1} + i \odot g)
        & c_t &= \zeta_c \odot c_{t-1} + (1 - \zeta_c) \odot C_t \\
        M_t &= W_{hr} (o \odot A_h(C_t))
        & h_t &= \zeta_h \odot h_{t-1} + (1 - \zeta_h) \odot M_t

    N divides by the square root of the variance plus `layer_norm_eps`; with 1e-8 it is TFLite's
    norm: gate by gate, after the peephole, bias afterwards, the cell state itself is not normed.
    (With 1e-5, outputs differ from TFLite's by 1e-3 and more where the gates' sums are small.)
    Haste's is another one: over all 4H sums at once, of W x and of U h apart, and of the cell
    state.  All this is in NumPy in `fastlstm.reference`.

    Memory beside parameters and results: a packed copy of the weights, a second one once
    `forward` was called, and a work space.  The two largest work spaces and the two largest tapes
    are kept for the calls to come, until the layer is deleted.  In values, with H' hidden units
    rounded up to whole vectors, a work space has at most

    * inference: ``min(L-1, 2) * C*B*D*H`` between layers, where C steps are 128 KiB of one layer's
      output or one step (T steps if D = 2), and for each thread, if it has less than 6 rows b,
      ``C'*b*4H'`` where C' is 24 steps or, if they are more, as many as are 128 KiB;
    * `forward`: the second of these, and the tape (`Tape.nbytes`);
    * `backward`: ``min(L-1, 2) * T*B*D*H`` between layers, ``2*max(256, B)*4H`` gradients of gates,
      and ``256*(I' + H')`` inputs of weight gradients;
    * with options, outputs have Hout instead of H, and there are more: for inference ``B*4H'`` with
      a layer norm, ``B*H`` with a projection; for recurrent dropout ``2*B*Hout``; for zoneout
      ``6*H`` for each thread; for `backward` P + 8H + 4H beside each 4H (projection, norm,
      peephole), ``256*H'`` inputs (projection) and ``B*H'`` gradients (norm).

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

    _TRACE = LSTMTrace
    peephole: bool
    coupled: bool
    layer_norm: bool
    layer_norm_eps: float = 1e-5  # also of a layer that was pickled when there was no such option
    cell_clip: float | None
    preact_clip: float | None
    activations: tuple[_options.Activation, ...]
    zoneout: tuple[float, float]
    _OPTIONS: ClassVar[dict[str, Any]] = {
        name: option.default for name, option in _options.LSTM_OPTIONS.items()
    }

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
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        layer_norm_eps: float = 1e-5,
        cell_clip: float | None = None,
        preact_clip: float | None = None,
        activations: Sequence[_options.Activation] = _options.USUAL,
        zoneout: tuple[float, float] = (0.0, 0.0),
        recurrent_dropout: float = 0.0,
        forget_bias: Bias = None,
        max_lag: int | None = None,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        arguments = locals()
        for name, option in _options.LSTM_OPTIONS.items():
            setattr(self, name, option.check(arguments[name], name))
        self._check_together(_validation.integer(hidden_size, "hidden_size", 1), bidirectional)
        plain = all(
            option.plain or getattr(self, name) == option.default
            for name, option in _options.LSTM_OPTIONS.items()
        )
        self._cell = "lstm" if plain else "lstm_options"
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

    @property
    def _gates(self) -> int:
        return super()._gates - self.coupled

    def _keeping_gates(self, is_drawn: bool) -> dict[int, int]:
        if self.coupled:  # f = 1 - sigmoid(z) is sigmoid(-z)
            return {0: -1}
        return {0: -1, 1: 1} if is_drawn else {1: 1}

    def _check_together(self, hidden_size: int, bidirectional: bool) -> None:
        if self.proj_size >= hidden_size:
            raise ValueError(
                f"proj_size: expected less than hidden_size, {hidden_size}, got {self.proj_size}"
            )
        if not self.layer_norm and self.layer_norm_eps != self._OPTIONS["layer_norm_eps"]:
            raise ValueError(
                "layer_norm_eps: expected layer_norm=True with it, "
                f"got {self.layer_norm_eps} and no layer norm"
            )
        if len(self.activations) == 6 and not bidirectional:
            raise ValueError(
                "activations: expected 3 functions (gates, candidate, cell state), "
                f"got {self.activations!r}"
            )

    def _cell_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        shapes = super()._cell_shapes(inputs)
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        if self.peephole:
            shapes["weight_ch"] = ((self._gates - 1) * self.hidden_size,)
        if self.layer_norm:
            shapes["weight_ln"] = (self._gates * self.hidden_size,)
        return shapes

    def _core_options(self) -> _options.Options | None:
        if self._cell == "lstm":
            return None
        return _options.Options(
            self.peephole,
            self.coupled,
            self.layer_norm,
            self.layer_norm_eps,
            math.inf if self.preact_clip is None else self.preact_clip,
            math.inf if self.cell_clip is None else self.cell_clip,
            self.zoneout,
            _options.functions(self.activations, self._directions),
        )
