"""Modules of `fastlstm.torch` that compute with weights of 8 or 16 bits."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from support.torch_modules import B, H, I, L, T, sequence, state_of, torch_settings  # noqa: E402, F401

import fastlstm.torch  # noqa: E402

pytestmark = pytest.mark.peer

TYPES = ["int8", "bfloat16", "float16"]
EACH = pytest.mark.parametrize("weights_dtype", TYPES)
MODULES = {
    "LSTM": {"bidirectional": True},
    "LSTM of a projection": {"proj_size": 2, "batch_first": True},
    "GRU": {"batch_first": True, "bias": False},
    "RNN": {"nonlinearity": "relu"},
}


def made(name: str, weights_dtype: str | None = None) -> tuple[Any, Any]:
    """A module in eval mode, and the layer of fastlstm with its weights, quantized."""
    cell = name.split()[0]
    module = getattr(torch.nn, cell)(I, H, L, **MODULES[name]).eval()
    layer = getattr(fastlstm, cell).from_torch(module)
    module = fastlstm.torch.replace(module, weights_dtype=weights_dtype)
    return module, layer.quantize(weights_dtype) if weights_dtype else layer


def assert_same(got: Any, expected: Any) -> None:
    """y and states of a module and of a layer, to the bit."""
    (y, state), (y_layer, state_layer) = got, expected
    assert torch.equal(y, torch.from_numpy(y_layer))
    states = state if isinstance(state, tuple) else (state,)
    expected_states = state_layer if isinstance(state, tuple) else (state_layer,)
    for part, expected_part in zip(states, expected_states, strict=True):
        assert torch.equal(part, torch.from_numpy(expected_part))


@EACH
@pytest.mark.parametrize("name", MODULES)
def test_it_computes_as_the_quantized_layer(name: str, weights_dtype: str) -> None:
    module, layer = made(name, weights_dtype)
    assert module.weights_dtype == weights_dtype
    assert repr(module).endswith(f", weights_dtype={weights_dtype})")
    x = sequence()
    with torch.no_grad():
        for _ in range(2):
            assert_same(module(x), layer(x.numpy()))
        y = module(x)[0]
        fastlstm.torch.replace(module)
        assert not torch.equal(module(x)[0], y)
    assert "weights_dtype" not in repr(module)


def test_states_and_packed_sequences() -> None:
    module, layer = made("LSTM", "int8")
    x, state, lengths = sequence(), state_of(module), [3, T, 1, 2, 4]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    with torch.inference_mode():
        y, state_n = module(packed, state)
        assert_same(module(x, state), layer(x.numpy(), tuple(part.numpy() for part in state)))
        y_padded, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
        h_0 = tuple(part.numpy() for part in state)
        assert_same((y_padded, state_n), layer(x.numpy(), h_0, lengths=lengths))


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_cells(cell: str) -> None:
    model = torch.nn.Sequential(getattr(torch.nn, f"{cell}Cell")(I, H)).eval()
    layer = getattr(fastlstm, cell).from_torch(model[0]).quantize("int8")
    with pytest.warns(UserWarning, match="torch's cells are faster"):
        fastlstm.torch.replace(model, weights_dtype="int8")
    fastlstm.torch.replace(model, cells=True, weights_dtype="int8")
    x = torch.randn(B, I)
    with torch.no_grad():
        got = model(x)
    expected = layer(x[None].numpy())[1]
    parts = zip(got, expected, strict=True) if cell == "LSTM" else [(got, expected)]
    assert all(torch.equal(a, torch.from_numpy(b[0])) for a, b in parts)


def test_training_and_gradients_raise_one_clear_error() -> None:
    message = (
        r"fastlstm\.torch\.LSTM: weights of int8 are for inference: call eval\(\) and compute "
        r"within torch\.no_grad\(\), or replace the model without weights_dtype"
    )
    module, layer = made("LSTM", "int8")
    x = sequence()
    with pytest.raises(RuntimeError, match=message):
        module(x)  # the parameters require gradients
    module.train()
    with torch.no_grad(), pytest.raises(RuntimeError, match=message):
        module(x)
    module.eval().requires_grad_(False)
    assert_same(module(x), layer(x.numpy()))
    with pytest.raises(RuntimeError, match=message):
        module(x.requires_grad_())
    fastlstm.torch.replace(module.train())
    module(x)[0].sum().backward()
    assert x.grad.abs().max() > 0


def test_edits_of_parameters_count() -> None:
    module, _ = made("LSTM", "int8")
    other, layer = made("LSTM")
    x = sequence()
    with torch.no_grad():
        module(x)
        module.load_state_dict(other.state_dict())
        assert_same(module(x), layer.quantize("int8")(x.numpy()))
        module.weight_hh_l0.data.numpy()[0, 0] += 1
        layer.load_state_dict(module.state_dict())
        assert_same(module(x), layer.quantize("int8")(x.numpy()))


def fused_step(module: Any) -> None:
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(module.parameters(), 0.1, fused=True).step()


EDITS: dict[str, Any] = {
    "one value": lambda m: m.weight_hh_l0[3, 5].add_(1),
    "one value, detached": lambda m: m.weight_hh_l0.detach()[3, 5].add_(1),
    "one value of a bias, data": lambda m: m.bias_hh_l0.data[-1].add_(1),
    "data": lambda m: m.weight_ih_l0.data.mul_(1.5),
    "rows, data": lambda m: m.weight_hh_l0.data[: len(m.weight_hh_l0) // 2].mul_(1.5),
    "odd columns, data": lambda m: m.weight_ih_l0.data[:, 1::2].mul_(1.5),
    "numpy": lambda m: m.weight_hh_l0.detach().numpy().__imul__(1.5),
    "fused optimizer": fused_step,
    "fewer bits and back": lambda m: m.bfloat16().float(),
    "another tensor": lambda m: setattr(m.weight_hh_l0, "data", m.weight_hh_l0.data * 1.5),
    "assign": lambda m: m.load_state_dict(
        {name: value * 1.5 for name, value in m.state_dict().items()}, assign=True
    ),
    "share_memory": lambda m: m.share_memory().weight_ih_l0[3, 5].add_(1),
    "not a number": lambda m: m.bias_ih_l0.data.fill_(float("nan")),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_of_large_matrices_count_at_once(edit: Any) -> None:
    module = fastlstm.torch.replace(torch.nn.LSTM(40, 36).eval(), weights_dtype="int8")
    x = torch.randn(3, 2, 40)
    with torch.no_grad():
        y = module(x)[0]
        edit(module)
        after = module(x)[0]
        expected = fastlstm.LSTM.from_torch(module).quantize("int8")(x.numpy())[0]
    assert not torch.equal(after, y)
    torch.testing.assert_close(after, torch.from_numpy(expected), rtol=0, atol=0, equal_nan=True)


def test_few_values_that_torch_does_not_count_need_replace() -> None:
    module = fastlstm.torch.replace(torch.nn.GRU(40, 36).eval(), weights_dtype="int8")
    x = torch.randn(3, 2, 40)
    with torch.no_grad():
        y = module(x)[0]
        module.weight_hh_l0.data[3, 5] += 1
        assert torch.equal(module(x)[0], y)
        fastlstm.torch.replace(module, weights_dtype="int8")
        layer = fastlstm.GRU.from_torch(module).quantize("int8")
        assert_same(module(x), layer(x.numpy()))
        assert not torch.equal(module(x)[0], y)


def test_weights_are_compared_where_writes_cannot_be_seen(monkeypatch: Any) -> None:
    """Tensors of inference mode have no count of writes; of transposed ones no sample is taken."""
    from fastlstm.torch import _layers

    compared: list[Any] = []
    have_changed = _layers.have_changed
    monkeypatch.setattr(
        _layers, "have_changed", lambda *args: compared.append(args) or have_changed(*args)
    )
    x = torch.randn(3, 2, 40)
    with torch.inference_mode():
        inferring = torch.nn.LSTM(40, 36).eval()
    transposed = torch.nn.LSTM(40, 36).eval()
    transposed.weight_hh_l0.data = transposed.weight_hh_l0.data.t().contiguous().t()
    for module, times in ((torch.nn.LSTM(40, 36).eval(), 0), (inferring, 2), (transposed, 2)):
        compared.clear()
        fastlstm.torch.replace(module, weights_dtype="int8")
        with torch.inference_mode():
            for _ in range(3):
                y = module(x)[0]
            assert len(compared) == times
            module.weight_hh_l0.data[3, 5] += 1
            assert torch.equal(module(x)[0], y) == (times == 0)


@EACH
def test_copies_pickles_and_state_dicts(weights_dtype: str) -> None:
    module, layer = made("GRU", weights_dtype)
    x, file = sequence(), io.BytesIO()
    assert all(value.dtype == torch.float32 for value in module.state_dict().values())
    torch.save(module, file)
    file.seek(0)
    twins = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    twins.append(torch.load(file, weights_only=False))
    with torch.no_grad():
        for twin in twins:
            assert twin.weights_dtype == weights_dtype
            assert_same(twin(x), layer(x.numpy()))
    plain = torch.nn.GRU(I, H, L, **MODULES["GRU"])
    plain.load_state_dict(module.state_dict())
    assert fastlstm.torch.restore(module) is module
    assert "weights_dtype" not in vars(module)
    assert repr(module) == repr(plain)
    assert torch.equal(module(x)[0], plain(x)[0])


class OurGRU(fastlstm.torch.GRU):
    """One of ours."""


def test_all_modules_of_a_model() -> None:
    model = torch.nn.ModuleList(
        [
            torch.nn.LSTM(I, H),
            fastlstm.torch.GRUCell(I, H),
            OurGRU(I, H),
            torch.nn.Linear(2, 2),
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for weights_dtype in (None, "int8", "float16", None):
            assert fastlstm.torch.replace(model, weights_dtype=weights_dtype) is model
            assert [part.weights_dtype for part in model[:3]] == [weights_dtype] * 3
    assert type(model[2]) is OurGRU


def test_what_cannot_have_such_weights_is_left_alone() -> None:
    large, infinite = torch.nn.GRU(I, H), torch.nn.RNN(I, H)
    with torch.no_grad():
        large.weight_hh_l0[0, 0], infinite.weight_ih_l0[1, 1] = 1e6, float("inf")
    wide = fastlstm.torch.LSTM(I, H).double()
    model = torch.nn.ModuleList(
        [torch.nn.LSTM(I, H), large, infinite, wide, torch.nn.GRU(I, H).double()]
    )
    with pytest.warns(UserWarning, match="leaves") as caught:
        fastlstm.torch.replace(model, weights_dtype="float16")
    reason = "its parameters are torch.float64; for float16 they have to be float32"
    assert str(caught.pop().message).splitlines()[1:] == [
        "  1 (GRU): weight_hh_l0: expected magnitudes up to 65504, to be float16, got 1e+06",
        "  2 (RNN): weight_ih_l0: expected finite numbers, to be float16",
        f"  3 (LSTM): {reason}",
        f"  4 (GRU): {reason}",
    ]
    assert model[0].weights_dtype == "float16"
    assert type(model[1]) is torch.nn.GRU
    assert model[3].weights_dtype is None


def test_errors() -> None:
    module = torch.nn.GRU(I, H).eval()
    with pytest.raises(ValueError, match=r"weights_dtype: expected one of .*, got 'int4'"):
        fastlstm.torch.replace(module, weights_dtype="int4")
    with pytest.raises(TypeError, match="weights_dtype: expected a str, got int"):
        fastlstm.torch.replace(module, weights_dtype=8)
    assert type(module) is torch.nn.GRU
    fastlstm.torch.replace(module, weights_dtype="int8").double()
    with (
        torch.no_grad(),
        pytest.raises(TypeError, match=r"expected torch.float32, got torch.float64"),
    ):
        module(sequence().double())


COMPILED = """
import torch, fastlstm.torch
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.LSTM(3, 4, 2, bidirectional=True)).eval()
x, other = torch.randn(6, 5, 3), torch.randn(2, 7, 3)
whole = model(x)[0]
fastlstm.torch.replace(model, weights_dtype="int8")
torch._dynamo.config.allow_rnn = True
with torch.no_grad():
    expected = model(x)[0]
    assert not torch.equal(expected, whole)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x)[0], expected)
    traced = torch.jit.trace(model, x)
    assert torch.equal(traced(other)[0], model(other)[0])
    exported = torch.export.export(model, (x,))
del model  # what was recorded may outlive it
assert torch.equal(exported.module()(x)[0], expected)
"""


def test_recorded_as_a_graph() -> None:
    run = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
