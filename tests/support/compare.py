"""How a layer is compared: with the float64 reference within derived bounds, or bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator

import fastlstm
from fastlstm import reference
from support.isas import VECTOR_BYTES

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]


def lanes(isa: str, dtype: str) -> int:
    """Hidden units that one vector of this instruction set holds."""
    return VECTOR_BYTES[isa] // np.dtype(dtype).itemsize


def random_call(rng: Generator, lstm: fastlstm.LSTM, steps: int, batch: int) -> Arrays:
    """x, h_0, c_0 and the gradients of the three outputs: all random, all different."""
    D, H = 1 + lstm.bidirectional, lstm.hidden_size
    out = lstm.proj_size or H
    first = (batch, steps) if lstm.batch_first else (steps, batch)
    shapes: dict[str, tuple[int, ...]]
    shapes = {"x": (*first, lstm.input_size), "dy": (*first, D * out)}
    shapes |= dict.fromkeys(["h_0", "dh_n"], (lstm.num_layers * D, batch, out))
    shapes |= dict.fromkeys(["c_0", "dc_n"], (lstm.num_layers * D, batch, H))
    return {name: rng.standard_normal(shape).astype(lstm.dtype) for name, shape in shapes.items()}


def results(lstm: Any, v: Arrays, **options: Any) -> Arrays:
    """Everything that `forward` and `backward` of a layer, or of the reference, return."""
    y, (h_n, c_n), tape = lstm.forward(v["x"], (v["h_0"], v["c_0"]), **options)
    dx, (dh_0, dc_0), grads = lstm.backward(tape, v["dy"], (v["dh_n"], v["dc_n"]))
    named = {"y": y, "h_n": h_n, "c_n": c_n, "dx": dx, "dh_0": dh_0, "dc_0": dc_0}
    return named | {f"d {name}": grads[name] for name in grads}


def twin(lstm: fastlstm.LSTM) -> reference.LSTM:
    """The reference with the same sizes, options and parameters."""
    other = reference.LSTM(**lstm._configuration())
    other.load_state_dict(lstm.state_dict())
    return other


def roundings(terms: int) -> int:
    """Of a sum of products: chains of 128, which are then added."""
    return min(terms, 128) + terms // 128 + 1


def error_bound(lstm: fastlstm.LSTM, steps: int, batch: int) -> float:
    """How far rounding may move a result whose values are of order one.

    Behind a result are the roundings of

    * sums of max(I, D*H) and of H products, forward, and of 4H, backward, for the hidden state,
    * a sum of min(T*B, 256) products, and the sums of so many, for a weight gradient,
    * 5 gate functions of up to 2 ulp, which weigh as much as 5 * (2 / 0.5)^2 roundings.

    Each rounding moves its value by up to eps/2, in either direction, so n of them by about
    eps/2 * sqrt(n).  Gates are contractions, so earlier steps add no more than a step does itself,
    and each layer adds as much again.  Four times that is beyond chance.
    """
    I, H = lstm.input_size, lstm.hidden_size
    width = max(I, H * (1 + lstm.bidirectional))
    terms = steps * batch
    n = roundings(width) + roundings(H) + roundings(4 * H) + roundings(min(terms, 256))
    n += terms // 256 + 80
    eps = float(np.finfo(lstm.dtype).eps)
    return 4 * lstm.num_layers * eps / 2 * float(np.sqrt(n))


def check_close(got: Arrays, expected: Arrays, bound: float) -> None:
    """Each array, relative to its largest value or to one, whichever is larger."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].shape == array.shape, name
        scale = max(1.0, float(np.max(np.abs(array), initial=0)))
        error = float(np.max(np.abs(got[name] - array), initial=0)) / scale
        assert error <= bound, f"{name}: error {error:.2e}, allowed {bound:.2e}"


def check_against_reference(rng: Generator, lstm: fastlstm.LSTM, steps: int, batch: int) -> None:
    """All outputs and all gradients, those that come in through y, h_n and c_n at once."""
    v = random_call(rng, lstm, steps, batch)
    got, expected = results(lstm, v), results(twin(lstm), v)
    assert all(array.dtype == lstm.dtype for array in got.values())
    check_close(got, expected, error_bound(lstm, steps, batch))


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are the same, NaN and the signs of zeros included."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def check_bits(got: Arrays, expected: Arrays) -> None:
    """Each array, bit for bit."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert same_bits(got[name], array), f"{name}: not the same bits"
