"""Arrays as Keras has them, without Keras: what they tell, what is refused, export."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support.compare import Array, same_bits

import fastlstm
from fastlstm.keras import from_keras, to_keras_weights

I, H = 6, 9
CELLS = {"LSTM": fastlstm.LSTM, "GRU": fastlstm.GRU, "SimpleRNN": fastlstm.RNN}


def kernels(gates: int, inputs: int = I, bias: str = "") -> list[Array]:
    """What get_weights() returns; `bias` may be "one" or "two"."""
    rng = np.random.default_rng(inputs)
    shapes: list[tuple[int, ...]] = [(inputs, gates * H), (H, gates * H)]
    shapes += {"": [], "one": [(gates * H,)], "two": [(2, gates * H)]}[bias]
    return [rng.standard_normal(shape).astype("f4") for shape in shapes]


def test_what_arrays_tell() -> None:
    told = {"reset_after": True}
    expected = {
        "LSTM(6, 9, bias=False, batch_first=True)": (kernels(4), {}),
        "LSTM(6, 9, batch_first=True)": (kernels(4, bias="one"), {"cell": "lstm"}),
        "LSTM(6, 9, batch_first=True, bidirectional=True)": (kernels(4, bias="one") * 2, {}),
        "GRU(6, 9, batch_first=True)": (kernels(3, bias="two"), {}),
        "GRU(6, 9, bias=False, batch_first=True)": (kernels(3), told),
        "RNN(6, 9, bias=False, batch_first=True, bidirectional=True)": (kernels(1) * 2, {}),
        "RNN(6, 9, nonlinearity='relu')": (
            kernels(1, bias="one"),
            {"nonlinearity": "relu", "batch_first": False},
        ),
        "LSTM(6, 9, num_layers=2, bias=False, batch_first=True, dtype='float64')": (
            [kernels(4), kernels(4, inputs=H)],
            {"dtype": "float64"},
        ),
        "LSTM(6, 9, bias=False, dtype='float64')": (
            kernels(4),
            {"cell": "lstm", "dtype": "float64", "bidirectional": False, "batch_first": False},
        ),
        "LSTM(9, 9, bias=False, batch_first=True, bidirectional=True)": (
            kernels(4, inputs=H) * 2,
            {"bidirectional": True},
        ),
    }
    assert [repr(from_keras(source, **o)) for source, o in expected.values()] == list(expected)


def test_reset_before_in_arrays() -> None:
    assert not from_keras(kernels(3, bias="one")).reset_after
    assert not from_keras(kernels(3), reset_after=False).reset_after


@pytest.mark.parametrize(("given", "ours"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8")])
def test_precision_is_that_of_the_arrays(given: str, ours: str) -> None:
    """Of 16 bits: widened.  Not live: on JAX, Keras computes in float32 whatever is asked for."""
    arrays = [array.astype(given) * np.pi for array in kernels(4, bias="one")]
    made = from_keras(arrays)
    assert made.dtype == ours
    for got, array in zip(to_keras_weights(made)[0], arrays, strict=True):
        assert same_bits(got, array.astype(ours))


def lists(arrays: list[Array]) -> list[Any]:
    """What a JSON file has of them."""
    return json.loads(json.dumps([array.tolist() for array in arrays]))  # type: ignore[no-any-return]


def test_nested_lists() -> None:
    """As arrays of float32, whatever they are of."""
    both = kernels(4, inputs=H) * 2
    for arrays, options in [
        (kernels(4, bias="one"), {}),
        (kernels(4), {}),
        (kernels(3, bias="two"), {}),
        (kernels(4, bias="one") * 2, {}),
        (both, {"bidirectional": True}),
    ]:
        expected = from_keras(arrays, **options)
        for source in (lists(arrays), tuple(lists(arrays)), [*arrays[:1], *lists(arrays[1:])]):
            made = from_keras(source, **{"dtype": "float32", **options})
            assert repr(made) == repr(expected)
            assert same_bits(made.parameters.flat, expected.parameters.flat)
        assert repr(from_keras(lists(arrays), **options)) == repr(expected)
    stack = [kernels(4), kernels(4, inputs=H)]
    made = from_keras([lists(arrays) for arrays in stack])
    assert same_bits(made.parameters.flat, from_keras(stack).parameters.flat)
    wide = [array.astype("f8") * np.pi for array in kernels(4)]
    made = from_keras(lists(wide), dtype="float64")
    assert same_bits(made.parameters.flat, from_keras(wide).parameters.flat)


def test_a_list_within_itself() -> None:
    source: list[Any] = []
    source.append(source)
    with pytest.raises(ValueError, match="got 1 objects"):
        from_keras(source)


def test_nested_lists_of_integers() -> None:
    """JSON may say 0 for 0.0."""
    made = from_keras([[[0, 1, 2, 3]], [[4, 5, 6, 7]], [0, 0, 0, 0]])
    assert repr(made) == "LSTM(1, 1, batch_first=True)"
    assert made.parameters["weight_hh_l0"].ravel().tolist() == [4, 5, 6, 7]


def changed(arrays: list[Array], place: int, value: Any) -> list[Any]:
    return [value if number == place else array for number, array in enumerate(arrays)]


ARRAYS: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "nothing": ([], {}, TypeError, "source: expected arrays, or layers, .* got nothing"),
    "None": (None, {}, TypeError, "expected a layer of Keras or a list of arrays, got NoneType"),
    "an array": (np.ones((6, 36)), {}, TypeError, "a list of arrays, got ndarray"),
    "ours": (fastlstm.LSTM(I, H), {}, TypeError, "expected a layer of Keras .* got LSTM"),
    "mixed": ([*kernels(4), None], {}, TypeError, "expected arrays, .* got NoneType, ndarray"),
    "missing": (kernels(4)[:1], {}, ValueError, "expected kernel, recurrent_kernel .* got 1"),
    "too many": (kernels(4) * 4, {}, ValueError, "got 8 objects; give a list for each layer"),
    "five": ([*kernels(4, bias="one"), *kernels(4)], {}, ValueError, "got 5 objects"),
    "nested": ([[kernels(4)] * 2], {}, ValueError, "got 2 objects"),
    "transposed": (
        [array.T for array in kernels(4)],
        {},
        ValueError,
        r"recurrent_kernel: expected \(H, 4H\) of an LSTM, .*, got \(36, 9\)",
    ),
    "gate count": (
        [np.ones((6, 18)), np.ones((9, 18))],
        {},
        ValueError,
        r"recurrent_kernel: .* got \(9, 18\)",
    ),
    "kernel": (
        changed(kernels(4), 0, np.ones((6, 27))),
        {},
        ValueError,
        r"source: kernel: expected \(I, 36\), got \(6, 27\)",
    ),
    "flat kernel": (changed(kernels(4), 0, np.ones(36)), {}, ValueError, r"kernel: .* got \(36,\)"),
    "no features": (
        changed(kernels(4), 0, np.ones((0, 36))),
        {},
        ValueError,
        r"kernel: .* got \(0, 36\)",
    ),
    "bias": (
        changed(kernels(4, bias="one"), 2, np.ones(9)),
        {},
        ValueError,
        r"source: bias: expected \(36,\), got \(9,\)",
    ),
    "two biases": (
        kernels(4, bias="two"),
        {},
        ValueError,
        r"bias: expected \(36,\), got \(2, 36\)",
    ),
    "bias of a GRU": (
        changed(kernels(3, bias="two"), 2, np.ones(9)),
        {},
        ValueError,
        r"bias: expected \(2, 27\) or \(27,\), got \(9,\)",
    ),
    "another form": (
        kernels(3, bias="two"),
        {"reset_after": False},
        ValueError,
        r"bias: expected \(27,\), got \(2, 27\)",
    ),
    "unknown form": (kernels(3), {}, ValueError, "reset_after: expected a value"),
    "second direction": (
        [*kernels(4), *kernels(4, inputs=7)],
        {},
        ValueError,
        "layer 0 reads 7 features, expected 6",
    ),
    "cells of directions": (
        [*kernels(4), *kernels(1)],
        {},
        ValueError,
        "two directions of one kind, got lstm  and rnn",
    ),
    "second layer": (
        [kernels(4), kernels(4, inputs=8)],
        {},
        ValueError,
        "source: layer 1 reads 8 features, expected 9",
    ),
    "cells of layers": (
        [kernels(4), kernels(1, inputs=H)],
        {},
        ValueError,
        "layers and directions differ in cell: 'lstm' and 'rnn'",
    ),
    "two layers or directions": (
        kernels(4, inputs=H) * 2,
        {},
        ValueError,
        "bidirectional: 4 arrays with I = H may be of two layers or directions",
    ),
    "one direction": (
        kernels(4),
        {"bidirectional": True},
        ValueError,
        "source: expected 4 or 6 arrays, got 2",
    ),
    "two directions": (
        kernels(4) * 2,
        {"bidirectional": False},
        ValueError,
        "source: expected 2 or 3 arrays, got 4",
    ),
    "integers": (
        changed(kernels(4), 0, np.ones((6, 36), int)),
        {},
        TypeError,
        "source: kernel: expected real numbers, got int64",
    ),
    "uneven lists": (
        changed(lists(kernels(4)), 1, [[1.0, 2.0], [3.0]]),
        {},
        TypeError,
        "source: recurrent_kernel: expected an array, got ",
    ),
    "uneven lists of two directions": (
        changed(lists(kernels(4)) * 2, 0, [[1.0, 2.0], [3.0]]),
        {},
        TypeError,
        "source: forward: kernel: expected an array, got ",
    ),
    "lists of text": (
        changed(lists(kernels(4)), 1, [["a"] * 36] * 9),
        {},
        TypeError,
        "source: recurrent_kernel: expected real numbers, got <U1",
    ),
    "shape of lists": (
        changed(lists(kernels(4)), 0, [[1.0] * 27] * 6),
        {},
        ValueError,
        r"source: kernel: expected \(I, 36\), got \(6, 27\)",
    ),
    "another cell": (kernels(4), {"cell": "gru"}, ValueError, "cell 'gru', got 'lstm'"),
    "no such cell": (kernels(4), {"cell": "mgu"}, ValueError, "'gru' or 'rnn', got 'mgu'"),
    "cell is a list": (
        kernels(4),
        {"cell": ["gru"]},
        ValueError,
        r"^cell: expected .* got \['gru'",
    ),
    "other sizes": (kernels(4), {"hidden_size": 8}, ValueError, "hidden_size: expected 9 .* got 8"),
    "no such option": (kernels(4), {"units": 8}, TypeError, "units"),
}


@pytest.mark.parametrize(("source", "options", "error", "message"), ARRAYS.values(), ids=ARRAYS)
def test_refused_arrays(
    source: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        from_keras(source, **options)
    assert caught.type is error


# Export


@pytest.mark.parametrize("kind", CELLS)
def test_exports_are_copies_that_sum_biases(kind: str) -> None:
    layer = CELLS[kind](1, 1, seed=1)
    before = layer.parameters.flat.copy()
    [[kernel, recurrent, bias]] = to_keras_weights(layer)
    first, second = (layer.parameters[f"bias_{name}_l0"] for name in ("ih", "hh"))
    if kind == "GRU":
        assert same_bits(bias, np.stack([first, second])[:, [1, 0, 2]])
    else:
        assert same_bits(bias, first + second)
    for array in (kernel, recurrent, bias):
        assert array.flags.c_contiguous
        array[...] = 7
    assert same_bits(layer.parameters.flat, before)


def test_options_that_keras_has_not() -> None:
    with pytest.raises(ValueError, match="layer: Keras has no peephole, and the layer has True"):
        to_keras_weights(fastlstm.LSTM(I, H, peephole=True))
    functions: Any
    for functions, message in [
        (("sigmoid", "tanh", "relu"), "one activation for candidate and hidden state"),
        (("sigmoid", "tanh", "tanh", "sigmoid", "relu", "tanh"), "the layer has 'relu' and 'tanh'"),
        ((("hard_sigmoid", 0.2, 0.5), "tanh", "tanh"), "Keras has no activation"),
        (("sigmoid", ("affine", 2.0), ("affine", 2.0)), "Keras has no activation"),
    ]:
        layer = fastlstm.LSTM(I, H, bidirectional=len(functions) > 3, activations=functions)
        with pytest.raises(ValueError, match=message):
            to_keras_weights(layer)
    functions = (("hard_sigmoid", 1 / 6), ("elu", 1.0), ("elu", 1.0))
    layer = fastlstm.LSTM(I, H, activations=functions)
    assert len(to_keras_weights(layer)) == 1
    with pytest.raises(TypeError, match=r"layer: expected a fastlstm\.LSTM, GRU or RNN, got list"):
        to_keras_weights([layer])


@pytest.mark.parametrize("weights_dtype", ["int8", "bfloat16", "float16"])
@pytest.mark.parametrize("cell", CELLS.values())
def test_weights_of_few_bits(cell: Any, weights_dtype: str) -> None:
    """Keras has none such; those of the layer before are for export."""
    small = cell(I, H).quantize(weights_dtype)
    message = f"layer: expected weights of float32, got {weights_dtype}; use the layer that was qua"
    with pytest.raises(ValueError, match=f"^{message}"):
        to_keras_weights(small)


# Older layers


class LSTM:
    """What a layer of Keras 2 looks like."""

    def get_config(self) -> dict[str, Any]:
        return {"time_major": False, "units": H, "use_bias": False}

    def get_weights(self) -> list[Array]:
        return kernels(4)


def test_older_layers() -> None:
    """Their hard_sigmoid has another slope, which the name does not tell."""
    with pytest.raises(ValueError, match="expected a LSTM of Keras 3, got an older one"):
        from_keras(LSTM())
