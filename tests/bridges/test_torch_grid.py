"""The modules of `fastlstm.torch` beside torch's own: the grid of torch's own tests.

torch compares its CPU with its GPU in 258 configurations, with gradients: every cell with all
combinations of six options, the two nonlinearities of the RNN, and the LSTM with a projection.
Here fastlstm takes the GPU's place.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any, NamedTuple

import pytest

import fastlstm

torch = pytest.importorskip("torch")

from support.torch_modules import torch_settings  # noqa: E402, F401

import fastlstm.torch  # noqa: E402

# torch says so itself when a projection takes its slow path.
SLOW = "ignore:LSTM with projections is not supported:UserWarning"
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings(SLOW)]

I, H, P, L, T, N = 10, 6, 3, 2, 7, 6
LENGTHS = [7, 5, 5, 2, 1, 1]
TOLERANCE = {torch.float32: 5e-5, torch.float64: 1e-13}


class Configuration(NamedTuple):
    """One point of the grid."""

    cell: str
    options: dict[str, Any]
    bias: bool = True
    bidirectional: bool = False
    batch_first: bool = False
    contiguous: bool = True
    variable_len: bool = False
    lens_as_tensor: bool = False

    def __str__(self) -> str:
        on = [name for name in self._fields[2:] if getattr(self, name)]
        return "-".join([self.cell, *map(str, self.options.values()), *on])


CELLS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {}),
    ("LSTM", {}),
    ("GRU", {}),
    ("LSTM", {"proj_size": P}),
]
GRID = [
    Configuration(cell, options, *flags)
    for (cell, options), flags in itertools.product(
        CELLS, itertools.product([True, False], repeat=6)
    )
]
GRID += [Configuration("RNN", {"nonlinearity": name}) for name in ("tanh", "relu")]
PART = [at for at in GRID if not at.contiguous and not at.lens_as_tensor]


def test_the_grid_is_whole() -> None:
    assert len(GRID) == 258
    assert len({str(at) for at in GRID}) == 258


def laid_out(tensor: Any, contiguous: bool) -> Any:
    """A leaf with these values, perhaps every second value of a larger tensor."""
    if not contiguous:
        tensor = torch.stack([torch.zeros_like(tensor), tensor], -1).select(-1, 1)
        assert not tensor.is_contiguous()
    return tensor.detach().requires_grad_()


def given(at: Configuration, dtype: Any) -> dict[str, Any]:
    """The input, the states and gradients of all that is returned."""
    D, out = 1 + at.bidirectional, at.options.get("proj_size", H)
    lead = (N, T) if at.batch_first else (T, N)
    shapes = {"x": (*lead, I), "dy": (*lead, D * out), "h_0": (L * D, N, out)}
    shapes |= {"dh_n": shapes["h_0"], "c_0": (L * D, N, H), "dc_n": (L * D, N, H)}
    values = {name: torch.randn(shape, dtype=dtype) for name, shape in shapes.items()}
    return {name: laid_out(value, at.contiguous) for name, value in values.items()}


def results(module: Any, v: dict[str, Any], at: Configuration) -> dict[str, Any]:
    """Outputs and all gradients."""
    v = {name: tensor.detach().requires_grad_() for name, tensor in v.items()}
    x, dy = v["x"], v["dy"]
    if at.variable_len:
        lengths = torch.tensor(LENGTHS) if at.lens_as_tensor else LENGTHS
        pack = torch.nn.utils.rnn.pack_padded_sequence
        x, dy = pack(x, lengths, at.batch_first), pack(dy, lengths, at.batch_first).data
    names = ["h", "c"] if at.cell == "LSTM" else ["h"]
    states = tuple(v[f"{name}_0"] for name in names)
    y, states_n = module(x, states if at.cell == "LSTM" else states[0])
    states_n = states_n if at.cell == "LSTM" else (states_n,)
    y = y.data if at.variable_len else y
    module.zero_grad()
    torch.autograd.backward([y, *states_n], [dy, *(v[f"d{name}_n"] for name in names)])
    found = {"y": y, "dx": v["x"].grad}
    for name, state in zip(names, states_n, strict=True):
        found |= {f"{name}_n": state, f"d{name}_0": v[f"{name}_0"].grad}
    return found | {f"d {name}": p.grad for name, p in module.named_parameters()}


def check(at: Configuration, dtype: Any) -> None:
    torch.manual_seed(2)
    options = {"bias": at.bias, "bidirectional": at.bidirectional, "batch_first": at.batch_first}
    module = getattr(torch.nn, at.cell)(I, H, L, **options, **at.options).to(dtype)
    ours = fastlstm.torch.replace(copy.deepcopy(module))
    assert type(ours) is getattr(fastlstm.torch, at.cell)
    v = given(at, dtype)
    expected, got = results(module, v, at), results(ours, v, at)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].shape == tensor.shape, name
        assert got[name].dtype == dtype
        error = (got[name] - tensor).abs().max().item()
        assert error <= TOLERANCE[dtype], f"{name}: error {error:.1e}"


@pytest.mark.parametrize("at", GRID, ids=str)
def test_float32(at: Configuration) -> None:
    check(at, torch.float32)


@pytest.mark.parametrize("at", PART, ids=str)
def test_float64(at: Configuration) -> None:
    check(at, torch.float64)
