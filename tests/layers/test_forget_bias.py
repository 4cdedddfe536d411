"""Gates that keep the state start open, as far as `forget_bias` says."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from support.compare import same_bits

import fastlstm
from fastlstm.models import LanguageModel

SIZES = {"input_size": 3, "hidden_size": 50, "num_layers": 2, "bidirectional": True}
PARTS = ("l0", "l0_reverse", "l1", "l1_reverse")


def sums(layer: Any, part: str) -> np.ndarray[Any, Any]:
    """The biases of each gate, (gates, units)."""
    p = layer.parameters
    total: np.ndarray[Any, Any] = p[f"bias_ih_{part}"] + p[f"bias_hh_{part}"]
    return total.reshape(-1, layer.hidden_size)


@pytest.mark.parametrize(
    ("kind", "options", "gate", "value"),
    [
        (fastlstm.LSTM, {}, 1, 1.5),
        (fastlstm.LSTM, {"peephole": True, "layer_norm": True, "proj_size": 7}, 1, 1.5),
        (fastlstm.LSTM, {"coupled": True}, 0, -1.5),
        (fastlstm.GRU, {}, 1, 1.5),
        (fastlstm.GRU, {"reset_after": False}, 1, 1.5),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_number_is_the_sum_of_both_biases(
    kind: Any, options: dict[str, Any], gate: int, value: float, dtype: str
) -> None:
    layer = kind(**SIZES, **options, dtype=dtype, seed=4, forget_bias=1.5)
    plain = kind(**SIZES, **options, dtype=dtype, seed=4)
    for part in PARTS:
        found, usual = sums(layer, part), sums(plain, part)
        assert (found[gate] == value).all()
        assert same_bits(np.delete(found, gate, 0), np.delete(usual, gate, 0))
    for name, array in layer.parameters.items():
        if "bias" not in name:
            assert same_bits(array, plain.parameters[name])


def test_a_number_says_how_long_the_cell_state_lasts() -> None:
    lstm = fastlstm.LSTM(1, 1, forget_bias=3, seed=0)
    lstm.parameters["weight_hh_l0"] = np.zeros((4, 1))
    zeros = np.zeros((1, 1), np.float32)
    [trace] = lstm.trace(np.zeros((8, 1), np.float32), (zeros, zeros + 1))
    np.testing.assert_allclose(trace.forget, 1 / (1 + np.exp(-3)), rtol=1e-6)
    # The GRU's update gate keeps, and in a coupled LSTM the input gate is what shuts.
    gru = fastlstm.GRU(1, 1, forget_bias=3, seed=0)
    gru.parameters["weight_hh_l0"] = np.zeros((3, 1))
    np.testing.assert_allclose(
        gru.trace(np.zeros((8, 1), np.float32), zeros)[0].update, trace.forget, rtol=1e-6
    )
    coupled = fastlstm.LSTM(1, 1, forget_bias=3, seed=0, coupled=True)
    coupled.parameters["weight_hh_l0"] = np.zeros((3, 1))
    [trace_coupled] = coupled.trace(np.zeros((8, 1), np.float32), (zeros, zeros))
    np.testing.assert_allclose(trace_coupled.forget, trace.forget, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "keeps", "shuts"),
    [
        (fastlstm.LSTM, {}, 1, 0),
        (fastlstm.LSTM, {"coupled": True}, None, 0),
        (fastlstm.GRU, {}, 1, None),
    ],
)
def test_chrono_draws_a_time_for_each_unit(
    kind: Any, options: dict[str, Any], keeps: int | None, shuts: int | None
) -> None:
    make = {**SIZES, **options, "hidden_size": 2000, "num_layers": 1}
    layer = kind(**make, seed=4, forget_bias="chrono", max_lag=101)
    for part in PARTS[:2]:
        found = sums(layer, part)
        times = np.exp(found[keeps] if keeps is not None else -found[shuts])
        assert 1 <= times.min() < 2 < 99 < times.max() <= 100.001
        assert times.mean() == pytest.approx(50.5, abs=2.5)  # a deviation is 0.64
        if keeps is not None and shuts is not None:
            assert same_bits(found[shuts], -found[keeps])
    assert not same_bits(sums(layer, "l0"), sums(layer, "l0_reverse"))
    again = kind(**make, seed=4, forget_bias="chrono", max_lag=101)
    assert same_bits(layer.parameters.flat, again.parameters.flat)


def test_chrono_of_two_steps_is_a_bias_of_zero() -> None:
    assert not sums(fastlstm.LSTM(2, 3, forget_bias="chrono", max_lag=2), "l0")[:2].any()


def test_it_is_of_the_beginning_only() -> None:
    """Like the seed: a layer that is loaded has its own biases, whatever it began with."""
    layer = fastlstm.LSTM(2, 3, forget_bias="chrono", max_lag=9, seed=1)
    assert repr(layer) == "LSTM(2, 3)"
    source = fastlstm.LSTM(2, 3, seed=2)
    again = fastlstm.LSTM.from_torch(source.state_dict(), forget_bias=1)
    assert same_bits(again.parameters.flat, source.parameters.flat)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_of_a_language_model(cell: str) -> None:
    model = LanguageModel("ab", cell=cell, hidden_size=8, forget_bias=2)
    assert (sums(model.lstm, "l0")[1] == 2).all()
    model = LanguageModel("ab", cell=cell, hidden_size=8, forget_bias="chrono", max_lag=2)
    assert not sums(model.lstm, "l0")[1].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"forget_bias": "open"},
            "forget_bias: expected a finite number, 'chrono' or None, got 'o",
        ),
        (
            {"forget_bias": True},
            "forget_bias: expected a finite number, 'chrono' or None, got True",
        ),
        (
            {"forget_bias": np.inf},
            "forget_bias: expected a finite number, 'chrono' or None, got in",
        ),
        ({"forget_bias": 10**400}, "forget_bias: expected a finite number"),
        ({"forget_bias": 1e39}, "forget_bias: expected a finite number, .* got 1e[+]39"),
        ({"forget_bias": "chrono", "max_lag": 10**400}, "max_lag: expected at most"),
        ({"forget_bias": [1]}, r"forget_bias: expected a finite number, .* got \[1\]"),
        ({"forget_bias": 1, "bias": False}, "forget_bias: expected bias=True with it, got 1"),
        ({"forget_bias": "chrono"}, "max_lag: expected with forget_bias='chrono' how many"),
        ({"forget_bias": "chrono", "max_lag": 1}, "max_lag: expected at least 2, got 1"),
        ({"max_lag": 9}, "max_lag: expected forget_bias='chrono' with it, got None and 9"),
        (
            {"max_lag": 9, "forget_bias": 1},
            "max_lag: expected forget_bias='chrono' with it, got 1 ",
        ),
    ],
)
@pytest.mark.parametrize("kind", [fastlstm.LSTM, fastlstm.GRU])
def test_bad_arguments(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        kind(2, 3, **options)


def test_other_cells_have_no_such_option() -> None:
    for name, kind in product(("forget_bias", "max_lag"), (fastlstm.RNN, fastlstm.SLSTM)):
        with pytest.raises(
            TypeError, match=f"{name}: is an option of LSTM and GRU, not of {kind.__name__}"
        ):
            kind(2, 4, **{name: 2})
    with pytest.raises(TypeError, match="forget_bias: is an option of LSTM and GRU, not of RNN"):
        LanguageModel("ab", cell="rnn", forget_bias=1)
    with pytest.raises(TypeError, match="max_lag: expected an integer, got float"):
        fastlstm.LSTM(2, 3, forget_bias="chrono", max_lag=9.5)
