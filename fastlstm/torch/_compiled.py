"""The same operation for those who record graphs, ``torch.compile``, ``export`` and ``jit.trace``.

It is registered with torch, which takes ten times as long for each call with gradients as
`_ops.Run`: hence only there.
"""

# Not all of torch's functions are typed.
# mypy: disable-error-code="no-untyped-call, untyped-decorator"

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastlstm.torch import _ops
from fastlstm.torch._ops import Gradients, Outputs

RUN = """(Tensor x, Tensor? batch_sizes, Tensor[] states, Tensor[] weights, int number, bool taped,
    bool batch_first, float dropout, str mode, int input_size, int hidden_size, int num_layers,
    bool bias, bool bidirectional, int proj_size,
    str weights_dtype) -> (Tensor, Tensor, Tensor, Tensor)"""
BACKWARD = """(Tensor tape, Tensor? batch_sizes, Tensor dy, Tensor dh_n, Tensor dc_n,
    bool input_gradient, int[] x_shape, int size) -> (Tensor, Tensor, Tensor, Tensor)"""

run: Any = torch.library.custom_op("fastlstm::run", _ops.run, mutates_args=(), schema=RUN)
run_backward: Any = torch.library.custom_op(
    "fastlstm::run_backward", _ops.run_backward, mutates_args=(), schema=BACKWARD
)


@run.register_fake
def _(
    x: Tensor,
    batch_sizes: Tensor | None,
    states: list[Tensor],
    weights: list[Tensor],
    number: int,
    taped: bool,
    batch_first: bool,
    dropout: float,
    mode: str,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    proj_size: int,
    weights_dtype: str,
) -> Outputs:
    directions = 2 if bidirectional else 1
    output_size = proj_size or hidden_size
    batch: Any
    if batch_sizes is None:
        batch = x.shape[0] if batch_first else x.shape[1]
    else:
        batch = states[0].shape[1] if states else torch.library.get_ctx().new_dynamic_size()
    y = x.new_empty((*x.shape[:-1], directions * output_size))
    h_n = x.new_empty((num_layers * directions, batch, output_size))
    cells = (num_layers * directions, batch, hidden_size)
    c_n = x.new_empty(cells if mode == "LSTM" else 0)
    return y, h_n, c_n, x.new_empty(1 if taped else 0, dtype=torch.int64)


@run_backward.register_fake
def _(
    tape: Tensor,
    batch_sizes: Tensor | None,
    dy: Tensor,
    dh_n: Tensor,
    dc_n: Tensor,
    input_gradient: bool,
    x_shape: list[int],
    size: int,
) -> Outputs:
    dx = dy.new_empty(x_shape if input_gradient else 0)
    return dx, torch.empty_like(dh_n), torch.empty_like(dc_n), dy.new_empty(size)


@run_backward.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Outputs, tuple[int, ...]]:
    """One gradient of a batch after the other, as torch does it too, but with a warning."""

    def at(i: int) -> Iterator[Any]:
        for argument, dim in zip(arguments, in_dims, strict=True):
            yield argument.select(dim, i) if isinstance(dim, int) else argument

    found = zip(*(run_backward(*at(i)) for i in range(info.batch_size)), strict=True)
    dx, dh_0, dc_0, flat = map(torch.stack, found)
    return (dx, dh_0, dc_0, flat), (0, 0, 0, 0)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    x, batch_sizes, states, weights, *_ = inputs
    _ops.save(ctx, x, batch_sizes, states, weights, output[3])


def backward(ctx: Any, *gradients: Tensor) -> Gradients:
    dx, dstates, dweights = _ops.back_propagate(run_backward, ctx, gradients)
    return dx, None, dstates, dweights, *[None] * 12


run.register_autograd(backward, setup_context=setup_context)
