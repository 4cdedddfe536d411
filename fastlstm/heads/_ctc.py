"""Connectionist temporal classification: rows of symbols that are shorter than their input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm import _validation
from fastlstm._core import ctc, ctc_beam, library, memory
from fastlstm._core.threads import chosen_isa, get_num_threads
from fastlstm.heads._rows import Rows, ends, read_rows
from fastlstm.heads._softmax import log_softmax

Array = NDArray[Any]
PrefixModel = Callable[[tuple[int, ...]], ArrayLike]

_scratch = library.BufferCache()
_MOST_BONUS = 100  # beyond, a symbol could be more than a double holds


def ctc_loss(
    logits: ArrayLike,
    targets: ArrayLike,
    input_lengths: ArrayLike | None = None,
    target_lengths: ArrayLike | None = None,
    blank: int = 0,
    zero_infinity: bool = False,
) -> tuple[Array, Array]:
    r"""Return -log p(target) of each row, and the gradient of the sum of all.

    At each step of a row the softmax y of the logits says which symbol, or the blank, is there.  A
    path of one symbol a step stands for the symbols that are left when repeats are counted once and
    then blanks dropped, and

    .. math::

        p(\text{target}) = \sum_{\text{paths of the target}} \prod_t y_{t, \text{path}_t}

    as ``torch.nn.functional.ctc_loss`` has it, of `logits` rather than their ``log_softmax``.

    Parameters
    ----------
    logits : (T, B, K) array of float32 or float64, or (T, K) of a single row
        Scores of the K symbols, such as a linear layer makes them of the outputs of an LSTM.
    targets : (B, S) array of integers, or (S,)
        Symbols from 0 to K - 1 that are not the blank; what is beyond `target_lengths` is not read.
    input_lengths : (B,) array of integers, optional
        How many steps each row has, from 0 to T.  Default: T.
    target_lengths : (B,) array of integers, optional
        How many symbols each target has, from 0 to S.  Default: S.
    blank : int, default 0
    zero_infinity : bool, default False
        Count rows without any path, whose loss is infinite, as 0.

    Returns
    -------
    nll : (B,) array, or a number, of the type of the logits
        Infinity if no path stands for the target: it is longer than the input, one step more
        needed for each symbol that follows itself, or impossible, where logits are -inf.
    dlogits : (T, B, K) array, or (T, K)
        Gradient of the sum of `nll`; 0 beyond the end of a row, and in rows without any path, with
        `zero_infinity` or without.

    Raises
    ------
    TypeError, ValueError
        If an array has the wrong dtype or shape, a symbol or a length is out of range, or a target
        has the blank.

    Notes
    -----
    Results do not depend on the number of threads and, on all instruction sets with fused
    multiply-adds, have the same bits; those of a row do not depend on the other rows of the batch.

    Examples
    --------
    Two steps, and a target of one symbol: its paths are 1 1, 0 1 and 1 0.

    >>> import numpy as np
    >>> nll, dlogits = ctc_loss(np.zeros((2, 1, 2)), [[1]])
    >>> np.exp(-nll).round(6)
    array([0.75])
    >>> dlogits[:, 0].round(6)
    array([[ 0.166667, -0.166667],
           [ 0.166667, -0.166667]])

    One that does not fit:

    >>> ctc_loss(np.zeros((2, 1, 2)), [[1, 1]])[0]
    array([inf])
    """
    rows = read_rows(logits, "logits", input_lengths, None, lengths_name="input_lengths")
    T, B, K = rows.values.shape
    blank = _validation.integer(blank, "blank", 0, K - 1)
    symbols = _targets(targets, rows)
    counts = ends(target_lengths, "target_lengths", symbols.shape[1], rows)
    _check_symbols(symbols, counts, K, blank)
    dtype = rows.values.dtype
    nll = np.where(counts > 0, np.inf, 0).astype(dtype)  # of rows without steps
    dlogits = memory.empty((T, B, K), dtype)
    if rows.values.size:
        padded = symbols if symbols.size else np.zeros((B, 1), np.intp)
        ctc.loss(
            *(chosen_isa(), _scratch, rows.values, rows.lengths, padded, counts, blank),
            *(nll, dlogits, get_num_threads()),
        )
    if zero_infinity:
        nll[np.isinf(nll)] = 0
    return rows.out(nll, 0), rows.out(dlogits)


def _targets(value: ArrayLike, rows: Rows) -> Array:
    """(B, S) of intp, contiguous."""
    array = _validation.indices(value, "targets")
    B = rows.values.shape[1]
    if array.ndim != 1 + rows.is_batch or (rows.is_batch and len(array) != B):
        expected = f"({B}, S)" if rows.is_batch else "(S,)"
        got = _validation.shape_text(array.shape)
        raise ValueError(f"targets: expected {expected}, got {got}")
    return array.reshape(B, -1 if array.size else 0)


def _check_symbols(symbols: Array, counts: Array, K: int, blank: int) -> None:
    """Refuse targets that no path can stand for."""
    inside = np.arange(symbols.shape[1]) < counts[:, None]
    if wrong := symbols[inside & ((symbols < 0) | (symbols >= K))].tolist():
        raise ValueError(f"targets: expected symbols from 0 to {K - 1}, got {wrong[0]}")
    if (blanks := np.argwhere(inside & (symbols == blank))).size:
        place = tuple(blanks[0].tolist())
        raise ValueError(f"targets: expected no blank, {blank}, got one at {place}")


def ctc_decode(
    logits: ArrayLike,
    lengths: ArrayLike | None = None,
    beam: int = 1,
    model: PrefixModel | None = None,
    *,
    blank: int = 0,
    model_weight: float = 1.0,
    symbol_bonus: float = 0.0,
) -> list[Array] | Array:
    r"""Return the symbols that rows of logits stand for.

    With a beam of 1, no model and no bonus they are those of the most probable path.  Otherwise it
    looks for the most probable symbols, summed over all their paths, by prefix beam search, and can
    be told by a model of the symbols which ones follow each other: what it maximizes is

    .. math::

        \log p(\text{symbols} \mid \text{logits})
        + w \sum_i \log p_{\text{model}}(s_i \mid s_1 \dots s_{i-1}) + n \beta

    Parameters
    ----------
    logits : (T, B, K) array of float32 or float64, or (T, K) of a single row
    lengths : (B,) array of integers, optional
        How many steps each row has, from 0 to T.  Default: T.
    beam : int, default 1
        How many prefixes are kept after each step.
    model : callable, optional
        Takes a prefix, a tuple of symbols; returns (K,) log-probabilities of what comes next, of
        which that of the blank is not read.  It is asked for each prefix when that enters the beam,
        and has been asked for the prefix without its last symbol before: a model with a state can
        keep that by prefix.  A table of bigrams is
        ``lambda prefix: table[prefix[-1]] if prefix else first``; `LanguageModel.prefix_model`
        makes one of a language model.
    blank : int, default 0
    model_weight : float, default 1
        w, how much the model counts.
    symbol_bonus : float, default 0
        Added for each symbol; a positive value makes up for a model's bias to short texts.

    Returns
    -------
    list of B arrays of integers, or an array

    Raises
    ------
    TypeError, ValueError
        If an array has the wrong dtype or shape, an option is out of range, or `model` returns
        something else than K numbers, none above 0, none NaN.

    Examples
    --------
    The best path is that of two blanks, 0.6 * 0.6; but the paths of one symbol have 0.64.

    >>> import numpy as np
    >>> logits = np.log([[0.6, 0.4], [0.6, 0.4]])
    >>> ctc_decode(logits), ctc_decode(logits, beam=4)
    (array([], dtype=int64), array([1]))

    A model that knows that a 2 follows a 1:

    >>> logits = np.log([[0.1, 0.8, 0.1], [0.1, 0.5, 0.4], [0.8, 0.1, 0.1]])
    >>> ctc_decode(logits, beam=8)
    array([1])
    >>> table = np.log([[1, 0.5, 0.5], [1, 0.01, 0.99], [1, 0.99, 0.01]])
    >>> ctc_decode(logits, beam=8, model=lambda p: table[p[-1] if p else 0], symbol_bonus=0.7)
    array([1, 2])
    """
    rows = read_rows(logits, "logits", lengths, None)
    blank = _validation.integer(blank, "blank", 0, rows.values.shape[2] - 1)
    beam = _validation.integer(beam, "beam", 1)
    bonus = _validation.number("symbol_bonus", symbol_bonus)
    if abs(bonus) > _MOST_BONUS:
        raise ValueError(f"symbol_bonus: expected from -100 to 100, got {symbol_bonus}")
    if model is not None and not callable(model):
        raise TypeError(f"model: expected a callable, got {type(model).__name__}")
    weight = _validation.non_negative("model_weight", model_weight)
    model = model if weight else None
    if model is None and beam == 1 and not bonus:
        found = _best_paths(rows, blank)
    else:
        found = _searched(rows, blank, beam, bonus, model, weight)
    return found if rows.is_batch else found[0]


def _best_paths(rows: Rows, blank: int) -> list[Array]:
    """What is left of the best symbols of each step."""
    path = rows.values.argmax(axis=2)
    kept = rows.inside & (path != blank)
    kept[1:] &= path[1:] != path[:-1]
    return [path[kept[:, b], b] for b in range(path.shape[1])]


def _searched(
    rows: Rows, blank: int, beam: int, bonus: float, model: PrefixModel | None, weight: float
) -> list[Array]:
    """By prefix beam search."""
    K = rows.values.shape[2]
    _validation.check_size(beam * max(K, len(rows.values)), np.dtype(np.float64), "beam")

    def factors(prefix: tuple[int, ...]) -> Array:
        assert model is not None
        logs = np.asarray(model(prefix), np.float64)
        if logs.shape != (K,):
            raise ValueError(f"model: expected {K} log-probabilities, got shape {logs.shape}")
        logs = np.where(np.arange(K) == blank, 0, logs)
        if not (logs <= 1e-3).all():  # those of a model in float32 may round to more than 0
            raise ValueError(f"model: expected log-probabilities, got {logs.max()}")
        return np.exp(weight * np.minimum(logs, 0) + bonus)

    found = []
    for b, length in enumerate(rows.lengths):
        y = np.exp(log_softmax(rows.values[:length, b].astype(np.float64, order="C")))
        symbols = ctc_beam.search(
            y, blank, beam, float(np.exp(bonus)), None if model is None else factors
        )
        found.append(np.array(symbols, np.intp))
    return found
