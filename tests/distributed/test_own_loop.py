"""A training loop of one's own with shards and a group: zoneout and dropout at random, clipping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.groups import outcomes

import fastlstm
from fastlstm import distributed
from fastlstm.optim import Adam, clip_grad_norm

STEPS, T, B = 3, 40, 11
KINDS: dict[str, dict[str, Any]] = {
    "zoneout": {"zoneout": (0.3, 0.2), "recurrent_dropout": 0.3},
    "dropout": {"num_layers": 2, "dropout": 0.4, "bidirectional": True},
}


def trained(kind: str, group: distributed.Group, count: int, batch: int = B) -> bytes:
    lstm = fastlstm.LSTM(3, 16, seed=1, **KINDS[kind])
    optimizer = Adam(lstm.parameters, 0.01)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        x = rng.standard_normal((T, batch, 3), dtype=np.float32)
        shards = group.shards(batch, count)
        y, _, tape = lstm.forward(x[:, shards.rows], shards=shards)
        _, _, of_shards = lstm.backward(tape, y)
        grads = group.sum(of_shards)
        clip_grad_norm(grads, 1.0)
        optimizer.step(grads)
    return lstm.parameters.flat.tobytes()


@pytest.mark.parametrize("count", [1, 4, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_processes(kind: str, count: int) -> None:
    alone = trained(kind, distributed.alone(), count)
    for size in (2, 3, 8):
        assert outcomes(size, lambda group: trained(kind, group, count)) == [alone] * size


def test_64_processes() -> None:
    """Each has a row or two."""
    alone = trained("dropout", distributed.alone(), 64, batch=70)
    assert outcomes(64, lambda group: trained("dropout", group, 64, batch=70)) == [alone] * 64


def test_random_choices_are_those_of_the_whole_batch() -> None:
    """In a part of the batch as in a call of all rows without shards."""
    for options in KINDS.values():
        lstm = fastlstm.LSTM(3, 16, seed=1, **options)
        x = np.ones((T, B, 3), np.float32)
        parts = []
        for shards in (None, *(distributed.Shards(B, 4, rank, 3) for rank in range(3))):
            lstm._dropout_keys = np.random.default_rng(5)
            rows = shards.rows if shards else slice(None)
            parts.append(lstm.forward(x[:, rows], shards=shards)[0])
        whole, *rest = parts
        assert np.concatenate(rest, axis=1).tobytes() == whole.tobytes()
