"""The differentiable operation behind the modules, from tensors to tensors."""

# Not all of torch's functions are typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastlstm._layers.tape import Tape
from fastlstm.torch._layers import Layers, Spec, of
from fastlstm.torch._packed import PackedRows

Array = NDArray[Any]
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Any, ...]

TWICE = "fastlstm.torch: a module cannot be differentiated twice; use torch's own there"

_numbers = itertools.count()
_tapes: WeakValueDictionary[int, TapeArray] = WeakValueDictionary()
_layers: WeakValueDictionary[int, Layers] = WeakValueDictionary()


class TapeArray(np.ndarray[Any, np.dtype[np.int64]]):
    """The number of a tape, which lives as long as this array.

    A tensor over it keeps the array alive.  So autograd, which saves tensors, frees the tape when
    it frees what it saved.
    """

    tape: Tape[Any]


def kept(tape: Tape[Any]) -> Tensor:
    """A tensor that stands for a tape."""
    number = next(_numbers)
    array = np.array([number], np.int64).view(TapeArray)
    array.tape = tape
    _tapes[number] = array
    return torch.from_numpy(array)


def new_layers() -> tuple[int, Layers]:
    """A place for the layer of a module, alive as long as the module holds it, and its number."""
    number, layers = next(_numbers), Layers()
    _layers[number] = layers
    return number, layers


def run(
    x: Tensor,
    batch_sizes: Tensor | None,
    states: list[Tensor],
    weights: list[Tensor],
    number: int,
    taped: bool,
    batch_first: bool,
    dropout: float,
    *spec: Any,
) -> Outputs:
    """y, h_n, c_n and what stands for the tape; without a cell state c_n is empty.

    With batch sizes `x` and y are the data of packed sequences.
    """
    layers = _layers.get(number) or Layers()  # a compiled graph may outlive its module
    layer = layers.get(Spec(*spec), weights, batch_first=batch_first, dropout=dropout)
    rows = None if batch_sizes is None else PackedRows(of(batch_sizes))
    sequence = of(x) if rows is None else rows.padded(of(x))
    lengths = None if rows is None else rows.lengths
    state = _state([of(state) for state in states])
    tape = torch.empty(0, dtype=torch.int64)
    if taped:
        if dropout > 0:  # so that torch.manual_seed makes it repeat
            seed = int(torch.randint(torch.iinfo(torch.int64).max, ()))
            layer._dropout_keys = np.random.default_rng(seed)
        y, state_n, record = layer.forward(sequence, state, lengths=lengths)
        tape = kept(record)
    else:
        y, state_n = layer(sequence, state, lengths=lengths)
    if rows is not None:
        y = rows.packed(y)
    return torch.from_numpy(y), *_tensors(state_n), tape


def run_backward(
    tape: Tensor,
    batch_sizes: Tensor | None,
    dy: Tensor,
    dh_n: Tensor,
    dc_n: Tensor,
    input_gradient: bool,
    x_shape: Sequence[int],
    size: int,
) -> Outputs:
    """dx, dh_0, dc_0 and the gradients of all weights in one vector; an unwanted dx is empty.

    The shapes are for those who record graphs.
    """
    holder = _tapes.get(int(tape))
    if holder is None:
        raise RuntimeError("fastlstm.torch: no tape; a hook has copied what autograd saved")
    layer = holder.tape._layer
    rows = None if batch_sizes is None else PackedRows(of(batch_sizes))
    gradient = of(dy) if rows is None else rows.padded(of(dy))
    dstate = _state([of(part) for part in (dh_n, dc_n) if part.dim() > 1])
    dx, dstate_0, grads = layer.backward(
        holder.tape, gradient, dstate, input_gradient=input_gradient
    )
    if dx is None:
        dx = np.empty(0, layer.dtype)
    elif rows is not None:
        dx = rows.packed(dx)
    return torch.from_numpy(dx), *_tensors(dstate_0), torch.from_numpy(grads.flat)


@functools.cache
def hide() -> None:
    """Keep ``torch.compile`` from looking into the functions here, which it cannot trace.

    It does look if it leaves the module itself to Python, as it does with torch's own.
    """
    global run
    run = torch.compiler.disable(run)
    Run.forward = staticmethod(torch.compiler.disable(Run.forward))  # type: ignore[method-assign]
    Run.backward = staticmethod(torch.compiler.disable(Run.backward))  # type: ignore[method-assign]


def _state(parts: list[Array]) -> Any:
    """A state as a layer takes it."""
    if not parts:
        return None
    return tuple(parts) if len(parts) == 2 else parts[0]


def _tensors(state: Any) -> tuple[Tensor, Tensor]:
    """h and c of a layer's state."""
    h, c = state if isinstance(state, tuple) else (state, np.empty(0, state.dtype))
    return torch.from_numpy(h), torch.from_numpy(c)


class Run(torch.autograd.Function):
    """`run` with gradients; states and weights come one by one."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        batch_sizes: Tensor | None,
        count: int,
        options: tuple[Any, ...],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """y, h_n and c_n."""
        states, weights = list(tensors[:count]), list(tensors[count:])
        *outputs, tape = run(x, batch_sizes, states, weights, *options)
        save(ctx, x, batch_sizes, states, weights, tape)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        """Gradients of all arguments."""
        dx, dstates, dweights = back_propagate(run_backward, ctx, gradients)
        return dx, None, None, None, *dstates, *dweights


class Once(torch.autograd.Function):
    """The identity of some tensors, which refuses to be differentiated."""

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The first tensors; they depend on the others."""
        return tuple(tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> NoReturn:
        """Raise."""
        raise RuntimeError(TWICE)


def save(
    ctx: Any,
    x: Tensor,
    batch_sizes: Tensor | None,
    states: list[Tensor],
    weights: list[Tensor],
    tape: Tensor,
) -> None:
    """Keep what `back_propagate` needs.

    The tape reads `x`, so autograd must find out if that is changed.  It has values of its own of
    states and weights, which may change.
    """
    ctx.save_for_backward(tape, x, *([] if batch_sizes is None else [batch_sizes]))
    ctx.states, ctx.weights = states, weights


def back_propagate(
    run_backward: Callable[..., Outputs], ctx: Any, gradients: tuple[Tensor, ...]
) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """Gradients of the input, of each of the given states and of each weight."""
    if any(map(is_batched, gradients)):
        if torch.is_grad_enabled():  # the results would depend on nothing
            raise RuntimeError(TWICE)
        # torch calls a registered operation for one gradient of the batch after the other.
        run_backward = torch.ops.fastlstm.run_backward
    tape, x, *rest = ctx.saved_tensors
    wanted, shapes = ctx.needs_input_grad[0], [weight.shape for weight in ctx.weights]
    batch_sizes, size = rest[0] if rest else None, sum(shape.numel() for shape in shapes)
    with torch.no_grad():
        dx, dh, dc, flat = run_backward(tape, batch_sizes, *gradients[:3], wanted, x.shape, size)
    if torch.is_grad_enabled():  # create_graph: a second derivative must not be silently zero
        sources = [t for t in (x, *ctx.states, *ctx.weights, *gradients) if t.requires_grad]
        dx, dh, dc, flat = Once.apply(4, dx, dh, dc, flat, *sources)
    parts = flat.split([shape.numel() for shape in shapes])
    dweights = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
    return dx if wanted else None, [dh, dc][: len(ctx.states)], dweights


def is_batched(tensor: Tensor) -> bool:
    """Whether it stands for many, as with ``torch.autograd.grad(is_grads_batched=True)``."""
    functorch = torch._C._functorch
    return bool(functorch.is_legacy_batchedtensor(tensor) or functorch.is_batchedtensor(tensor))
