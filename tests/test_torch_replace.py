"""`fastlstm.torch.replace`, the modules beside other parts of torch, and the example."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch_modules import B, H, I, T, torch_settings  # noqa: E402, F401

import fastlstm.torch  # noqa: E402

pytestmark = pytest.mark.peer

EXAMPLES = Path(__file__).parent.parent / "examples"


class Model(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Recurrent modules at several depths, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, I)
        self.stack = torch.nn.Sequential(torch.nn.LSTM(I, H), torch.nn.Identity())
        self.gru = torch.nn.GRU(H, H, batch_first=True)
        self.again = self.gru
        self.head = torch.nn.ModuleDict({"rnn": torch.nn.RNN(H, 2)})

    def forward(self, tokens: Any) -> Any:
        y, _ = self.stack[0](self.embedding(tokens))
        return self.head["rnn"](self.again(self.gru(y)[0])[0])[0]


def test_replace() -> None:
    model, tokens = Model().eval(), torch.randint(11, (T, B))
    calls: list[int] = []
    model.gru.register_forward_hook(lambda *_: calls.append(1))
    modules, parameters = list(model.modules()), list(model.parameters())
    before = model(tokens)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fastlstm.torch.replace(fastlstm.torch.replace(model)) is model
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model.again is model.gru
    assert not model.gru.training
    ours = (fastlstm.torch.LSTM, fastlstm.torch.GRU, fastlstm.torch.RNN)
    assert sum(isinstance(module, ours) for module in model.modules()) == 3
    torch.testing.assert_close(model(tokens), before, rtol=1e-5, atol=2e-6)
    assert len(calls) == 4
    model(tokens).sum().backward()
    optimizer.step()
    assert (model(tokens) - before).abs().max() > 1e-4


class OwnLSTM(torch.nn.LSTM):  # type: ignore[misc,name-defined]
    """A subclass, which may do anything."""


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (OwnLSTM(I, H), r"leaves 1 \(OwnLSTM\) alone: it is of a subclass"),
        (torch.nn.GRU(I, H).half(), r"leaves 1 \(GRU\) alone: .* are torch.float16"),
        (torch.nn.RNN(I, H, device="meta"), r"leaves 1 \(RNN\) alone: .* are on meta"),
    ],
    ids=["subclass", "half", "meta"],
)
def test_replace_says_what_it_leaves_alone(module: Any, message: str) -> None:
    model = torch.nn.Sequential(torch.nn.LSTM(I, H), module)
    kind = type(module)
    with pytest.warns(UserWarning, match=message):
        fastlstm.torch.replace(model)
    assert type(model[0]) is fastlstm.torch.LSTM
    assert type(model[1]) is kind


def test_replace_wants_a_module() -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got dict"):
        fastlstm.torch.replace({})


COMPILED = """
import torch, fastlstm.torch
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 3), fastlstm.torch.LSTM(3, 4, 2, bidirectional=True))
x = torch.randn(6, 5, 3)
def gradients(run):
    y, (h_n, _) = run(x)
    (y.pow(2).sum() + h_n.sum()).backward()
    found = [y.detach(), *(p.grad for p in model.parameters())]
    model.zero_grad()
    return found
expected = gradients(model)
for whole in (False, True):  # torch compiles around its recurrent modules, unless it is told to
    torch._dynamo.reset()
    torch._dynamo.config.allow_rnn = whole
    compiled = torch.compile(model, backend="aot_eager", fullgraph=whole)
    for a, b in zip(gradients(compiled), expected):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        assert torch.equal(compiled(x)[0], expected[0])
with torch.no_grad():  # must not become a constant
    traced = torch.jit.trace(model, x)
    other = torch.randn(2, 7, 3)
    assert torch.equal(traced(other)[0], model(other)[0])
exported = torch.export.export(model, (x,))
assert "fastlstm.run" in str(exported.graph)
assert torch.equal(exported.module()(x)[0], expected[0])
"""


def test_recorded_as_a_graph() -> None:
    run = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_import_says_what_is_missing() -> None:
    code = "import sys; sys.modules['torch'] = None; import fastlstm; import fastlstm.torch"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: fastlstm.torch needs torch: pip install 'fastlstm[torch]'" in run.stderr


def test_example() -> None:
    command = [sys.executable, str(EXAMPLES / "torch_classifier.py"), "--epochs", "2"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    table = [line.split() for line in run.stdout.splitlines()[1:]]
    assert [row[0] for row in table] == ["torch", "fastlstm"]
    parts = [float(row[1].rstrip("%")) for row in table]
    assert min(parts) > 60
    assert abs(parts[0] - parts[1]) < 2
