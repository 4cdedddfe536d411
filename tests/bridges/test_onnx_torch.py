"""Files of ONNX by torch's exporters, read."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from support.compare import check_bits

import fastlstm

pytestmark = pytest.mark.peer
onnx = pytest.importorskip("onnx")
from fastlstm.onnx import from_onnx  # noqa: E402

T, B, I, H = 7, 5, 4, 3  # all different, so that a mix-up shows


def exported(path: Path, module: Any, arguments: tuple[Any, ...], **options: Any) -> None:
    """A file by one of torch's exporters."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings(action="ignore"):  # of the exporter about itself
        torch.onnx.export(module, arguments, os.fspath(path), verbose=False, **options)


def state_dict_of(module: Any) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


EXPORTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("LSTM", {}, {}),
    "both ways": ("LSTM", {"num_layers": 2, "bidirectional": True}, {"axes": True}),
    "batch first": ("LSTM", {"num_layers": 2, "batch_first": True}, {"axes": True}),
    "without bias": ("LSTM", {"num_layers": 2, "bias": False}, {}),
    "given state": ("LSTM", {"num_layers": 2, "bidirectional": True}, {"state": True}),
    "large": ("LSTM", {"hidden_size": 200}, {}),  # weights are cut and joined in the graph
    "GRU": ("GRU", {"num_layers": 2, "bidirectional": True}, {"state": True}),
    "RNN": ("RNN", {"num_layers": 2, "nonlinearity": "relu", "bidirectional": True}, {}),
}


# The newer exporter takes seconds, and writes no nodes of RNN.
NEWER = ["both ways", "large", "GRU"]


@pytest.mark.parametrize(
    ("case", "dynamo"), [*((case, False) for case in EXPORTS), *((case, True) for case in NEWER)]
)
def test_torch(tmp_path: Path, case: str, dynamo: bool) -> None:
    torch = pytest.importorskip("torch")
    kind, options, how = EXPORTS[case]
    module = getattr(torch.nn, kind)(I, **{"hidden_size": H, **options}).eval()
    states = module.num_layers * (1 + module.bidirectional)
    h = torch.zeros(states, T if module.batch_first else B, module.hidden_size)
    state = ((h, h) if kind == "LSTM" else h,) if how.get("state") else ()
    axes: dict[str, Any] = {}
    if how.get("axes") and dynamo:
        any_size = {0: torch.export.Dim("first"), 1: torch.export.Dim("second")}
        axes = {"dynamic_shapes": (any_size, *({1: any_size[1]} for _ in state))}
    elif how.get("axes"):
        axes = {"input_names": ["x"], "dynamic_axes": {"x": {0: "first", 1: "second"}}}
    path = tmp_path / "module.onnx"
    exported(path, module, (torch.zeros(T, B, I), *state), dynamo=dynamo, **axes)
    layer = from_onnx(path)
    assert repr(layer) == repr(getattr(fastlstm, kind).from_torch(module))
    check_bits(layer.state_dict(), state_dict_of(module))


def test_torch_inside_a_model(tmp_path: Path) -> None:
    """Between other operators, and with its weights in a file beside the model."""
    torch = pytest.importorskip("torch")

    class Tagger(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(11, I)
            self.lstm = torch.nn.LSTM(I, H, 2, batch_first=True, bidirectional=True)
            self.gru = torch.nn.GRU(2 * H, H)
            self.linear = torch.nn.Linear(H, 2)

        def forward(self, tokens: Any) -> Any:
            y, _ = self.lstm(self.embedding(tokens))
            y, _ = self.gru(y.tanh())
            return self.linear(y)

    module, path = Tagger().eval(), tmp_path / "module.onnx"
    tokens = torch.zeros(B, T, dtype=torch.int64)
    exported(path, module, (tokens,), dynamo=True, external_data=True)
    lstm, gru = from_onnx(path, cell="lstm"), from_onnx(path, cell="gru")
    assert lstm.batch_first
    check_bits(lstm.state_dict(), state_dict_of(module.lstm))
    check_bits(gru.state_dict(), state_dict_of(module.gru))
    with pytest.raises(ValueError, match=r"name: expected that of one node of .*\(LSTM\).*\(GRU\)"):
        from_onnx(path)
    for beside in tmp_path.glob("*.data"):
        beside.unlink()
        with pytest.raises(ValueError, match="not a model of ONNX, or not all of one"):
            from_onnx(path)


def test_torch_projection(tmp_path: Path) -> None:
    """torch writes a node of the wrong sizes, which no runtime accepts."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "module.onnx"
    module, h, c = torch.nn.LSTM(I, H, proj_size=2), torch.zeros(1, B, 2), torch.zeros(1, B, H)
    for state in [(), ((h, c),)]:
        exported(path, module, (torch.zeros(T, B, I), *state), dynamo=True)
        with pytest.raises(ValueError, match=r"initial_c: expected 3 axes, \(\.\.\., 2\), got \(1"):
            from_onnx(path)
