"""A language model beside a beam search: what comes after a prefix of symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.base import Layer
from fastlstm._parameters import Parameters
from fastlstm.heads._softmax import log_softmax
from fastlstm.training._batches import Codes

_MOST_STATES = 4096  # a wide beam needs some hundred


class PrefixModel:
    """Log-probabilities of the next symbol, as `heads.ctc_decode` asks for them.

    The states after prefixes are kept.  One that was dropped is computed again, to the same bits,
    since a text read at once and character by character ends in the same state.

    Parameters
    ----------
    lstm, parameters
        Of a `LanguageModel`.
    codes : (K,) array
        Of the symbols; that of the blank is not read.
    blank : int
    before : array
        What every prefix follows: at least one code.
    """

    def __init__(
        self,
        lstm: Layer[Any, Any, Any],
        parameters: Parameters,
        codes: Codes,
        blank: int,
        before: Codes,
    ) -> None:
        self._lstm, self._parameters = lstm, parameters
        self._codes, self._blank, self._before = codes, blank, before
        self._states: dict[tuple[int, ...], Any] = {}  # those used last at the end

    def __call__(self, prefix: tuple[int, ...]) -> NDArray[np.float64]:
        """Return (K,) log-probabilities of what follows the symbols of `prefix`."""
        text = np.concatenate([self._before, self._codes[np.array(prefix, np.intp)]])
        state = self._states.pop(prefix[:-1], None) if prefix else None
        if state is None:
            _, state = self._read(text[:-1], None)
        y, after = self._read(text[-1:], state)
        if prefix:
            self._states[prefix[:-1]] = state
        self._states[prefix] = after
        while len(self._states) > _MOST_STATES:
            self._states.pop(next(iter(self._states)), None)
        logits = self._parameters["linear.weight"] @ y[0, 0] + self._parameters["linear.bias"]
        logs: NDArray[np.float64] = log_softmax(logits[None].astype(np.float64))[0, self._codes]
        logs[self._blank] = -np.inf
        return logs

    def _read(self, codes: Codes, state: Any) -> tuple[NDArray[np.float32], Any]:
        return self._lstm(codes[:, None], state, embedding=self._parameters["embedding.weight"])
