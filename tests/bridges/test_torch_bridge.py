"""`fastlstm.torch`: modules of torch that fastlstm computes; test_torch_grid has the numbers."""

from __future__ import annotations

import copy
import gc
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
    state_of,
    torch_settings,  # noqa: F401
)

import fastlstm.torch  # noqa: E402
from fastlstm.torch import _ops  # noqa: E402

pytestmark = pytest.mark.peer

CELLS = ["LSTM", "GRU", "RNN"]


# What a user of torch sees.


@pytest.mark.parametrize("cell", CELLS)
def test_is_a_module_of_torch(cell: str) -> None:
    theirs, ours = pair(cell, bidirectional=True)
    made = getattr(fastlstm.torch, cell)(I, H, L, bidirectional=True)
    assert isinstance(ours, getattr(torch.nn, cell))
    assert repr(made) == repr(ours) == f"fastlstm.torch.{theirs!r}"
    assert [n for n, _ in made.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert made.load_state_dict(theirs.state_dict()).missing_keys == []
    other = copy.deepcopy(theirs)
    other.load_state_dict(made.state_dict())
    x = sequence()
    assert_close(made(x), other(x))


def test_state_dicts_of_other_sizes_are_refused() -> None:
    ours = fastlstm.torch.LSTM(I, H)
    with pytest.raises(RuntimeError, match="size mismatch for weight_ih_l0"):
        ours.load_state_dict(torch.nn.LSTM(I + 1, H).state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*weight_hh_l1"):
        fastlstm.torch.LSTM(I, H, 2).load_state_dict(ours.state_dict())


def test_constructor_is_that_of_torch() -> None:
    rnn = fastlstm.torch.RNN(I, H, 1, "relu", False, True, dtype=torch.float64)
    assert (rnn.nonlinearity, rnn.bias, rnn.batch_first) == ("relu", False, True)
    assert rnn.weight_ih_l0.dtype == torch.float64
    with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
        fastlstm.torch.LSTM(I, 0)
    with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
        fastlstm.torch.GRU(I, H, proj_size=2)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_without_a_batch(cell: str, batch_first: bool) -> None:
    theirs, ours = pair(cell, batch_first=batch_first)
    x, state = sequence(T, I), state_of(theirs)
    state = tuple(part[:, 0] for part in state) if cell == "LSTM" else state[:, 0]
    assert_close(ours(x), theirs(x))
    assert_close(ours(x, state), theirs(x, state))


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_to_do(cell: str) -> None:
    """Unlike torch, no steps are legal: the state is returned."""
    _, ours = pair(cell)
    state = state_of(ours)
    y, state_n = ours(sequence(0, B, I), state)
    assert y.shape == (0, B, H)
    assert_close(state_n, state)
    y, _ = ours(sequence(T, 0, I))
    assert y.shape == (T, 0, H)
    y.sum().backward()
    assert ours.weight_hh_l0.grad.abs().max() == 0


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_packed_sequences_in_any_order(cell: str, bidirectional: bool, with_state: bool) -> None:
    theirs, ours = pair(cell, bidirectional=bidirectional)
    x, state, found = sequence(), state_of(theirs) if with_state else None, []
    for module in (theirs, ours):
        leaf = x.clone().requires_grad_()
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            leaf, [2, 6, 1, 4, 3], enforce_sorted=False
        )
        y, state_n = module(packed, state)
        padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(y)
        h_n = state_n[0] if cell == "LSTM" else state_n
        (padded.pow(2).sum() + (h_n * torch.arange(B)[:, None]).sum()).backward()
        grads = [p.grad for p in module.parameters()]
        found.append((padded, lengths, state_n, leaf.grad, grads, y.sorted_indices))
    for got, expected in zip(found[1], found[0], strict=True):
        assert_close(got, expected)


# Gradients.


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_gradcheck(cell: str, packed: bool) -> None:
    module = getattr(fastlstm.torch, cell)(2, 3, 2, bidirectional=True).double()
    names = [name for name, _ in module.named_parameters()]
    batch_sizes = torch.tensor([3, 2, 2, 1])

    def outputs(x: Any, h: Any, c: Any, *weights: Any) -> Any:
        given = torch.nn.utils.rnn.PackedSequence(x, batch_sizes) if packed else x
        state = (h, c) if cell == "LSTM" else h + c
        arguments = dict(zip(names, weights, strict=True))
        y, state_n = torch.func.functional_call(module, arguments, (given, state))
        return (y.data if packed else y, *(state_n if cell == "LSTM" else [state_n]))

    shapes = [(8, 2) if packed else (4, 3, 2), (4, 3, 3), (4, 3, 3)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
    at = (*inputs, *weights)
    assert torch.autograd.gradcheck(outputs, at, fast_mode=True, check_batched_grad=True)


@pytest.mark.filterwarnings("ignore:There is a performance drop .* for aten.*:UserWarning")
@pytest.mark.parametrize("way", ["is_grads_batched", "vmap"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_batched_gradients(cell: str, packed: bool, way: str) -> None:
    """Many gradients of the same outputs in one call, as torch's Jacobians need them."""
    found = []
    for module in pair(cell, bidirectional=True):
        torch.manual_seed(2)
        x, state = sequence(requires_grad=True), state_of(module)
        parts = [part.requires_grad_() for part in (state if cell == "LSTM" else [state])]
        pack = torch.nn.utils.rnn.pack_padded_sequence
        given = pack(x, [6, 4, 4, 2, 1]) if packed else x
        y, state_n = module(given, state)
        outputs = [y.data if packed else y, *(state_n if cell == "LSTM" else [state_n])]
        dys = [torch.randn(7, *out.shape) for out in outputs]
        inputs = [x, *parts, *module.parameters()]

        def gradients(*dys: Any, outputs: Any = outputs, inputs: Any = inputs, **how: Any) -> Any:
            return torch.autograd.grad(outputs, inputs, dys, **how)

        if way == "vmap":
            found.append(torch.vmap(gradients)(*dys))
        else:
            found.append(gradients(*dys, is_grads_batched=True))
    for got, expected in zip(found[1], found[0], strict=True):
        assert_close(got, expected)


def test_jacobian() -> None:
    theirs, ours = pair()
    x = sequence()
    jacobian = torch.autograd.functional.jacobian
    expected = jacobian(lambda x: theirs(x)[0], x)
    assert_close(jacobian(lambda x: ours(x)[0], x, vectorize=True), expected)


@pytest.mark.parametrize("wanted", ["x", "h_0", "weight_hh_l1"])
def test_only_what_requires_a_gradient_gets_one(wanted: str) -> None:
    theirs, ours = pair()
    x, (h, c) = sequence(), state_of(theirs)
    found = []
    for module in (theirs, ours):
        module.requires_grad_(False)
        tensors = {"x": x.clone(), "h_0": h.clone(), "c_0": c.clone()}
        tensors |= dict(module.named_parameters())
        tensors[wanted].requires_grad_()
        y, _ = module(tensors["x"], (tensors["h_0"], tensors["c_0"]))
        y.pow(2).sum().backward()
        assert [name for name, tensor in tensors.items() if tensor.grad is not None] == [wanted]
        found.append(tensors[wanted].grad)
    assert_close(found[1], found[0])


@pytest.mark.parametrize("source", ["input", "weight"])
def test_a_second_derivative_is_refused(source: str) -> None:
    """Also where no gradient depends on what is differentiated: it must not be silently zero."""
    _, ours = pair()
    x = sequence(requires_grad=source == "input")
    of = x if source == "input" else ours.weight_ih_l0
    slope = torch.autograd.grad(ours(x)[0].sum(), of, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        (slope.pow(2).sum() + of.sum()).backward()


def test_a_second_derivative_of_batched_gradients_is_refused() -> None:
    _, ours = pair()
    x = sequence(requires_grad=True)
    y = ours(x)[0]
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(y, x, y.detach()[None], is_grads_batched=True, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.functional.hessian(lambda x: ours(x)[0].sum(), x, vectorize=True)


def test_transforms_are_refused() -> None:
    _, ours = pair()

    def loss(x: Any) -> Any:
        return ours(x)[0].sum()

    with pytest.raises(RuntimeError, match=r"no transforms of torch\.func"):
        torch.func.grad(loss)(sequence())


def test_input_changed_before_backward_is_noticed() -> None:
    _, ours = pair()
    x = sequence()
    y, _ = ours(x)
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_gradients_belong_to_the_weights_of_their_forward_call() -> None:
    """With two sets of weights in one graph, and weights that change before `backward`."""
    theirs, ours = pair()
    x, found = sequence(), []
    for module in (theirs, ours):
        first = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
        second = {name: (2 * p).detach().requires_grad_() for name, p in first.items()}
        ys = [torch.func.functional_call(module, at, (x,))[0] for at in (first, second)]
        if module is ours:
            with torch.no_grad():
                first["weight_hh_l0"].zero_()
        sum(y.pow(2).sum() for y in ys).backward()
        found.append([p.grad for p in (*first.values(), *second.values())])
    assert_close(found[1], found[0])


def test_output_changed_before_backward() -> None:
    theirs, ours = pair()
    x, found = sequence(requires_grad=True), []
    for module in (theirs, ours):
        y, (h_n, _) = module(x)
        y = y.mul_(2) if module is ours else y * 2
        found.append(torch.autograd.grad(y.sum() + (h_n * 3).sum(), x)[0])
    assert_close(found[1], found[0])


def test_hooks_that_copy_the_tape_are_told() -> None:
    _, ours = pair()
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda tensor: tensor):
        y, _ = ours(sequence())
    with pytest.raises(RuntimeError, match="no tape; a hook has copied what autograd saved"):
        y.sum().backward()


def test_graph_kept_and_used_again() -> None:
    _, ours = pair()
    y, _ = ours(sequence())
    y.sum().backward(retain_graph=True)
    once = ours.weight_hh_l0.grad.clone()
    y.sum().backward()
    assert_close(ours.weight_hh_l0.grad, 2 * once)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


def test_backward_frees_the_tape() -> None:
    _, ours = pair()
    gc.collect()
    before = len(_ops._tapes)
    y = ours(sequence())[0]
    assert len(_ops._tapes) == before + 1
    y.sum().backward()
    assert len(_ops._tapes) == before  # although y still has its graph
    y = ours(sequence())[0]
    del y
    assert len(_ops._tapes) == before


def test_checkpointing() -> None:
    _, ours = pair(dropout=0.5)
    x, found = sequence(requires_grad=True), []
    for recomputed in (False, True):
        torch.manual_seed(1)
        run = torch.utils.checkpoint.checkpoint
        y = run(ours, x, use_reentrant=False)[0] if recomputed else ours(x)[0]
        found.append(torch.autograd.grad(y.pow(2).sum(), x)[0])
    assert torch.equal(*found)


# Training.


@pytest.mark.parametrize("cell", CELLS)
def test_optimizers_follow_the_same_path(cell: str) -> None:
    models = [torch.nn.ModuleList([module, torch.nn.Linear(H, 1)]) for module in pair(cell)]
    models[1][1].load_state_dict(models[0][1].state_dict())
    x, target, losses = sequence(), torch.randn(B, 1), []
    for model in models:
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        path = []
        for _ in range(20):
            loss = (model[1](model[0](x)[0][-1]) - target).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            path.append(loss.item())
        losses.append(path)
    assert losses[0][-1] < 0.8 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_dropout() -> None:
    _, ours = pair(dropout=0.5)
    x = sequence()
    torch.manual_seed(1)
    a, b = ours(x)[0], ours(x)[0]
    torch.manual_seed(1)
    with torch.no_grad():  # in training mode there is dropout without gradients, too
        assert torch.equal(ours(x)[0], a)
    assert not torch.equal(a, b)
    ours.eval()
    without = ours(x)[0]
    assert without.requires_grad
    ours.dropout = 0.0
    assert torch.equal(ours.train()(x)[0], without)
    ours.dropout = 1.0
    assert ours(x)[0].std(dim=1).max() < 1e-6  # nothing of x comes through


def test_inference_makes_no_tape() -> None:
    _, ours = pair()
    before = len(_ops._tapes)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            y, (h_n, _) = ours(sequence())
            assert len(_ops._tapes) == before
        assert not y.requires_grad
        assert not h_n.requires_grad


# Beside other parts of torch.


class Features(torch.utils.data.Dataset):  # type: ignore[misc,name-defined]
    """Items that a module computes."""

    def __init__(self, module: Any) -> None:
        self.module, self.x = module, sequence(8, T, 64)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        with torch.no_grad():
            return self.module(self.x[i])[0]


def test_workers_of_a_data_loader() -> None:
    module = fastlstm.torch.LSTM(64, 128, 2)
    data = Features(module)
    expected = torch.stack([data[i] for i in range(8)])
    torch.set_num_threads(2)
    module(sequence(50, 64, 64))[0].sum().backward()  # threads run before the fork
    loader = torch.utils.data.DataLoader(
        data, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert torch.equal(torch.cat(list(loader)), expected)


def test_threads_share_a_module() -> None:
    from concurrent.futures import ThreadPoolExecutor

    module = fastlstm.torch.GRU(I, H, 2)
    xs = [sequence(T, B, I, requires_grad=True) for _ in range(16)]

    def slope(x: Any) -> Any:
        return torch.autograd.grad(module(x)[0].pow(2).sum(), x)[0]

    expected = [slope(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(slope, xs), expected, strict=True):
            assert torch.equal(got, want)
