"""`fastlstm.torch.replace`, the modules beside other parts of torch, and the example."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from support.processes import script  # noqa: E402
from support.torch_modules import B, H, I, T, torch_settings  # noqa: E402, F401

import fastlstm.torch  # noqa: E402

pytestmark = pytest.mark.peer


class Model(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Recurrent modules at several depths, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, I)
        self.stack = torch.nn.Sequential(torch.nn.LSTM(I, H), torch.nn.Identity())
        self.gru = torch.nn.GRU(H, H, batch_first=True)
        self.again = self.gru
        self.head = torch.nn.ModuleDict({"rnn": torch.nn.RNN(H, 2)})
        self.cells = torch.nn.ModuleList(
            [torch.nn.LSTMCell(2, 2), torch.nn.GRUCell(2, 2), torch.nn.RNNCell(2, 2)]
        )

    def forward(self, tokens: Any) -> Any:
        y, _ = self.stack[0](self.embedding(tokens))
        y = self.head["rnn"](self.again(self.gru(y)[0])[0])[0][-1]
        return self.cells[2](self.cells[1](self.cells[0](y)[0]))


def test_replace_and_restore() -> None:
    model, tokens = Model().eval(), torch.randint(11, (T, B))
    calls: list[int] = []
    model.gru.register_forward_hook(lambda *_: calls.append(1))
    modules, parameters = list(model.modules()), list(model.parameters())
    kinds, shown = [type(module) for module in modules], repr(model)
    before = model(tokens)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fastlstm.torch.replace(model, cells=True) is model
        assert fastlstm.torch.replace(model) is model
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model.again is model.gru
    assert not model.gru.training
    assert sum(type(module).__module__ == "fastlstm.torch" for module in modules) == 6
    assert repr(model).count("fastlstm.torch.") == 7  # one of them twice
    torch.testing.assert_close(model(tokens), before, rtol=1e-5, atol=2e-6)
    assert len(calls) == 4
    model(tokens).sum().backward()
    optimizer.step()
    trained = model(tokens)
    assert (trained - before).abs().max() > 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fastlstm.torch.restore(fastlstm.torch.restore(model)) is model
    assert [type(module) for module in model.modules()] == kinds
    assert not any("_of_fastlstm" in vars(module) for module in modules)
    assert repr(model) == shown
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model(tokens), trained, rtol=1e-5, atol=2e-6)
    optimizer.step()
    assert (model(tokens) - trained).abs().max() > 1e-4


def test_a_graph_survives_restore() -> None:
    model, x = fastlstm.torch.GRU(I, H), torch.randn(T, B, I)
    y = model(x)[0]
    fastlstm.torch.restore(model)
    y.sum().backward()
    got, model.weight_hh_l0.grad = model.weight_hh_l0.grad, None
    model(x)[0].sum().backward()
    torch.testing.assert_close(got, model.weight_hh_l0.grad, rtol=1e-5, atol=2e-6)


class OwnLSTM(torch.nn.LSTM):  # type: ignore[misc,name-defined]
    """A subclass, which may do anything."""


class OurLSTM(fastlstm.torch.LSTM):
    """One of ours."""


OLD = "ignore:.*deprecated"  # what torch says of parts of itself


def scripted() -> Any:
    return torch.jit.script(torch.nn.LSTM(I, H))


def quantized() -> Any:
    quantize = torch.ao.quantization.quantize_dynamic
    return quantize(torch.nn.Sequential(torch.nn.LSTMCell(I, H)))[0]


@pytest.mark.filterwarnings(OLD)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OwnLSTM(I, H), "(OwnLSTM): it is of a subclass"),
        (lambda: torch.nn.GRU(I, H).half(), "(GRU): its parameters are torch.float16"),
        (lambda: torch.nn.GRUCell(I, H).half(), "(GRUCell): its parameters are torch.float16"),
        (
            lambda: torch.nn.GRUCell(I, H),
            "(GRUCell): torch's cells are faster; replace(model, cells=True) takes them",
        ),
        (lambda: torch.nn.RNN(I, H, device="meta"), "(RNN): its parameters are on meta"),
        (scripted, "(LSTM): it is scripted"),
        (quantized, "(LSTMCell): it is quantized"),
    ],
    ids=["subclass", "half", "half cell", "cell", "meta", "scripted", "quantized"],
)
def test_replace_says_what_it_leaves_alone(make: Any, message: str) -> None:
    module = make()
    model = torch.nn.ModuleDict({"a": torch.nn.LSTM(I, H), "b": torch.nn.ModuleList([module])})
    kind = type(module)
    with pytest.warns(UserWarning, match="leaves") as caught:
        fastlstm.torch.replace(model)
    text = f"fastlstm.torch.replace leaves these modules alone:\n  b.0 {message}"
    assert [str(warning.message) for warning in caught] == [text]
    assert caught[0].filename == __file__
    assert type(model["a"]) is fastlstm.torch.LSTM
    assert type(model["b"][0]) is kind


def test_one_warning_lists_all() -> None:
    model = torch.nn.Sequential(OwnLSTM(I, H), OurLSTM(I, H), torch.nn.GRU(I, H).half())
    with pytest.warns(UserWarning, match="leaves") as caught:
        fastlstm.torch.replace(model)
    _, first, second = str(caught.pop().message).splitlines()
    assert not caught.list
    assert first.strip() == "0 (OwnLSTM): it is of a subclass"
    assert second.strip() == "2 (GRU): its parameters are torch.float16"
    with pytest.warns(UserWarning, match=r"torch\.restore leaves .*\n  1 \(OurLSTM\): it is of a"):
        fastlstm.torch.restore(model)
    assert type(model[1]) is OurLSTM


@pytest.mark.parametrize("function", [fastlstm.torch.replace, fastlstm.torch.restore])
def test_a_module_is_wanted(function: Any) -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got dict"):
        function({})


@pytest.mark.filterwarnings(OLD)
def test_script_is_refused() -> None:
    model = fastlstm.torch.replace(torch.nn.Sequential(torch.nn.Identity(), torch.nn.GRU(I, H)))
    message = (
        r"torch\.jit\.script: cannot read fastlstm\.torch\.GRU; use .*fastlstm\.torch\.restore"
    )
    for part in (model, model[1]):
        with pytest.raises(RuntimeError, match=message):
            torch.jit.script(part)
    x = torch.randn(T, B, I)
    y = torch.jit.script(fastlstm.torch.restore(model))(x)[0]
    torch.testing.assert_close(y, model(x)[0])


COMPILED = """
import torch, fastlstm.torch
torch.set_num_threads(1)
torch.manual_seed(0)
class Step(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = fastlstm.torch.GRUCell(3, 3)
    def forward(self, x):
        return x + self.cell(x[0])
model = torch.nn.Sequential(Step(), fastlstm.torch.LSTM(3, 4, 2, bidirectional=True))
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
assert str(exported.graph).count("fastlstm.run.") == 2
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
    text = script("examples/torch_classifier.py", "--epochs", "2")
    table = [line.split() for line in text.splitlines()[1:]]
    assert [row[0] for row in table] == ["torch", "fastlstm"]
    parts = [float(row[1].rstrip("%")) for row in table]
    assert min(parts) > 60
    assert abs(parts[0] - parts[1]) < 2
