"""The functions of the kernels: within 2 ulp everywhere, exact where it matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import Array, same_bits

import fastlstm
from fastlstm._core.probes import activate

LARGEST_ERROR = 2.0  # ulp, as src/simd/vmath.h promises

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_name = pytest.mark.parametrize("name", ["sigmoid", "tanh", "exp", "log", "log_sigmoid"])


def dense_grid(dtype: Any, rng: Generator, name: str) -> Array:
    """Numbers of all binades, denormals too, and more of them where the functions bend.

    Those that `name` is for: exp is for x <= 0, log for positive normal ones below the largest two
    binades.
    """
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    mantissas = rng.uniform(1, 2, (len(exponents), 256 if info.bits == 64 else 2048))
    with np.errstate(over="ignore"):
        binades = np.ldexp(mantissas.astype(dtype), exponents[:, None]).ravel()
    bends = np.concatenate([rng.uniform(-b, b, 1 << 17) for b in (1, 10, 50, 100, 800)])
    x = np.concatenate([binades, -binades, bends.astype(dtype)])
    if name == "log":
        near_one = 1 + rng.uniform(-0.5, 0.5, 1 << 17) ** 5
        x = np.abs(np.concatenate([x, near_one.astype(dtype)]))
        return x[(x >= info.smallest_normal) & (x < info.max / 4)]
    return -np.abs(x) if name == "exp" else x


def truth(name: str, x: Array) -> Array:
    """The function in a wider type, whose own errors are far below an ulp of `x`'s type."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    if np.finfo(wide.dtype).nmant < np.finfo(x.dtype).nmant + 10:
        pytest.skip(f"nothing wider than {x.dtype} on this machine")
    with np.errstate(over="ignore", under="ignore"):
        if name in ("exp", "log"):
            return np.exp(wide) if name == "exp" else np.log(wide)
        if name == "log_sigmoid":
            return np.minimum(0, wide) - np.log1p(np.exp(-np.abs(wide)))
        return np.tanh(wide) if name == "tanh" else 1 / (1 + np.exp(-wide))


@every_dtype
@every_name
def test_error_in_ulp(rng: Generator, isa: str, name: str, dtype: Any) -> None:
    """Results below the smallest normal number may be flushed to zero, as workers do anyway."""
    x, info = dense_grid(dtype, rng, name), np.finfo(dtype)
    exact, got = truth(name, x), activate(isa, name, x)
    assert np.isfinite(got).all()
    normal = np.abs(exact) >= info.smallest_normal
    ulp = np.ldexp(exact.dtype.type(info.eps), np.frexp(exact)[1] - 1)
    error = np.abs(got.astype(exact.dtype) - exact)
    assert normal.sum() > 100_000
    worst = np.argmax(np.where(normal, error, 0) / np.where(normal, ulp, 1))
    assert error[worst] <= LARGEST_ERROR * ulp[worst], (x[worst], got[worst], exact[worst])
    assert (error[~normal] <= info.smallest_normal).all()


@every_dtype
def test_special_values(isa: str, dtype: Any) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan], dtype)
    nan = np.isnan(x)
    for name, expected in [
        ("sigmoid", [0.5, 0.5, 1, 0, np.nan, np.nan]),
        ("tanh", [0.0, -0.0, 1, -1, np.nan, np.nan]),
        ("exp", [1, 1, 1, 0, np.nan, np.nan]),
        ("log_sigmoid", [-np.log(2), -np.log(2), 0, -np.inf, np.nan, np.nan]),
    ]:
        got = activate(isa, name, np.where(x == np.inf, 0, x) if name == "exp" else x)
        exact = ~nan & ((x != 0) | (name != "log_sigmoid"))  # -log 2 is no number of binary
        assert same_bits(got[exact], np.array(expected, dtype)[exact])
        np.testing.assert_array_max_ulp(got[~nan], np.array(expected, dtype)[~nan], 2)
        assert np.isnan(got[nan]).all()


@every_dtype
def test_log_of_special_values(isa: str, dtype: Any) -> None:
    """0 has something below all others, 1 has 0."""
    least = np.finfo(dtype).smallest_normal
    got = activate(isa, "log", np.array([1, np.nan, 0, least], dtype))
    assert same_bits(got[:1], np.zeros(1, dtype))
    assert np.isnan(got[1])
    assert np.isfinite(got[2])
    assert got[2] < got[3]


@every_dtype
def test_denormals(isa: str, dtype: Any) -> None:
    """tanh(x) is x, or a zero of its sign where the FPU flushes denormals; the others have none."""
    info = np.finfo(dtype)
    x = np.array([info.smallest_subnormal, info.smallest_normal / 3, info.smallest_normal], dtype)
    x = np.concatenate([x, -x])
    got, flushed = activate(isa, "tanh", x), np.where(np.abs(x) < info.smallest_normal, 0 * x, x)
    assert same_bits(got, x) or same_bits(got, flushed)
    assert same_bits(activate(isa, "sigmoid", x), np.full_like(x, 0.5))
    assert same_bits(activate(isa, "exp", x), np.ones_like(x))


@every_dtype
def test_saturation_is_exact(rng: Generator, isa: str, dtype: Any) -> None:
    """Never beyond 0, 1 and -1, and exactly there from some point on."""
    far = np.ldexp(rng.uniform(1, 2, 10_000), rng.integers(0, np.finfo(dtype).maxexp, 10_000))
    far = np.append(far, np.finfo(dtype).max).astype(dtype)
    tanh, low = activate(isa, "tanh", far), activate(isa, "tanh", -far)
    high, zero = activate(isa, "sigmoid", far), activate(isa, "sigmoid", -far)
    assert tanh.max() == 1
    assert low.min() == -1
    assert high.max() == 1
    assert zero.min() == 0
    exp = activate(isa, "exp", -far)
    assert exp.min() == 0
    assert exp.max() < 1
    # 1 - e^-x rounds to 1 where e^-x < eps/4; e^-x is nothing below half the smallest denormal.
    info = np.finfo(dtype)
    one, nothing = 1 - np.log(info.eps / 4), (info.nmant + 1 - info.minexp) * np.log(2)
    assert (tanh[far > one] == 1).all()
    assert (low[far > one] == -1).all()
    assert (high[far > one] == 1).all()
    assert (zero[far > nothing] == 0).all()
    assert (exp[far > nothing] == 0).all()


@every_dtype
def test_tanh_is_odd(rng: Generator, isa: str, dtype: Any) -> None:
    x = dense_grid(dtype, rng, "tanh")
    assert same_bits(activate(isa, "tanh", -x), -activate(isa, "tanh", x))


@every_dtype
@every_name
def test_instruction_sets_give_the_same_bits(rng: Generator, name: str, dtype: Any) -> None:
    isas = [isa for isa in fastlstm.isas() if isa != "baseline"]
    if len(isas) < 2:
        pytest.skip(f"one instruction set to compare: {isas}")
    x = dense_grid(dtype, rng, name)
    assert same_bits(activate(isas[0], name, x), activate(isas[1], name, x))


@every_dtype
@every_name
def test_place_in_a_vector_does_not_matter(rng: Generator, isa: str, name: str, dtype: Any) -> None:
    """Any length, any lane."""
    x = np.abs(rng.standard_normal(67)).astype(dtype)
    x = -x if name == "exp" else x
    whole = activate(isa, name, x)
    for begin, end in [(0, 0), (0, 1), (1, 16), (5, 67), (66, 67), (3, 60)]:
        assert same_bits(activate(isa, name, x[begin:end].copy()), whole[begin:end])
