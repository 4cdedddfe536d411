"""The layer beside other libraries: torch, forward and backward, and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Arrays, check_close, error_bound, random_call, results

import fastlstm

pytestmark = pytest.mark.peer

T, B, I, H = 7, 5, 6, 9  # all different, so that a mix-up shows


def of_torch(module: Any, v: Arrays) -> Arrays:
    """What `results` returns of a layer, from a module of torch."""
    torch = pytest.importorskip("torch")
    t = {name: torch.tensor(array, requires_grad=True) for name, array in v.items()}
    y, (h_n, c_n) = module(t["x"], (t["h_0"], t["c_0"]))
    torch.autograd.backward([y, h_n, c_n], [t["dy"], t["dh_n"], t["dc_n"]])
    named = {"y": y, "h_n": h_n, "c_n": c_n, "dx": t["x"].grad}
    named |= {"dh_0": t["h_0"].grad, "dc_0": t["c_0"].grad}
    named |= {f"d {name}": parameter.grad for name, parameter in module.named_parameters()}
    return {name: tensor.detach().numpy() for name, tensor in named.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_torch(
    rng: Generator, layers: int, bidirectional: bool, bias: bool, batch_first: bool, dtype: str
) -> None:
    torch = pytest.importorskip("torch")
    options = {"bidirectional": bidirectional, "bias": bias, "batch_first": batch_first}
    module = torch.nn.LSTM(I, H, layers, **options).to(getattr(torch, dtype))
    lstm = fastlstm.LSTM.from_torch(module)
    assert lstm.dtype == dtype
    v = random_call(rng, lstm, T, B)
    both_round = 2 * error_bound(lstm, T, B)
    check_close(results(lstm, v), of_torch(module, v), both_round)


def test_torch_unbatched(rng: Generator) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(I, H, 2, bidirectional=True)
    lstm = fastlstm.LSTM.from_torch(module)
    v = {name: array[:, 0] for name, array in random_call(rng, lstm, T, 1).items()}
    check_close(results(lstm, v), of_torch(module, v), 2 * error_bound(lstm, T, 1))


def onnx_session(lstm: fastlstm.LSTM) -> Any:
    """ONNX Runtime on a model of one node; ONNX stacks the gates in the order i, o, f, g."""
    helper = pytest.importorskip("onnx").helper
    numpy_helper = pytest.importorskip("onnx").numpy_helper
    runtime = pytest.importorskip("onnxruntime")
    suffixes = ["", "_reverse"][: 1 + lstm.bidirectional]

    def reordered(name: str) -> np.ndarray:
        i, f, g, o = np.split(lstm.parameters[name], 4)
        return np.concatenate([i, o, f, g])

    weights = {
        "W": np.stack([reordered(f"weight_ih_l0{s}") for s in suffixes]),
        "R": np.stack([reordered(f"weight_hh_l0{s}") for s in suffixes]),
        "B": np.stack(
            [np.append(reordered(f"bias_ih_l0{s}"), reordered(f"bias_hh_l0{s}")) for s in suffixes]
        ),
    }
    node = helper.make_node(
        "LSTM",
        ["X", "W", "R", "B", "", "initial_h", "initial_c"],
        ["Y", "Y_h", "Y_c"],
        hidden_size=lstm.hidden_size,
        direction="bidirectional" if lstm.bidirectional else "forward",
    )
    inputs = {"X": 3, "initial_h": 3, "initial_c": 3}
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info(n, 1, [None] * rank) for n, rank in inputs.items()],
        [helper.make_tensor_value_info(n, 1, None) for n in node.output],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("hidden", [1, H, 64])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_onnx_runtime(rng: Generator, bidirectional: bool, hidden: int) -> None:
    lstm = fastlstm.LSTM(I, hidden, bidirectional=bidirectional, seed=1)
    session = onnx_session(lstm)
    v = random_call(rng, lstm, T, B)
    y, h_n, c_n = session.run(None, {"X": v["x"], "initial_h": v["h_0"], "initial_c": v["c_0"]})
    y = y.swapaxes(1, 2).reshape(T, B, -1)  # Y is (T, D, B, H)
    got, (got_h, got_c) = lstm(v["x"], (v["h_0"], v["c_0"]))
    both_round = 2 * error_bound(lstm, T, B)
    expected = {"y": y, "h_n": h_n, "c_n": c_n}
    check_close({"y": got, "h_n": got_h, "c_n": got_c}, expected, both_round)
