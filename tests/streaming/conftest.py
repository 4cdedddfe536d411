"""The layer that most tests of streams and pools use."""

from __future__ import annotations

import pytest
from support.pools import H, I

import fastlstm


@pytest.fixture
def lstm() -> fastlstm.LSTM:
    return fastlstm.LSTM(I, H, 2, seed=1)
