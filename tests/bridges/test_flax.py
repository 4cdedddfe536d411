"""Weights from Flax and back: linen and nnx, live."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, check_close, error_bound, same_bits
from support.flax_trees import LAYERS, B, H, I, T, check_trees, every_api
from support.processes import script

import fastlstm
from fastlstm.flax import from_flax, to_flax_params

LINEN = {"LSTMCell": "lstm", "OptimizedLSTMCell": "lstm", "GRUCell": "gru", "SimpleCell": "rnn"}
BESTS = {"lstm": "OptimizedLSTMCell", "gru": "GRUCell", "rnn": "SimpleCell"}
every_cell = pytest.mark.parametrize("kind", LINEN)


@pytest.fixture(scope="module")
def flax() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports
        pytest.importorskip("jax")
        pytest.importorskip("flax.nnx")
        pytest.importorskip("flax.linen")
        return pytest.importorskip("flax")


def randomized(rng: Generator, tree: Any, dtype: str) -> Any:
    """Weights and biases that are all different, as NumPy arrays."""
    if hasattr(tree, "items"):
        return {name: randomized(rng, branch, dtype) for name, branch in tree.items()}
    return (0.4 * rng.standard_normal(tree.shape)).astype(dtype)


def plain(tree: Any) -> Any:
    """Nested dictionaries of NumPy arrays."""
    if hasattr(tree, "items"):
        return {name: plain(branch) for name, branch in tree.items()}
    return np.asarray(tree)


class Linen:
    """Modules of linen and their parameters."""

    def __init__(self, flax: Any, kind: str, inputs: int, bidirectional: bool, dtype: str):
        import jax

        nn, self.bidirectional = flax.linen, bidirectional
        cells = [
            nn.RNN(getattr(nn, kind)(H, param_dtype=dtype), return_carry=True)
            for _ in range(1 + bidirectional)
        ]
        self.module = nn.Bidirectional(*cells, return_carry=True) if bidirectional else cells[0]
        x = np.zeros((B, T, inputs), dtype)
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), x)
        self.params: Any = shapes["params"]  # until they are replaced by arrays

    def run(self, x: Any, carry: Any) -> Any:
        return self.module.apply({"params": self.params}, x, initial_carry=carry)


class NNX:
    """The same of nnx."""

    def __init__(self, flax: Any, kind: str, inputs: int, bidirectional: bool, dtype: str):
        nnx, self.nnx, self.bidirectional = flax.nnx, flax.nnx, bidirectional
        rngs, zeros = nnx.Rngs(0), nnx.initializers.zeros_init()  # faster than orthogonal ones
        options = {"kernel_init": zeros, "recurrent_kernel_init": zeros}
        options |= {"dtype": dtype, "param_dtype": dtype}
        cells = [
            nnx.RNN(
                getattr(nnx, kind)(inputs, H, **options, rngs=rngs), return_carry=True, rngs=rngs
            )
            for _ in range(1 + bidirectional)
        ]
        self.module = cells[0]
        if bidirectional:
            self.module = nnx.Bidirectional(*cells, return_carry=True, rngs=rngs)

    @property
    def params(self) -> Any:
        return plain(self.nnx.state(self.module, self.nnx.Param))

    @params.setter
    def params(self, tree: Any) -> None:
        self.nnx.update(self.module, tree)

    def run(self, x: Any, carry: Any) -> Any:
        return self.module(x, initial_carry=carry)


Module = Linen | NNX
APIS = {"linen": Linen, "nnx": NNX}


def stack_of(rng: Generator, flax: Any, api: str, kind: str, dtype: str, *ways: bool) -> list[Any]:
    """Modules with random parameters, each reading the one before; bidirectional or not."""
    inputs, made = I, []
    for bidirectional in ways:
        module = APIS[api](flax, kind, inputs, bidirectional, dtype)
        module.params = randomized(rng, module.params, dtype)
        made.append(module)
        inputs = H * (1 + bidirectional)
    return made


def run(modules: list[Module], x: Array, state: Any) -> dict[str, Array]:
    """What modules of Flax return, in our layout: their carry is (c, h)."""
    states = state if isinstance(state, tuple) else (state,)
    place, y, finals = 0, x, []
    for module in modules:
        carries = []
        for _ in range(1 + module.bidirectional):
            carry = tuple(s[place] for s in states)[::-1]
            carries.append(carry if len(carry) == 2 else carry[0])
            place += 1
        final, y = module.run(y, tuple(carries) if module.bidirectional else carries[0])
        finals += list(final) if module.bidirectional else [final]
    two = len(states) == 2
    kinds = [np.stack([np.asarray(f[k] if two else f) for f in finals]) for k in range(len(states))]
    return named(np.asarray(y), tuple(kinds[::-1]))


def named(y: Any, state: Any) -> dict[str, Array]:
    states = state if isinstance(state, tuple) else (state,)
    return {"y": y, **{f"state {n}": s for n, s in enumerate(states)}}


def check(rng: Generator, modules: list[Module], ours: Any) -> None:
    shape = (ours.num_layers * (1 + ours.bidirectional), B, H)
    x, h, c = (rng.standard_normal(s).astype(ours.dtype) for s in [(B, T, I), shape, shape])
    state = (h, c) if isinstance(ours, fastlstm.LSTM) else h
    check_close(named(*ours(x, state)), run(modules, x, state), 2 * error_bound(ours, T, B))


@pytest.mark.peer
@pytest.mark.parametrize(("dtype", "bidirectional"), [("float32", False), ("float64", True)])
@every_cell
@every_api
def test_same_results(
    rng: Generator, flax: Any, api: str, kind: str, dtype: str, bidirectional: bool
) -> None:
    import jax

    with jax.enable_x64(dtype == "float64"):
        theirs = stack_of(rng, flax, api, kind, dtype, bidirectional, bidirectional)
        ours = from_flax([module.params for module in theirs])
        assert type(ours) is LAYERS[LINEN[kind]]
        sizes = (ours.input_size, ours.hidden_size, ours.num_layers, ours.bidirectional)
        assert (*sizes, ours.dtype) == (I, H, 2, bidirectional, dtype)
        check(rng, theirs, ours)
        if (api, kind) != ("nnx", "LSTMCell"):  # which has other names than what is exported
            for tree, module in zip(to_flax_params(ours, api), theirs, strict=True):
                check_trees(tree, module.params)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("cell", "bias"), [("lstm", True), ("gru", True), ("rnn", True), ("lstm", False)]
)
@every_api
def test_ours_in_flax(rng: Generator, flax: Any, api: str, cell: str, bias: bool) -> None:
    """A layer with two different biases, carried over to Flax."""
    ours = LAYERS[cell](I, H, bias=bias, batch_first=True, bidirectional=True, seed=1)
    if (api, cell, bias) == ("nnx", "gru", True):
        for name in [name for name in ours.parameters if name.startswith("bias_hh")]:
            ours.parameters[name] = np.append(ours.parameters[name][: 2 * H], np.zeros(H))
    theirs = stack_of(rng, flax, api, BESTS[cell], "float32", True)
    for module, tree in zip(theirs, to_flax_params(ours, api), strict=True):
        module.params = tree
    check(rng, theirs, ours)


@pytest.mark.peer
def test_relu(rng: Generator, flax: Any) -> None:
    theirs = Linen(flax, "SimpleCell", I, False, "float32")
    theirs.params = randomized(rng, theirs.params, "float32")
    cell = flax.linen.SimpleCell(H, activation_fn=flax.linen.relu)
    theirs.module = flax.linen.RNN(cell, return_carry=True)
    check(rng, [theirs], from_flax(theirs.params, nonlinearity="relu"))


@pytest.mark.peer
@every_api
def test_lengths(rng: Generator, flax: Any, api: str) -> None:
    """Up to the end of each row; past it Flax returns what is no result."""
    [theirs] = stack_of(rng, flax, api, "OptimizedLSTMCell", "float32", False)
    ours = from_flax(theirs.params)
    x = rng.standard_normal((B, T, I)).astype("f4")
    lengths = np.array([T, 1, 4, 3, T])
    (c_n, h_n), y = theirs.module(x, seq_lengths=lengths) if api == "nnx" else theirs.module.apply(
        {"params": theirs.params}, x, seq_lengths=lengths
    )  # fmt: skip
    inside = np.arange(T)[:, None] < lengths[:, None, None]
    expected = named(np.where(inside, y, 0), (np.asarray(h_n)[None], np.asarray(c_n)[None]))
    check_close(named(*ours(x, lengths=lengths)), expected, 2 * error_bound(ours, T, B))


@pytest.mark.peer
def test_trees_as_users_have_them(rng: Generator, flax: Any) -> None:
    """Variables of linen, states of nnx with their random streams, cells alone."""
    [theirs] = stack_of(rng, flax, "linen", "LSTMCell", "float32", False)
    expected = from_flax(theirs.params)
    frozen = flax.core.freeze({"params": theirs.params})
    cell = theirs.params["cell"]
    for tree in (frozen, {"params": {"LSTMCell_0": cell}}, cell):
        assert same_bits(from_flax(tree).parameters.flat, expected.parameters.flat)
    [other] = stack_of(rng, flax, "nnx", "GRUCell", "float32", True)
    expected = from_flax(other.params)
    for state in (flax.nnx.state(other.module), flax.nnx.state(other.module, flax.nnx.Param)):
        assert same_bits(from_flax(state).parameters.flat, expected.parameters.flat)
    with pytest.raises(TypeError, match=r"expected a mapping, got Bidirectional; of nnx, nnx\.sta"):
        from_flax(other.module)


@pytest.mark.peer
def test_sixteen_bits(rng: Generator, flax: Any) -> None:
    import jax

    [theirs] = stack_of(rng, flax, "nnx", "SimpleCell", "float32", False)
    half = jax.tree.map(lambda array: jax.numpy.asarray(array, "bfloat16"), theirs.params)
    ours = from_flax(half)
    assert ours.dtype == np.float32
    kernel = np.asarray(half["cell"]["dense_i"]["kernel"]).astype("f4")
    assert same_bits(to_flax_params(ours, "nnx")[0]["cell"]["dense_i"]["kernel"], kernel)


@pytest.mark.peer
def test_example(flax: Any) -> None:
    text = script("examples/flax_weights.py", "--steps", "5")
    differences = [line.split()[-1] for line in text.splitlines()[1:]]
    assert len(differences) == 4
    assert all(float(number) < 1e-5 for number in differences)
