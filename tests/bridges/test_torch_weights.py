"""The weights of `fastlstm.torch`: every edit counts, copies are independent, types are checked."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest

import fastlstm

torch = pytest.importorskip("torch")

from support.torch_modules import (  # noqa: E402
    B,
    H,
    I,
    L,
    T,
    assert_close,
    pair,
    sequence,
    torch_settings,  # noqa: F401
)

import fastlstm.torch  # noqa: E402

pytestmark = pytest.mark.peer


EDITS: dict[str, Any] = {
    "no_grad": lambda m: m.weight_hh_l0.copy_(m.weight_hh_l0 * 2),
    "data": lambda m: m.weight_ih_l1.data.mul_(2),
    "numpy": lambda m: m.bias_hh_l1.detach().numpy().__imul__(2),
    "another tensor": lambda m: setattr(m.weight_hh_l1, "data", m.weight_hh_l1.data * 2),
    "another parameter": lambda m: setattr(
        m, "bias_ih_l0", torch.nn.Parameter(m.bias_ih_l0.detach() * 2)
    ),
    "transposed": lambda m: setattr(m.weight_hh_l1, "data", m.weight_hh_l1.data.t()),
    "one bit": lambda m: m.bias_ih_l1.data.view(torch.int32).__getitem__(-1).bitwise_xor_(1 << 22),
    "load": lambda m: m.load_state_dict({k: v + 0.5 for k, v in m.state_dict().items()}),
    "assign": lambda m: m.load_state_dict(
        {k: v + 0.5 for k, v in m.state_dict().items()}, assign=True
    ),
    "share_memory": lambda m: m.share_memory().weight_ih_l0.data.mul_(2),
    "not a number": lambda m: m.weight_ih_l0.data.fill_(float("nan")),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
@pytest.mark.parametrize("training", [False, True])
def test_every_edit_counts_at_once(edit: Any, training: bool) -> None:
    theirs, ours = pair("RNN", H, H, L)
    x = sequence(T, B, H)
    with torch.set_grad_enabled(training):
        before = ours(x)[0]
        for module in (theirs, ours):
            with torch.no_grad():
                edit(module)
        after = ours(x)[0]
        assert not torch.equal(after, before)
        torch.testing.assert_close(after, theirs(x)[0], equal_nan=True, rtol=1e-5, atol=2e-6)


def test_the_last_of_many_weights_counts() -> None:
    theirs, ours = pair("GRU", 8, 130)
    x = sequence(T, B, 8)
    ours(x)
    for module in (theirs, ours):
        module.weight_hh_l0.data[-1, -1] = 100
    assert_close(ours(x), theirs(x))


def test_weights_are_packed_once() -> None:
    """In modules that are called in turns, until the weights change."""
    modules, x, layers = [pair()[1], pair()[1]], sequence(), []
    for _ in range(3):
        for module in modules:
            module(x)
            layers.append(module._of_fastlstm[1]._last[1])
    assert layers[0::2] == [layers[0]] * 3
    assert layers[1::2] == [layers[1]] * 3
    modules[0].weight_hh_l0.data += 1
    modules[0](x)
    assert modules[0]._of_fastlstm[1]._last[1] is not layers[0]


def test_options_may_change() -> None:
    """batch_first, like dropout above, is that of the module at the time of the call."""
    theirs, ours = pair("GRU")
    for batch_first in (True, False):
        theirs.batch_first = ours.batch_first = batch_first
        x = sequence(B, B, I)  # of a shape that does not tell
        assert_close(ours(x), theirs(x))


def test_weights_of_hooks_and_parametrizations() -> None:
    weight_norm = torch.nn.utils.parametrizations.weight_norm
    theirs, ours = pair()
    x, found = sequence(), []
    for module in (theirs, ours):
        weight_norm(module, "weight_hh_l0")
        module(x)[0].pow(2).sum().backward()
        found.append({name: p.grad for name, p in module.named_parameters()})
    assert isinstance(ours, fastlstm.torch.LSTM)
    assert len(found[1]) == 9
    for name, grad in found[0].items():
        assert_close(found[1][name], grad)


def test_a_weight_of_another_shape_is_refused() -> None:
    _, ours = pair()
    ours(sequence())
    ours.weight_ih_l0 = torch.nn.Parameter(ours.weight_ih_l0.detach().reshape(I, 4 * H))
    with pytest.raises(ValueError, match=r"weight_ih_l0: expected \(16, 3\), got \(3, 16\)"):
        ours(sequence())


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize("used", [False, True])
def test_copies(way: str, used: bool) -> None:
    _, ours = pair()
    x, size = sequence(), len(pickle.dumps(ours))
    if used:
        ours(x)
    assert len(pickle.dumps(ours)) == size  # nothing of the layer goes along
    if way == "torch.save":
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    else:
        other = copy.deepcopy(ours) if way == "deepcopy" else pickle.loads(pickle.dumps(ours))
    assert type(other) is fastlstm.torch.LSTM
    assert torch.equal(other(x)[0], ours(x)[0])
    with torch.no_grad():
        other.weight_ih_l0 += 1
    assert not torch.equal(other(x)[0], ours(x)[0])


def test_dtypes() -> None:
    theirs, ours = pair()
    ours(sequence())
    theirs, ours = theirs.double(), ours.double()
    x = sequence(dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-13, atol=1e-14)
    with pytest.raises(TypeError, match=r"input: expected torch.float32, got torch.float64"):
        ours.float()(x)
    with pytest.raises(TypeError, match=r"input: expected torch.float32 or .*, got torch.bfloat16"):
        ours.bfloat16()(x.bfloat16())
    with pytest.raises(TypeError, match="input: expected a tensor on the CPU, got one on meta"):
        ours.to("meta")(x.bfloat16().to("meta"))


@pytest.mark.parametrize(
    ("cell", "arguments", "error", "message"),
    [
        ("LSTM", (torch.zeros(T, B, I + 1),), RuntimeError, "must be equal to input_size"),
        ("LSTM", (torch.zeros(T),), ValueError, "got 1-D"),
        ("LSTM", ([[0.0]],), TypeError, "input: expected a tensor or a PackedSequence, got list"),
        ("LSTM", (torch.zeros(T, B, I), torch.zeros(L, B, H)), TypeError, "a pair of tensors"),
        ("GRU", (torch.zeros(T, B, I), (torch.zeros(L, B, H),)), TypeError, "a tensor, got tuple"),
        ("LSTM", (torch.zeros(T, B, I), (torch.zeros(L, B, H), 1)), TypeError, "got Tensor, int"),
        ("GRU", (torch.zeros(T, B, I), torch.zeros(L, B + 1, H)), RuntimeError, "hidden size"),
        ("GRU", (torch.zeros(T, I), torch.zeros(L, 1, H)), ValueError, "got 2-D, 3-D"),
        ("GRU", (torch.zeros(T, B, I), torch.zeros(L, B, H).double()), TypeError, "hx: expected"),
    ],
)
def test_bad_input(cell: str, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pair(cell)[1](*arguments)


def test_memory_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer reads the tensor it is given, and what it returns is the output."""
    _, ours = pair()
    x, seen = sequence(), {}
    run = fastlstm.LSTM.__call__

    def spy(self: Any, given: Any, *args: Any, **options: Any) -> Any:
        seen["x"], (seen["y"], state) = given, run(self, given, *args, **options)
        return seen["y"], state

    monkeypatch.setattr(fastlstm.LSTM, "__call__", spy)
    with torch.no_grad():
        y, _ = ours(x)
    assert seen["x"].ctypes.data == x.data_ptr()
    assert seen["y"].ctypes.data == y.data_ptr()
