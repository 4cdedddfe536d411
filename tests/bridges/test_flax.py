"""Weights from Flax and back: linen and nnx, live."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, check_close, error_bound, same_bits
from support.processes import script

import fastlstm
from fastlstm.flax import from_flax, to_flax_params

T, B, I, H = 7, 5, 6, 9  # all different, so that a mix-up shows
LAYERS = {"lstm": fastlstm.LSTM, "gru": fastlstm.GRU, "rnn": fastlstm.RNN}
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


def flat(tree: Any, place: str = "") -> dict[str, Array]:
    """The arrays of a tree, by their places."""
    if not hasattr(tree, "items"):
        return {place: np.asarray(tree)}
    branches = [flat(branch, f"{place}/{name}") for name, branch in tree.items()]
    return {name: array for branch in branches for name, array in branch.items()}


def check_trees(got: Any, expected: Any) -> None:
    """Bit for bit."""
    ours, theirs = flat(got), flat(expected)
    assert ours.keys() == theirs.keys()
    assert all(same_bits(ours[name], theirs[name]) for name in theirs)


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
every_api = pytest.mark.parametrize("api", APIS)


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


# Live


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


# Trees


def tree_of(cell: str = "lstm", api: str = "linen", inputs: int = I, hidden: int = H) -> Any:
    """A tree of random arrays; the second bias of n is 0."""
    layer = LAYERS[cell](inputs, hidden, seed=inputs)
    layer.parameters["bias_hh_l0"] = np.zeros(layer.parameters["bias_hh_l0"].shape)
    return to_flax_params(layer, api)[0]["cell"]


@every_api
@pytest.mark.parametrize("cell", LAYERS)
def test_round_trip(cell: str, api: str) -> None:
    """Bit for bit, not-a-numbers and signs of zeros too."""
    tree = tree_of(cell, api)
    for dense in tree.values():
        dense["kernel"][0, 0] = np.nan
        if "bias" in dense:
            dense["bias"][0] = -0.0
    source = {"forward_rnn": {"cell": tree}, "backward_rnn": {"cell": tree_of(cell, api)}}
    [returned] = to_flax_params(from_flax(source), api)
    check_trees(returned, source)


def test_exports_are_copies() -> None:
    layer = fastlstm.LSTM(1, 1, seed=1)
    before = layer.parameters.flat.copy()
    for api in APIS:
        for array in flat(to_flax_params(layer, api)[0]).values():
            assert array.flags.c_contiguous
            array[...] = 7
    assert same_bits(layer.parameters.flat, before)


def without(tree: Any, *names: str) -> Any:
    """A tree with a branch less."""
    *path, last = names
    if not path:
        return {name: branch for name, branch in tree.items() if name != last}
    return {**tree, path[0]: without(tree[path[0]], *path[1:], last)}


def with_leaf(tree: Any, value: Any, *names: str) -> Any:
    """A tree with another leaf, or one more."""
    first, *rest = names
    return {**tree, first: with_leaf(tree.get(first, {}), value, *rest) if rest else value}


LSTM, NNX_LSTM = tree_of(), tree_of(api="nnx")
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "None": (None, TypeError, "params: expected a mapping, got NoneType"),
    "nothing": ([], ValueError, "params: expected a mapping, or a list .* got none"),
    "an array": ([np.ones(3)], TypeError, r"params\[0\]: expected a mapping, got ndarray"),
    "empty": ({}, ValueError, "params: expected .*, got nothing"),
    "leaf only": ({"cell": {"kernel": np.ones(3)}}, TypeError, "expected a mapping, got ndarray"),
    "missing gate": (
        without(LSTM, "ig"),
        ValueError,
        "params: expected ii, if, ig, .*, got ii, if, io",
    ),
    "missing half": (without(NNX_LSTM, "dense_h"), ValueError, "expected dense_i, dense_h, got de"),
    "missing kernel": (
        without(LSTM, "hf", "kernel"),
        ValueError,
        r"params\['hf'\]: expected kernel, bias, got bias",
    ),
    "missing fused kernel": (
        without(NNX_LSTM, "dense_h", "kernel"),
        TypeError,
        r"params\['dense_h'\]\['kernel'\]: expected real numbers, got object",
    ),
    "missing bias": (without(LSTM, "hf", "bias"), ValueError, "expected kernel, bias, got kernel"),
    "extra gate": (with_leaf(LSTM, {}, "ic"), ValueError, "params: expected ii, .*, got .*, ic"),
    "extra bias": (
        with_leaf(LSTM, np.ones(H), "ii", "bias"),
        ValueError,
        r"params\['ii'\]: expected kernel, got .*bias",
    ),
    "second bias of n": (
        with_leaf(tree_of("gru", "nnx"), np.ones(3 * H), "dense_h", "bias"),
        ValueError,
        r"params\['dense_h'\]: expected kernel, got .*bias",
    ),
    "another cell": (
        {"hf": LSTM["hf"], "hn": LSTM["hg"], "if": LSTM["ii"], "in": LSTM["ig"]},  # MGUCell
        ValueError,
        "params: expected .*, got hf, hn, if, in",
    ),
    "kernel": (
        with_leaf(LSTM, np.ones((I, H + 1)), "io", "kernel"),
        ValueError,
        r"params\['io'\]\['kernel'\]: expected \(6, 9\), got \(6, 10\)",
    ),
    "recurrent kernel": (
        with_leaf(LSTM, np.ones((H, H + 1)), "hi", "kernel"),
        ValueError,
        r"\['hi'\]\['kernel'\]: expected \(9, 9\), got \(9, 10\)",
    ),
    "flat kernel": (
        with_leaf(LSTM, np.ones(H), "ii", "kernel"),
        ValueError,
        r"\['ii'\]\['kernel'\]: expected \(I, H\), got \(9,\)",
    ),
    "number": (
        with_leaf(LSTM, np.float32(1), "hi", "kernel"),
        ValueError,
        r"\['kernel'\]: expected \(6, 0\), got \(6, 9\)",
    ),
    "bias": (
        with_leaf(NNX_LSTM, np.ones(H), "dense_h", "bias"),
        ValueError,
        r"\['dense_h'\]\['bias'\]: expected \(36,\), got \(9,\)",
    ),
    "gate count": (
        with_leaf(NNX_LSTM, np.ones((H, 2 * H)), "dense_h", "kernel"),
        ValueError,
        r"\['dense_h'\]\['kernel'\]: expected \(H, 4H\) of an LSTM, .*, got \(9, 18\)",
    ),
    "gate count of the input": (
        with_leaf(NNX_LSTM, np.ones((I, 3 * H)), "dense_i", "kernel"),
        ValueError,
        r"\['dense_i'\]\['kernel'\]: expected \(6, 36\), got \(6, 27\)",
    ),
    "no dense layer": (
        with_leaf(LSTM, np.ones((H, H)), "hi"),
        TypeError,
        r"params\['hi'\]: expected a mapping, got ndarray",
    ),
    "integers": (
        with_leaf(LSTM, np.ones((I, H), int), "if", "kernel"),
        TypeError,
        r"\['if'\]\['kernel'\]: expected real numbers, got int64",
    ),
    "one direction": ({"forward_rnn": LSTM}, ValueError, "expected forward_rnn, backward_rnn, got"),
    "cells of directions": (
        {"forward_rnn": LSTM, "backward_rnn": tree_of("rnn")},
        ValueError,
        "expected two directions of one cell, got lstm and rnn",
    ),
    "sizes of directions": (
        {"forward_rnn": LSTM, "backward_rnn": tree_of(hidden=H + 1)},
        ValueError,
        "layers and directions differ in hidden_size: 9 and 10",
    ),
    "cells of layers": ([LSTM, tree_of("gru", inputs=H)], ValueError, "differ in cell"),
    "second layer": ([LSTM, LSTM], ValueError, "source: layer 1 reads 6 features, expected 9"),
}


@pytest.mark.parametrize(("tree", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_trees(tree: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        from_flax(tree)
    assert caught.type is error


def test_options() -> None:
    made = from_flax(tree_of("rnn"), nonlinearity="relu", dtype="float64", batch_first=False)
    assert repr(made) == "RNN(6, 9, nonlinearity='relu', dtype='float64')"
    with pytest.raises(ValueError, match="num_layers: expected 1 for this source, got 2"):
        from_flax(LSTM, num_layers=2)


REFUSED_LAYERS: dict[str, tuple[Callable[[], Any], str, type[Exception], str]] = {
    "no layer": (lambda: LSTM, "linen", TypeError, "layer: expected a fastlstm.LSTM, .* got dict"),
    "api": (lambda: fastlstm.GRU(I, H), "jax", ValueError, "expected 'linen' or 'nnx', got 'jax'"),
    "second bias of n": (
        lambda: fastlstm.GRU(I, H),
        "nnx",
        ValueError,
        "layer 0: nnx.GRUCell has no second bias of n, the layer has bias_hh != 0",
    ),
}


@pytest.mark.parametrize(
    ("make", "api", "error", "message"), REFUSED_LAYERS.values(), ids=REFUSED_LAYERS
)
def test_refused_layers(
    make: Callable[[], Any], api: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        to_flax_params(make(), api)
    assert caught.type is error


def test_reset_before() -> None:
    layer = fastlstm.GRU(I, H, reset_after=False)
    with pytest.raises(ValueError, match="Flax has no GRU with reset_after=False"):
        to_flax_params(layer)


@pytest.mark.peer
def test_example(flax: Any) -> None:
    text = script("examples/flax_weights.py", "--steps", "5")
    differences = [line.split()[-1] for line in text.splitlines()[1:]]
    assert len(differences) == 4
    assert all(float(number) < 1e-5 for number in differences)
