"""The layers of `fastlstm` in NumPy: the same constructors, calls, names and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastlstm.reference import cells
from fastlstm.reference.activations import Entry, activation
from fastlstm.reference.cells import Array
from fastlstm.reference.options import (
    Masks,
    Options,
    OptionsSaved,
    Parameters,
    options_backward,
    options_forward,
)
from fastlstm.reference.slstm import slstm_backward, slstm_forward
from fastlstm.reference.stack import OneState, Stack, State, StateLike, Tape, as_float64


class LSTM(Stack):
    """`fastlstm.LSTM` in NumPy: the same constructor, calls, names and shapes; float64 only.

    `dropout`, `recurrent_dropout` and `zoneout` draw nothing here: `forward` takes the masks.
    `dtype` is ignored.  Weights are uniform in +-1/sqrt(hidden_size), drawn from
    ``default_rng(seed)`` in the order of their names; the gains of the layer norm are 1.

    Attributes
    ----------
    parameters : dict of str to array
        ``weight_ih_l0`` [G*H, I], ``weight_hh_l0`` [G*H, P], ``bias_ih_l0`` and ``bias_hh_l0``
        [G*H], of which only the sum counts; with the options ``weight_hr_l0`` [P, H],
        ``weight_ch_l0`` [3*H] or, if coupled, [2*H], and ``weight_ln_l0`` [G*H]; then those of
        the reverse direction (suffix ``_reverse``) and of the layers above, which read D*P
        features.  G is 4, or 3 if coupled; P is `proj_size`, or H if that is 0.

    Examples
    --------
    >>> lstm = LSTM(3, 2, seed=1)
    >>> y, (h_n, c_n) = lstm(np.ones((5, 4, 3)))
    >>> y.shape, h_n.shape
    ((5, 4, 2), (1, 4, 2))
    >>> list(LSTM(3, 2, bias=False, proj_size=1, peephole=True).parameters)
    ['weight_ih_l0', 'weight_hh_l0', 'weight_hr_l0', 'weight_ch_l0']
    """

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
        activations: Sequence[Entry] = ("sigmoid", "tanh", "tanh"),
        zoneout: tuple[float, float] = (0.0, 0.0),
        recurrent_dropout: float = 0.0,
        dtype: Any = "float64",
        seed: int | None = None,
    ) -> None:
        self.gates = 3 if coupled else 4
        self.proj_size, self.peephole, self.layer_norm = proj_size, peephole, layer_norm
        self.zoneout, self.recurrent_dropout = zoneout, recurrent_dropout
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            seed=seed,
        )
        D = len(self.suffixes)
        if len(activations) not in (3, 3 * D):
            raise ValueError(f"activations: expected 3 for each direction, got {len(activations)}")
        cell_clip = np.inf if cell_clip is None else cell_clip
        preact_clip = np.inf if preact_clip is None else preact_clip
        functions = [activation(entry) for entry in activations] * D
        self.options = [
            Options(coupled, cell_clip, preact_clip, layer_norm_eps, *functions[3 * d : 3 * d + 3])
            for d in range(D)
        ]
        own_weights = proj_size or peephole or layer_norm
        noisy = max(zoneout) > 0 or recurrent_dropout > 0
        self.plain = not own_weights and not noisy and self.options == [Options()] * D
        for name in self.parameters:
            if name.startswith("weight_ln"):
                self.parameters[name][:] = 1

    def _cell_shapes(self, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        H = self.hidden_size
        yield from super()._cell_shapes(width)
        if self.proj_size:
            yield "weight_hr", (self.proj_size, H)
        if self.peephole:
            yield "weight_ch", ((self.gates - 1) * H,)
        if self.layer_norm:
            yield "weight_ln", (self.gates * H,)

    def forward(
        self,
        x: ArrayLike,
        state: StateLike = None,
        *,
        masks: Sequence[ArrayLike] | None = None,
        recurrent_masks: Sequence[ArrayLike] | None = None,
        zoneout_masks: Sequence[tuple[ArrayLike, ArrayLike]] | None = None,
    ) -> tuple[Array, State, Tape]:
        """Run the sequence and keep what `backward` needs.

        Parameters
        ----------
        x : [T, B, I], with `batch_first` [B, T, I], or unbatched [T, I]
        state : (h_0, c_0), [L*D, B, P] and [L*D, B, H], without B if unbatched; default zeros
        masks : what the output of every layer but the last is multiplied by, each [T, B, D*P]
            with time first: 0 where dropped, 1/(1 - dropout) elsewhere
        recurrent_masks : for each layer and direction what h_(t-1) is multiplied by before U,
            [B, P]: 0 or 1/(1 - recurrent_dropout)
        zoneout_masks : for each layer and direction a pair, of h [T, B, P] and c [T, B, H] with
            time first (in the reverse direction too): 1 where the state of the step before is kept

        Returns
        -------
        y : [T, B, D*P], laid out like x
        (h_n, c_n) : laid out like state
        tape : for `backward`
        """
        LD = self.num_layers * len(self.suffixes)
        if recurrent_masks is None and self.recurrent_dropout > 0:
            raise ValueError(f"recurrent_masks: expected {LD} arrays, got None")
        if zoneout_masks is None and max(self.zoneout) > 0:
            raise ValueError(f"zoneout_masks: expected {LD} pairs of arrays, got None")
        extras = self._extras(x, recurrent_masks, zoneout_masks)
        return self._run(x, state, self._required(masks), extras)

    def _extras(
        self,
        x: ArrayLike,
        recurrent_masks: Sequence[ArrayLike] | None = None,
        zoneout_masks: Sequence[tuple[ArrayLike, ArrayLike]] | None = None,
    ) -> list[Any]:
        """Options and masks; masks that are not given are those of inference."""
        D, P, H = len(self.suffixes), self.output_size, self.hidden_size
        LD = self.num_layers * D
        T, B, _ = self._time_first(self._input(x)).shape
        if self.plain and recurrent_masks is None and zoneout_masks is None:
            return super()._extras(x)
        if recurrent_masks is None:
            recurrent_masks = [np.ones((B, P))] * LD
        if zoneout_masks is None:
            rate_h, rate_c = self.zoneout
            pair = (np.full((T, B, P), rate_h), np.full((T, B, H), rate_c))
            zoneout_masks = [pair] * LD
        for name, given in (("recurrent", recurrent_masks), ("zoneout", zoneout_masks)):
            if len(given) != LD:
                raise ValueError(f"{name}_masks: expected {LD} entries, got {len(given)}")
        extras = []
        for k, (r, (zh, zc)) in enumerate(zip(recurrent_masks, zoneout_masks, strict=True)):
            step = -1 if self.suffixes[k % D] else 1
            r = as_float64(f"recurrent_masks[{k}]", r, (B, P))
            zh = as_float64(f"zoneout_masks[{k}][0]", zh, (T, B, P))
            zc = as_float64(f"zoneout_masks[{k}][1]", zc, (T, B, H))
            extras.append((self.options[k % D], Masks(r, zh[::step], zc[::step])))
        return extras

    def _cell_forward(
        self, x: Array, state: State, w: Parameters, extra: Any
    ) -> tuple[Array, State, Any]:
        h, c = state
        if extra is not None:
            return options_forward(x, h, c, w, *extra)
        b = w["bias_ih"] + w["bias_hh"]
        return cells.lstm_forward(x, h, c, w["weight_ih"], w["weight_hh"], b)

    def _cell_backward(
        self, saved: Any, dy: Array, *dstate: Array
    ) -> tuple[Array, State, Parameters]:
        dh, dc = dstate
        if isinstance(saved, OptionsSaved):
            dx, dh, dc, dw = options_backward(saved, dy, dh, dc)
            return dx, (dh, dc), dw
        dx, dh, dc, dw_ih, dw_hh, db = cells.lstm_backward(saved, dy, dh, dc)
        return dx, (dh, dc), by_kind(dw_ih, dw_hh, db, db)


class GRU(OneState):
    """`fastlstm.GRU` in NumPy, as `LSTM` is `fastlstm.LSTM`.

    Examples
    --------
    >>> y, h_n = GRU(3, 2, seed=1)(np.ones((5, 4, 3)))
    >>> y.shape, h_n.shape
    ((5, 4, 2), (1, 4, 2))
    """

    gates = 3

    def __init__(
        self, input_size: int, hidden_size: int, *args: Any, reset_after: bool = True, **kw: Any
    ) -> None:
        self.reset_after = reset_after
        super().__init__(input_size, hidden_size, *args, **kw)

    def _cell_forward(
        self, x: Array, state: State, w: Parameters, extra: Any
    ) -> tuple[Array, State, Any]:
        run: Any = cells.gru_forward if self.reset_after else cells.gru_before_forward
        y, h, saved = run(x, *state, w["weight_ih"], w["weight_hh"], w["bias_ih"], w["bias_hh"])
        return y, (h,), saved

    def _cell_backward(
        self, saved: Any, dy: Array, *dstate: Array
    ) -> tuple[Array, State, Parameters]:
        run: Any = cells.gru_backward if self.reset_after else cells.gru_before_backward
        dx, dh, *of_weights = run(saved, dy, *dstate)
        return dx, (dh,), by_kind(*of_weights)


class RNN(OneState):
    """`fastlstm.RNN` in NumPy, as `LSTM` is `fastlstm.LSTM`.

    Examples
    --------
    >>> y, h_n = RNN(3, 2, nonlinearity="relu", seed=1)(np.ones((5, 4, 3)))
    >>> y.shape, h_n.shape
    ((5, 4, 2), (1, 4, 2))
    """

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, *args: Any, nonlinearity: str = "tanh", **kw: Any
    ) -> None:
        self.relu = nonlinearity == "relu"
        super().__init__(input_size, hidden_size, *args, **kw)

    def _cell_forward(
        self, x: Array, state: State, w: Parameters, extra: Any
    ) -> tuple[Array, State, Any]:
        b = w["bias_ih"] + w["bias_hh"]
        (h,) = state
        y, h, saved = cells.rnn_forward(x, h, w["weight_ih"], w["weight_hh"], b, self.relu)
        return y, (h,), saved

    def _cell_backward(
        self, saved: Any, dy: Array, *dstate: Array
    ) -> tuple[Array, State, Parameters]:
        (dh,) = dstate
        dx, dh, dw_ih, dw_hh, db = cells.rnn_backward(saved, dy, dh)
        return dx, (dh,), by_kind(dw_ih, dw_hh, db, db)


class SLSTM(Stack):
    """`fastlstm.SLSTM` in NumPy, as `LSTM` is `fastlstm.LSTM`.

    Its ``weight_hh_l0`` is [4*H, H/num_heads], and it has no ``bias_hh_l0``.

    Examples
    --------
    >>> y, (h_n, c_n, n_n, m_n) = SLSTM(3, 4, num_heads=2, seed=1)(np.ones((5, 6, 3)))
    >>> y.shape, m_n.shape
    ((5, 6, 4), (1, 6, 4))
    """

    gates = 4
    states = ("h", "c", "n", "m")

    def __init__(
        self, input_size: int, hidden_size: int, *args: Any, num_heads: int = 4, **kw: Any
    ) -> None:
        self.num_heads = num_heads
        super().__init__(input_size, hidden_size, *args, **kw)

    def _cell_shapes(self, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        G = self.gates * self.hidden_size
        yield "weight_ih", (G, width)
        yield "weight_hh", (G, self.hidden_size // self.num_heads)
        if self.bias:
            yield "bias_ih", (G,)

    def _cell_forward(
        self, x: Array, state: State, w: Parameters, extra: Any
    ) -> tuple[Array, State, Any]:
        return slstm_forward(x, state, w["weight_ih"], w["weight_hh"], w["bias_ih"])

    def _cell_backward(
        self, saved: Any, dy: Array, *dstate: Array
    ) -> tuple[Array, State, Parameters]:
        dx, dstate, dw_ih, dw_hh, db = slstm_backward(saved, dy, dstate)
        return dx, dstate, {"weight_ih": dw_ih, "weight_hh": dw_hh, "bias_ih": db}


def by_kind(*of_weights: Array) -> Parameters:
    """The gradients of what every cell has."""
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return dict(zip(kinds, of_weights, strict=True))
