"""PyTorch: under ``inference_mode``, and autograd for training.

A single step is a stack of ``LSTMCell``: 1.5 times faster than ``LSTM`` with T = 1, or more.  With
weights of fewer bits ``LSTM`` is the faster one: ``quantize_dynamic`` of ``torch.ao.quantization``.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from fastlstm.bench.cases import Case
from fastlstm.bench.peers import Work


class Torch:
    """Threads are set by ``torch.set_num_threads``."""

    def __init__(self, threads: int) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._torch.set_num_threads(threads)

    def prepare(self, case: Case) -> Work:
        """Set a case up."""
        torch = self._torch
        weights = {name: torch.tensor(value) for name, value in case.weights().items()}
        x = torch.tensor(case.x())
        if case.work == "step" and case.weights_dtype == "float32":
            return self._steps(case, weights, x[0])
        module = torch.nn.LSTM(case.input, case.hidden, case.layers)
        module.load_state_dict(weights)
        if case.weights_dtype != "float32":
            module = self._quantized(module, case.weights_dtype)
        if case.work == "train":
            return self._training(module, x.requires_grad_(), torch.tensor(case.dy()))
        state: Any = None
        carries_state = case.carries_state

        def infer() -> Any:
            nonlocal state
            y, after = module(x, state)
            if carries_state:
                state = after
            return y

        return Work(infer, lambda y: [y.numpy()], torch.inference_mode)

    def _quantized(self, module: Any, weights_dtype: str) -> Any:
        torch = self._torch
        dtype = {"int8": torch.qint8, "float16": torch.float16}[weights_dtype]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated for a package that has no LSTM
            # Only modules inside of another one are replaced.
            parts = torch.ao.quantization.quantize_dynamic(
                torch.nn.Sequential(module), {torch.nn.LSTM}, dtype=dtype
            )
        return parts[0]

    def _steps(self, case: Case, weights: Any, x_t: Any) -> Work:
        torch = self._torch
        cells = []
        for layer, inputs in enumerate(case.inputs):
            suffix = f"_l{layer}"
            cells.append(torch.nn.LSTMCell(inputs, case.hidden))
            own = {name: value for name, value in weights.items() if name.endswith(suffix)}
            cells[-1].load_state_dict({k.removesuffix(suffix): v for k, v in own.items()})
        states: list[Any] = [None] * case.layers

        def step() -> Any:
            h = x_t
            for layer, cell in enumerate(cells):
                states[layer] = cell(h, states[layer])
                h = states[layer][0]
            return h

        return Work(step, lambda h: [h[None].numpy()], torch.inference_mode)

    def _training(self, module: Any, x: Any, dy: Any) -> Work:
        torch = self._torch
        wanted = [x, *module.parameters()]

        def train() -> Any:
            y, _ = module(x)
            return y, torch.autograd.grad(y, wanted, dy)

        return Work(train, lambda result: [t.detach().numpy() for t in (result[0], *result[1])])
