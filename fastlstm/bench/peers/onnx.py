"""ONNX Runtime and OpenVINO: one model of ONNX LSTM nodes, all buffers bound beforehand."""

from __future__ import annotations

import importlib
import itertools
import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.bench.cases import Array, Case
from fastlstm.bench.peers import Work


class _Calls:
    """The input and output arrays of a case, by name, for one call or two calls in turn.

    With a state to carry on, two sets of calls exchange their states, so that nothing is copied.
    """

    def __init__(self, case: Case) -> None:
        self.y = np.empty((case.steps, 1, case.batch, case.hidden), np.float32)
        self.inputs: list[dict[str, Array]] = [{"x": case.x()}]
        self.outputs: list[dict[str, Array]] = [{"y": self.y}]
        if case.carries_state:
            shape = (1, case.batch, case.hidden)
            names = [f"{part}{layer}" for layer in range(case.layers) for part in "hc"]
            even, odd = ({name: np.zeros(shape, np.float32) for name in names} for _ in range(2))
            self.inputs = [{**self.inputs[0], **state} for state in (even, odd)]
            self.outputs = [
                {"y": self.y, **{f"{name}_n": state[name] for name in names}}
                for state in (odd, even)
            ]

    def work(self, runs: list[Any]) -> Work:
        """The work of calling `runs` in turn; it keeps the arrays alive, which they point to."""
        turns = itertools.cycle(runs)
        call = runs[0] if len(runs) == 1 else lambda: next(turns)()
        return Work(call, lambda _: [self.y[:, 0]])


def _model(case: Case, calls: _Calls) -> bytes:
    """The layers as ONNX LSTM nodes, gates in the order i, o, f, c."""
    onnx: Any = importlib.import_module("onnx")
    helper = onnx.helper
    weights = case.weights()

    def reordered(name: str) -> Array:
        gates = np.split(weights[name], 4)
        return np.concatenate([gates[gate] for gate in (0, 3, 1, 2)])

    tensors = {"axis": np.array([1])} if case.layers > 1 else {}
    nodes = []
    for layer in range(case.layers):
        biases = [reordered(f"bias_{part}_l{layer}") for part in ("ih", "hh")]
        tensors[f"W{layer}"] = reordered(f"weight_ih_l{layer}")[None]
        tensors[f"R{layer}"] = reordered(f"weight_hh_l{layer}")[None]
        tensors[f"B{layer}"] = np.concatenate(biases)[None]
        inputs = [f"x{layer}" if layer else "x", f"W{layer}", f"R{layer}", f"B{layer}"]
        outputs = ["y" if layer == case.layers - 1 else f"y{layer}"]
        if case.carries_state:
            inputs += ["", f"h{layer}", f"c{layer}"]
            outputs += [f"h{layer}_n", f"c{layer}_n"]
        nodes.append(helper.make_node("LSTM", inputs, outputs, hidden_size=case.hidden))
        if layer < case.layers - 1:
            nodes.append(helper.make_node("Squeeze", [f"y{layer}", "axis"], [f"x{layer + 1}"]))

    def values(arrays: dict[str, Array]) -> list[Any]:
        kind = onnx.TensorProto.FLOAT
        return [helper.make_tensor_value_info(k, kind, v.shape) for k, v in arrays.items()]

    graph = helper.make_graph(
        nodes,
        "lstm",
        values(calls.inputs[0]),
        values(calls.outputs[0]),
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    opset = [helper.make_opsetid("", 14)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized


def _quantized(model: bytes) -> bytes:
    """The model with nodes DynamicQuantizeLSTM; it is faster without a scale for each channel."""
    onnx: Any = importlib.import_module("onnx")
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    logging.disable(logging.WARNING)  # its advice to optimize the graph, which has nothing to gain
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "int8.onnx")
            quantization.quantize_dynamic(
                onnx.load_from_string(model), path, weight_type=quantization.QuantType.QInt8
            )
            return path.read_bytes()
    finally:
        logging.disable(logging.NOTSET)


class OnnxRuntime:
    """Threads are those of ``intra_op_num_threads``; ``inter_op_num_threads`` is 1."""

    def __init__(self, threads: int) -> None:
        self._ort: Any = importlib.import_module("onnxruntime")
        self._options = self._ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1

    def prepare(self, case: Case) -> Work:
        """Set a case up."""
        calls = _Calls(case)
        providers = ["CPUExecutionProvider"]
        model = _model(case, calls)
        if case.weights_dtype == "int8":
            model = _quantized(model)
        session = self._ort.InferenceSession(model, self._options, providers)
        runs = []
        for inputs, outputs in zip(calls.inputs, calls.outputs, strict=True):
            binding = session.io_binding()
            for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
                for name, array in arrays.items():
                    bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            runs.append(partial(session.run_with_iobinding, binding))
        return calls.work(runs)


class OpenVino:
    """Threads are those of ``INFERENCE_NUM_THREADS``; float32, tuned for latency."""

    def __init__(self, threads: int) -> None:
        self._openvino: Any = importlib.import_module("openvino")
        self._core = self._openvino.Core()
        self._options = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # the default is bfloat16 on some processors
            "PERFORMANCE_HINT": "LATENCY",
        }

    def prepare(self, case: Case) -> Work:
        """Set a case up."""
        calls = _Calls(case)
        model = self._core.read_model(_model(case, calls), b"")
        compiled = self._core.compile_model(model, "CPU", self._options)
        runs = []
        for inputs, outputs in zip(calls.inputs, calls.outputs, strict=True):
            request = compiled.create_infer_request()
            for name, array in {**inputs, **outputs}.items():
                request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))
            runs.append(request.infer)
        return calls.work(runs)
