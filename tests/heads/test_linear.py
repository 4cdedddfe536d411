"""heads.Linear: against the reference and torch, the same bits for each row, its files."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, Arrays, check_bits, check_close, roundings, same_bits

import fastlstm
from fastlstm import reference
from fastlstm._core import heads, library
from fastlstm._io import tensor_file
from fastlstm.heads import Linear, cross_entropy

every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
with_bias_or_without = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])

# Leading axes, columns, rows of the weights: blocks have 256 rows of x, tiles up to 6, lines of
# outputs 16 or 8 elements, and a chain of a sum 128 terms.
SIZES: list[tuple[tuple[int, ...], int, int]] = [
    ((), 3, 2),
    ((1,), 1, 1),
    ((7,), 64, 65),
    ((2, 3), 300, 5),
    ((5, 51), 17, 16),
    ((257,), 31, 17),
    ((3, 4, 50), 7, 130),
]
every_size = pytest.mark.parametrize(("leading", "columns", "rows"), SIZES)


def random_call(rng: Generator, linear: Linear, leading: tuple[int, ...]) -> tuple[Array, Array]:
    """x and the gradient of y."""
    shapes = (*leading, linear.in_features), (*leading, linear.out_features)
    x, dy = (rng.standard_normal(shape).astype(linear.dtype) for shape in shapes)
    return x, dy


def results(linear: Linear, x: Array, dy: Array) -> Arrays:
    y, tape = linear.forward(x)
    dx, grads = linear.backward(tape, dy)
    assert dx is not None
    return {"y": y, "dx": dx, **grads}


def oracle(linear: Linear, x: Array, dy: Array) -> Arrays:
    weight = linear.parameters["weight"].astype(np.float64)
    bias = linear.parameters.get("bias", np.zeros(len(weight)))
    y = reference.linear(x.astype(np.float64), weight, bias)
    dx, dweight, dbias = reference.linear_backward(x.astype(np.float64), weight, dy)
    named = {"y": y, "dx": dx, "weight": dweight, "bias": dbias}
    return {name: a for name, a in named.items() if name != "bias" or linear.bias}


# What is computed


@every_dtype
@every_size
@with_bias_or_without
def test_against_the_reference(
    rng: Generator,
    isa: str,
    dtype: str,
    bias: bool,
    leading: tuple[int, ...],
    columns: int,
    rows: int,
) -> None:
    """Sums of `columns`, `rows` and up to 256 products of numbers of order one, N / 256 together:
    see `error_bound` in support/compare.py; sums grow with the root of their terms."""
    linear = Linear(columns, rows, bias=bias, dtype=dtype, seed=0)
    assert linear.isa == isa
    x, dy = random_call(rng, linear, leading)
    N = int(np.prod(leading))
    terms = roundings(columns) + roundings(rows) + min(N, 256) + N // 256
    bound = 4 * float(np.finfo(dtype).eps) / 2 * float(np.sqrt(terms))
    found = results(linear, x, dy)
    assert {array.dtype for array in found.values()} == {np.dtype(dtype)}
    check_close(found, oracle(linear, x, dy), bound)


def test_finite_differences(rng: Generator) -> None:
    linear = Linear(4, 3, dtype="float64", seed=0)
    x, dy = random_call(rng, linear, (5, 2))
    found, step = results(linear, x, dy), 1e-6

    def slopes(array: Array, value: Callable[[Array], float]) -> Array:
        each = np.eye(array.size).reshape(-1, *array.shape) * step
        return np.array([(value(array + e) - value(array - e)) / (2 * step) for e in each])

    def with_parameter(name: str) -> Callable[[Array], float]:
        def value(array: Array) -> float:
            other = copy.deepcopy(linear)
            other.parameters[name] = array
            return float(np.sum(dy * other(x)))

        return value

    np.testing.assert_allclose(
        slopes(x, lambda a: float(np.sum(dy * linear(a)))), found["dx"].ravel(), atol=1e-8
    )
    for name, array in linear.parameters.items():
        np.testing.assert_allclose(
            slopes(array, with_parameter(name)), found[name].ravel(), atol=1e-8
        )


@pytest.mark.peer
@every_dtype
@with_bias_or_without
def test_torch(rng: Generator, dtype: str, bias: bool) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Linear(33, 7, bias=bias, dtype=getattr(torch, dtype))
    linear = Linear.from_torch(theirs)
    assert repr(linear) == repr(Linear(33, 7, bias=bias, dtype=dtype))
    x, dy = random_call(rng, linear, (6, 50))
    leaf = torch.tensor(x, requires_grad=True)
    y = theirs(leaf)
    y.backward(torch.tensor(dy))
    expected = {"y": y.detach().numpy(), "dx": leaf.grad.numpy()}
    expected |= {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    check_close(results(linear, x, dy), expected, 1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.peer
def test_initial_parameters_are_distributed_as_in_torch() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = Linear(16, 4000, seed=0), torch.nn.Linear(16, 4000)
    for name, parameter in theirs.named_parameters():
        both = ours.parameters[name], parameter.detach().numpy()
        assert both[0].shape == both[1].shape
        for array in both:
            assert 0.249 < np.abs(array).max() <= 0.25
            assert abs(array.mean()) < 0.01
            assert array.std() == pytest.approx(0.25 / np.sqrt(3), rel=0.05)
    assert same_bits(ours.parameters.flat, Linear(16, 4000, seed=0).parameters.flat)
    assert not same_bits(ours.parameters.flat, Linear(16, 4000, seed=1).parameters.flat)


# The same bits


@every_dtype
def test_a_row_has_the_same_bits_wherever_it_is(rng: Generator, isa: str, dtype: str) -> None:
    linear = Linear(150, 21, dtype=dtype, seed=0)
    x, dy = random_call(rng, linear, (300,))
    together = results(linear, x, dy)
    for part in (slice(5, 6), slice(250, 263), slice(1, 300)):
        alone = results(linear, x[part], dy[part])
        for name in ("y", "dx"):
            assert same_bits(alone[name], together[name][part])
    turned = results(linear, x[::-1], dy[::-1])
    for name in ("y", "dx"):
        assert same_bits(turned[name][::-1].copy(), together[name])


@every_dtype
def test_leading_axes_and_strides_do_not_count(rng: Generator, isa: str, dtype: str) -> None:
    linear = Linear(9, 5, dtype=dtype, seed=0)
    x, dy = random_call(rng, linear, (6, 50))
    flat = results(linear, x.reshape(300, 9), dy.reshape(300, 5))
    found = results(linear, x, dy)
    assert found["dx"].shape == x.shape
    check_bits({n: a.reshape(flat[n].shape) for n, a in found.items()}, flat)
    wide, tall = np.zeros((6, 50, 18), dtype), np.zeros((50, 6, 5), dtype).swapaxes(0, 1)
    wide[..., ::2], tall[...] = x, dy
    check_bits(results(linear, wide[..., ::2], tall), found)


@every_dtype
@pytest.mark.parametrize(("N", "columns", "rows"), [(2048, 64, 30), (300, 40, 200), (19, 512, 65)])
def test_threads(
    rng: Generator,
    isa: str,
    dtype: str,
    N: int,
    columns: int,
    rows: int,
    same_threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "PROCESSORS", 4)
    linear = Linear(columns, rows, dtype=dtype, seed=0)
    call = random_call(rng, linear, (N,))
    fastlstm.set_num_threads(1)
    one = results(linear, *call)
    for threads in (2, 3, 4):
        fastlstm.set_num_threads(threads)
        check_bits(results(linear, *call), one)


@every_dtype
@every_size
def test_instruction_sets(
    rng: Generator,
    dtype: str,
    leading: tuple[int, ...],
    columns: int,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    isas = [isa for isa in fastlstm.isas() if isa != "baseline"]
    if len(isas) < 2:
        pytest.skip(f"one instruction set to compare: {isas}")
    found = []
    for isa in isas:
        monkeypatch.setenv("FASTLSTM_ISA", isa)
        linear = Linear(columns, rows, dtype=dtype, seed=0)
        found.append(results(linear, *random_call(np.random.default_rng(0), linear, leading)))
    for other in found[1:]:
        check_bits(other, found[0])


@every_dtype
@pytest.mark.parametrize(("N", "columns", "rows"), [(1, 3, 5), (20, 64, 2), (600, 33, 40)])
def test_linear_layer_and_loss_are_the_head_of_the_core(
    rng: Generator, isa: str, dtype: str, N: int, columns: int, rows: int
) -> None:
    """The head that language models have computes all in one pass; apart, it is the same bits."""
    linear = Linear(columns, rows, dtype=dtype, seed=0)
    x, _ = random_call(rng, linear, (N,))
    targets = rng.integers(rows, size=N)
    logits, tape = linear.forward(x)
    _, dlogits = cross_entropy(logits, targets)
    dx, grads = linear.backward(tape, dlogits)
    nll, dy = np.empty(N, dtype), np.empty_like(x)
    weight, bias = linear.parameters["weight"], linear.parameters["bias"]
    dweight, dbias = np.zeros_like(weight), np.zeros_like(bias)
    heads.head(*(isa, library.BufferCache(), x, weight, bias, targets, nll, dy, dweight, dbias, 1))
    assert dx is not None
    assert same_bits(dx, dy)
    assert same_bits(grads["weight"], dweight)
    assert same_bits(grads["bias"], dbias)


def test_not_a_number_stays_in_its_row(rng: Generator, isa: str) -> None:
    linear = Linear(20, 7, seed=0)
    x, dy = random_call(rng, linear, (9,))
    good, others = results(linear, x, dy), np.arange(9) != 3
    x[3, 2], dy[3, 1] = np.nan, np.nan
    found = results(linear, x, dy)
    for name in ("y", "dx"):
        assert np.isnan(found[name][3]).all()
        assert same_bits(found[name][others], good[name][others])


# Calls


def test_without_the_gradient_of_the_input(rng: Generator, isa: str) -> None:
    linear = Linear(20, 7, seed=0)
    x, dy = random_call(rng, linear, (300,))
    _, tape = linear.forward(x)
    dx, grads = linear.backward(tape, dy, input_gradient=False)
    assert dx is None
    _, expected = linear.backward(tape, dy)  # a tape may be used again
    assert same_bits(grads.flat, expected.flat)


@pytest.mark.parametrize("leading", [(0,), (0, 3), (4, 0)])
def test_no_rows(leading: tuple[int, ...]) -> None:
    linear = Linear(3, 2)
    found = results(linear, np.ones((*leading, 3), "f4"), np.ones((*leading, 2), "f4"))
    assert found["y"].shape == (*leading, 2)
    assert found["dx"].shape == (*leading, 3)
    assert not found["weight"].any()
    assert not found["bias"].any()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((5, 2), "f4"), ValueError, r"^x: expected \(\.\.\., 3\), got \(5, 2\)$"),
        (np.float32(1), ValueError, r"^x: expected \(\.\.\., 3\), got \(\)$"),
        (np.ones((5, 3)), TypeError, "^x: expected float32, got float64; cast it"),
        ("x", TypeError, "^x: expected float32, got <U1"),
    ],
)
def test_wrong_input(x: Any, error: type[Exception], message: str) -> None:
    linear = Linear(3, 2)
    for call in (linear, linear.forward):
        with pytest.raises(error, match=message):
            call(x)


def test_wrong_tape_and_gradient() -> None:
    linear, other = Linear(3, 2, seed=0), Linear(3, 2, seed=0)
    x = np.ones((5, 3), np.float32)
    y, tape = linear.forward(x)
    with pytest.raises(ValueError, match=r"^tape: expected a tape of this layer, got one of anoth"):
        other.backward(tape, y)
    with pytest.raises(TypeError, match=r"^tape: expected a tape of forward, got ndarray$"):
        linear.backward(y, y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^dy: expected \(5, 2\), got \(5, 3\)$"):
        linear.backward(tape, x)
    with pytest.raises(TypeError, match=r"^dy: expected float32, got float64"):
        linear.backward(tape, y.astype(np.float64))
    for duplicate in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"^a tape cannot be copied or pickled$"):
            duplicate(tape)
    assert repr(tape) == "LinearTape(Linear(3, 2), rows=5)"
    linear.parameters["bias"] = linear.parameters["bias"]
    with pytest.raises(ValueError, match=r"^tape: expected one made with the present parameters"):
        linear.backward(tape, y)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 2), {}, ValueError, "^in_features: expected at least 1, got 0$"),
        ((2, 1.5), {}, TypeError, "^out_features: expected an integer, got float$"),
        ((2, 2), {"dtype": "int8"}, ValueError, "^dtype: expected 'float32' or 'float64', got"),
        ((2, 2), {"seed": -1}, ValueError, "^seed: expected at least 0, got -1$"),
        ((1 << 40, 1 << 20), {}, ValueError, "^in_features, out_features: too large"),
    ],
)
def test_wrong_arguments(arguments: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Linear(*arguments, **options)


def test_calls_see_all_of_a_write_or_nothing(rng: Generator) -> None:
    linear = Linear(40, 30, seed=0)
    x, _ = random_call(rng, linear, (4,))
    before = linear(x)
    with ThreadPoolExecutor(1) as threads:
        with linear.parameters.update() as flat:
            flat[: flat.size // 2] += 1
            assert same_bits(threads.submit(linear, x).result(timeout=60), before)
            flat[flat.size // 2 :] += 1
        written = linear(x)
        linear.parameters.renew()
        with linear.parameters.update() as flat:
            flat[: flat.size // 2] += 1
            waiting = threads.submit(linear, x)  # has no copy of these weights: waits for the rest
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
            flat[: flat.size // 2] -= 1
        assert not same_bits(written, before)
        assert waiting.result(timeout=60) == pytest.approx(written, abs=1e-5)


def test_a_write_while_weights_are_copied_is_seen_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied before it does not pass for what is there after it."""
    linear, x = Linear(3, 2, bias=False, seed=0), np.ones((1, 3), np.float32)
    snapshot, writes = linear.parameters.snapshot, []

    def interrupted() -> Any:
        before = snapshot()
        writes.append(threads.submit(linear.parameters.assign, {"weight": np.ones((2, 3))}))
        wait(writes, timeout=0.2)  # it should wait for the copy; if not, it has time to write
        return before

    with ThreadPoolExecutor(1) as threads:
        with monkeypatch.context() as patch:
            patch.setattr(linear.parameters, "snapshot", interrupted)
            linear(x)
        writes[0].result(timeout=60)
    assert linear(x).tolist() == [[3, 3]]


# Weights in and out


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda linear: pickle.loads(pickle.dumps(linear))],
    ids=["deepcopy", "pickle"],
)
def test_copies(duplicate: Callable[[Linear], Linear]) -> None:
    linear = Linear(4, 3, bias=False, dtype="float64", seed=0)
    x = np.ones((2, 4))
    before = linear(x)
    other = duplicate(linear)
    assert repr(other) == "Linear(4, 3, bias=False, dtype='float64')"
    assert same_bits(other(x), before)
    other.parameters["weight"] = np.zeros((3, 4))
    assert same_bits(linear(x), before)
    assert not other(x).any()


def test_attributes() -> None:
    linear = Linear(4, 3)
    assert (linear.in_features, linear.out_features, linear.bias) == (4, 3, True)
    assert (linear.dtype, repr(linear)) == (np.float32, "Linear(4, 3)")
    for name in ("parameters", "in_features", "dtype"):
        with pytest.raises(AttributeError):
            setattr(linear, name, getattr(linear, name))


def test_state_dict() -> None:
    linear, other = Linear(4, 3, seed=0), Linear(4, 3, seed=1)
    state = linear.state_dict()
    assert list(state) == ["weight", "bias"]
    other.load_state_dict(state)
    assert same_bits(other.parameters.flat, linear.parameters.flat)
    state["weight"][:] = 0
    assert same_bits(other.parameters.flat, linear.parameters.flat)
    with pytest.raises(
        ValueError, match=r"^mapping: expected exactly the names .* missing: weight"
    ):
        other.load_state_dict({"bias": np.zeros(3)})
    other.load_state_dict({"bias": np.zeros(3)}, strict=False)
    assert not other.parameters["bias"].any()
    assert same_bits(other.parameters["weight"], linear.parameters["weight"])


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (7, TypeError, "^source: expected a torch.nn.Linear or a mapping, got int$"),
        ({"w": np.ones((2, 3))}, ValueError, r"^source: expected a matrix 'weight' among \['w'\]"),
        ({"weight": np.ones(2)}, ValueError, "^source: expected a matrix 'weight' among"),
        ({"weight": np.ones((0, 3))}, ValueError, "^out_features: expected at least 1, got 0"),
        ({"weight": np.ones((2, 3)), "c": 1}, ValueError, "^mapping: .* unknown: c$"),
        ({"weight": np.ones((2, 3)), "bias": np.ones(3)}, ValueError, r"^bias: expected \(2,\)"),
    ],
)
def test_wrong_sources(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Linear.from_torch(source)


@every_dtype
@with_bias_or_without
def test_files(tmp_path: Path, dtype: str, bias: bool) -> None:
    linear = Linear(4, 3, bias=bias, dtype=dtype, seed=0)
    linear.save(tmp_path / "a.safetensors")
    again = Linear.load(tmp_path / "a.safetensors")
    assert repr(again) == repr(linear)
    assert same_bits(again.parameters.flat, linear.parameters.flat)
    again.save(tmp_path / "b.safetensors")
    first, second = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "ab")
    assert first == second


def test_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    fastlstm.LSTM(2, 3).save(path)
    with pytest.raises(ValueError, match=r"a safetensors file, but not of a fastlstm\.Linear$"):
        Linear.load(path)
    good = {"in_features": 4, "out_features": 3, "bias": False, "dtype": "float64"}
    weight = np.ones((3, 4))
    for tensors, config in [
        ({"weight": weight}, {**good, "in_features": 5}),
        ({"weight": weight}, {}),
        ({"weight": weight, "bias": np.ones(3)}, good),
        ({"weight": weight, "more": np.ones(3)}, good),
        ({"weight": weight.astype("f4")}, good),
        ({"weight": np.ones((0, 100_000_000))}, {**good, "in_features": 10**8, "out_features": 0}),
        ({}, good),
    ]:
        tensor_file.write(path, "Linear", tensors, config)
        with pytest.raises(ValueError, match="weights and configuration do not agree") as error:
            Linear.load(path)
        assert str(path) in str(error.value), json.dumps(config)
    tensor_file.write(path, "Linear", {"weight": weight}, good)
    assert not Linear.load(path).bias
    with pytest.raises(FileNotFoundError):
        Linear.load(tmp_path / "nothing")


# The binding


def test_the_core_is_given_nothing_out_of_bounds() -> None:
    isa, cache = fastlstm.isas()[0], library.BufferCache()
    y, weight, bias, out = (np.ones(shape, "f4") for shape in ((4, 3), (5, 3), (5,), (4, 5)))
    forward: list[Any] = [y, weight, bias, out]
    backward: list[Any] = [y, weight, out, y.copy(), weight.copy(), bias.copy()]
    heads.linear(isa, cache, *forward, 1)
    heads.linear_backward(isa, cache, *backward, 1)
    others = [None, np.ones((4, 3)), np.ones((4, 6), "f4")[:, ::2], np.ones((4, 5), "f8")]
    others += [np.ones(shape, "f4") for shape in ((3, 3), (4, 2), (6, 3), (4,), (3, 5), (0, 3))]
    for call, good, optional in (
        (heads.linear, forward, {2}),
        (heads.linear_backward, backward, {3, 5}),
    ):
        for place in range(len(good)):
            for other in others:
                if other is None and place in optional:
                    continue
                if other is not None and other.shape == good[place].shape and other.dtype == "f4":
                    continue
                bad = [*good[:place], other, *good[place + 1 :]]
                with pytest.raises((ValueError, TypeError, AttributeError)):
                    call(isa, cache, *bad, 1)
