"""fastlstm itself, as a user calls it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import fastlstm
from fastlstm.bench.cases import Case
from fastlstm.bench.peers import Work


class FastLSTM:
    """`Stream.step` with `out`, `Stream.run`, calling the layer, `forward` with `backward`."""

    def __init__(self, threads: int) -> None:
        fastlstm.set_num_threads(threads)

    def prepare(self, case: Case) -> Work:
        """Set a case up."""
        lstm, x = case.layer(), case.x()
        if case.work == "step":
            out = np.empty((case.batch, case.hidden), np.float32)
            step = partial(lstm.stream(case.batch).step, x[0], out)
            return Work(step, lambda y: [y[None]])
        if case.work == "block":
            return Work(partial(lstm.stream(case.batch).run, x), lambda y: [y])
        if case.work == "infer":
            return Work(partial(lstm, x), lambda result: [result[0]])
        dy = case.dy()

        def train() -> Any:
            y, _, tape = lstm.forward(x)
            dx, _, grads = lstm.backward(tape, dy)
            return y, dx, grads

        return Work(train, lambda result: [*result[:2], *result[2].values()])
