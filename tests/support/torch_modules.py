"""What the tests of `fastlstm.torch` share: pairs of modules, torch's and ours."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import fastlstm.torch  # noqa: E402

I, H, L, T, B = 3, 4, 2, 6, 5


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    """One thread of torch, and the same random numbers in every test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(5)
    yield
    torch.set_num_threads(before)


def pair(cell: str = "LSTM", *args: Any, **options: Any) -> tuple[Any, Any]:
    """A module of torch, and one of ours with equal parameters."""
    module = getattr(torch.nn, cell)(*(args or (I, H, L)), **options)
    return module, fastlstm.torch.replace(copy.deepcopy(module))


def sequence(*shape: int, **options: Any) -> Any:
    return torch.randn(*(shape or (T, B, I)), **options)


def assert_close(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-6)


def state_of(module: Any) -> Any:
    """Some state for a batch of 5 that is not zero."""
    D = 1 + module.bidirectional
    h = torch.randn(module.num_layers * D, B, H)
    return (h, torch.randn_like(h)) if module.mode == "LSTM" else h
