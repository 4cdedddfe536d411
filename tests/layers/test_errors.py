"""What is refused: the exception, its message, and that nothing happened before."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.compare import check_bits, random_call, results

import fastlstm

LSTM: Any = fastlstm.LSTM
T, B, I, H = 4, 3, 5, 2


def ones(*shape: int, dtype: str = "float32") -> Any:
    return np.ones(shape, dtype)


def state(*shape: int) -> Any:
    return ones(*shape), ones(*shape)


# A call, the exact type of the exception, the message (from its beginning).
Case = tuple[Callable[[], Any], type[Exception], str]

CONSTRUCTOR: list[Case] = [
    (lambda: LSTM(0, H), ValueError, "input_size: expected at least 1, got 0"),
    (lambda: LSTM(I, -1), ValueError, "hidden_size: expected at least 1, got -1"),
    (lambda: LSTM(I, H, 0), ValueError, "num_layers: expected at least 1, got 0"),
    (lambda: LSTM(I, H, 10**9), ValueError, "num_layers: expected at most 1000, got 1000000000"),
    (lambda: LSTM(I, H, 2**70), ValueError, "num_layers: expected at most 1000, got 118059"),
    (lambda: LSTM(2.0, H), TypeError, "input_size: expected an integer, got float"),
    (lambda: LSTM(I, "2"), TypeError, "hidden_size: expected an integer, got str"),
    (lambda: LSTM(I, True), TypeError, "hidden_size: expected an integer, got bool"),
    (lambda: LSTM(I, H, None), TypeError, "num_layers: expected an integer, got NoneType"),
    (
        lambda: LSTM(I, H, dropout=1.5),
        ValueError,
        "dropout: expected a number from 0 to 1, got 1.5",
    ),
    (lambda: LSTM(I, H, dropout=-0.1), ValueError, "dropout: expected a number from 0 to 1, got -"),
    (lambda: LSTM(I, H, dropout=np.nan), ValueError, "dropout: expected a number from 0 to 1"),
    (lambda: LSTM(I, H, dropout="0"), TypeError, "dropout: expected a number from 0 to 1, got str"),
    (
        lambda: LSTM(I, H, dropout=True),
        TypeError,
        "dropout: expected a number from 0 to 1, got boo",
    ),
    (lambda: LSTM(I, H, proj_size=-1), ValueError, "proj_size: expected at least 0, got -1"),
    (
        lambda: LSTM(I, H, dtype="f2"),
        ValueError,
        "dtype: expected 'float32' or 'float64', got 'f2'",
    ),
    (lambda: LSTM(I, H, dtype=int), ValueError, "dtype: expected 'float32' or 'float64', got <cla"),
    (lambda: LSTM(I, H, dtype=">f4"), ValueError, "dtype: expected 'float32' or 'float64', got '>"),
    (
        lambda: LSTM(I, H, dtype=None),
        ValueError,
        "dtype: expected 'float32' or 'float64', got None",
    ),
    (lambda: LSTM(I, H, dtype=","), ValueError, "dtype: expected 'float32' or 'float64', got ','"),
    (lambda: LSTM(I, H, seed=-1), ValueError, "seed: expected at least 0, got -1"),
    (lambda: LSTM(I, H, seed="1"), TypeError, "seed: expected an integer, got str"),
    (lambda: LSTM(I, H, 1, True), TypeError, "LSTM.__init__() takes from 3 to 4 positional"),
    (
        lambda: LSTM(2**31, 2**31),
        ValueError,
        "input_size, hidden_size, num_layers: too large, 3689",
    ),
    (
        lambda: LSTM(2**62, 1),
        ValueError,
        "input_size, hidden_size, num_layers: too large, 18446744",
    ),
    (
        lambda: LSTM(1, 2**62),
        ValueError,
        "input_size, hidden_size, num_layers: too large, 85070591",
    ),
]

one_way, turned = LSTM(I, H, seed=1), LSTM(I, H, batch_first=True)
both_ways = LSTM(I, H, 3, bidirectional=True)
x, of_x = ones(T, B, I), "x: expected (T, B, 5) or (T, 5), got "

INPUTS: list[Case] = [
    (lambda: one_way(ones(T, B, 4)), ValueError, of_x + "(4, 3, 4)"),
    (lambda: one_way(ones(T, I, B)), ValueError, of_x + "(4, 5, 3)"),
    (lambda: one_way(ones(I)), ValueError, of_x + "(5,)"),
    (lambda: one_way(ones(1, T, B, I)), ValueError, of_x + "(1, 4, 3, 5)"),
    (lambda: one_way(np.float32(1)), ValueError, of_x + "()"),
    (lambda: turned(ones(B, T, 4)), ValueError, "x: expected (B, T, 5) or (T, 5), got (3, 4, 4)"),
    (
        lambda: one_way(ones(T, B, I, dtype="float64")),
        TypeError,
        "x: expected float32, got float64; cast it with np.asarray(x, np.float32)",
    ),
    (lambda: one_way(ones(T, B, I, dtype="int32")), TypeError, "x: expected float32, got int32"),
    (lambda: one_way(ones(T, B, I, dtype=">f4")), TypeError, "x: expected float32, got >f4"),
    (lambda: one_way(None), TypeError, "x: expected float32, got object"),
    (lambda: one_way("x"), TypeError, "x: expected float32, got <U1"),
    (lambda: one_way([[1.0] * 5, [1.0]]), TypeError, "x: expected an array of float32, got "),
    (lambda: one_way(x, state(1, B, 3)), ValueError, "h_0: expected (1, 3, 2), got (1, 3, 3)"),
    (lambda: one_way(x, state(2, B, H)), ValueError, "h_0: expected (1, 3, 2), got (2, 3, 2)"),
    (lambda: one_way(x, state(B, H)), ValueError, "h_0: expected (1, 3, 2), got (3, 2)"),
    (lambda: both_ways(x, state(3, B, H)), ValueError, "h_0: expected (6, 3, 2), got (3, 3, 2)"),
    (lambda: turned(x, state(1, B, H)), ValueError, "h_0: expected (1, 4, 2), got (1, 3, 2)"),
    (lambda: one_way(x[:, 0], state(1, 1, H)), ValueError, "h_0: expected (1, 2), got (1, 1, 2)"),
    (
        lambda: one_way(x, (ones(1, B, H), ones(1, B, 1))),
        ValueError,
        "c_0: expected (1, 3, 2), got (1, 3, 1)",
    ),
    (
        lambda: one_way(x, (ones(1, B, H), ones(1, B, H, dtype="float64"))),
        TypeError,
        "c_0: expected float32, got float64",
    ),
    (lambda: one_way(x, (ones(1, B, H), None)), TypeError, "c_0: expected float32, got object"),
    (
        lambda: one_way(x, state(1, B, H)[:1]),
        TypeError,
        "state: expected a pair (h_0, c_0), got 1 ",
    ),
    (
        lambda: one_way(x, ones(2, 1, B, H)),
        TypeError,
        "state: expected a pair (h_0, c_0), got ndarray",
    ),
]


def back(*, dy: Any = None, dstate: Any = None) -> Any:
    y, _, tape = one_way.forward(x)
    return one_way.backward(tape, y if dy is None else dy, dstate)


def stale() -> Any:
    lstm = LSTM(I, H)
    y, _, tape = lstm.forward(x)
    lstm.parameters.flat = lstm.parameters.flat
    return lstm.backward(tape, y)


GRADIENTS: list[Case] = [
    (lambda: back(dy=ones(T, B, 3)), ValueError, "dy: expected (4, 3, 2), got (4, 3, 3)"),
    (lambda: back(dy=ones(3, B, H)), ValueError, "dy: expected (4, 3, 2), got (3, 3, 2)"),
    (
        lambda: back(dy=ones(T, B, H, dtype="float64")),
        TypeError,
        "dy: expected float32, got float6",
    ),
    (lambda: back(dy=ones()), ValueError, "dy: expected (4, 3, 2), got ()"),
    (lambda: back(dstate=state(1, 4, H)), ValueError, "dh_n: expected (1, 3, 2), got (1, 4, 2)"),
    (lambda: back(dstate=(ones(1, B, H), 0)), TypeError, "dc_n: expected float32, got int64"),
    (lambda: back(dstate=3), TypeError, "dstate: expected a pair (dh_n, dc_n), got int"),
    (
        lambda: one_way.backward(None, x),
        TypeError,
        "tape: expected a tape of forward, got NoneType",
    ),
    (
        lambda: turned.backward(one_way.forward(x)[2], x),
        ValueError,
        "tape: expected a tape of this l",
    ),
    (stale, ValueError, "tape: expected one made with the present parameters, got an older one"),
]

OTHERS: list[Case] = [
    (lambda: one_way.stream(0), ValueError, "batch_size: expected at least 1, got 0"),
    (lambda: one_way.stream(1.5), TypeError, "batch_size: expected an integer, got float"),
    (
        lambda: one_way.stream(2, state(1, 3, H)),
        ValueError,
        "h_0: expected (1, 2, 2), got (1, 3, 2)",
    ),
    (lambda: both_ways.stream(), ValueError, "stream: expected a layer of one direction, got a"),
    (lambda: fastlstm.set_num_threads(0), ValueError, "n: expected at least 1, got 0"),
    (lambda: fastlstm.set_num_threads(-2), ValueError, "n: expected at least 1, got -2"),
    (lambda: fastlstm.set_num_threads(1025), ValueError, "n: expected at most 1024, got 1025"),
    (
        lambda: fastlstm.set_num_threads(2**64),
        ValueError,
        "n: expected at most 1024, got 18446744073",
    ),
    (lambda: fastlstm.set_num_threads(1.0), TypeError, "n: expected an integer, got float"),
    (lambda: fastlstm.set_num_threads(True), TypeError, "n: expected an integer, got bool"),
]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    CONSTRUCTOR + INPUTS + GRADIENTS + OTHERS,
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_message(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    threads = fastlstm.get_num_threads()
    with pytest.raises(error, match=re.escape(message)) as caught:
        call()
    assert caught.type is error
    assert str(caught.value).startswith(message)
    assert fastlstm.get_num_threads() == threads


def test_nothing_happened(rng: Generator) -> None:
    """After all the errors above the layer computes what a new one does; a seed is not used up."""
    for call, _, _ in INPUTS:
        with pytest.raises((TypeError, ValueError)):
            call()
    fresh = LSTM(I, H, seed=1)
    v = random_call(rng, fresh, T, B)
    check_bits(results(one_way, v), results(fresh, v))
    lstm, other = (LSTM(I, H, 2, dropout=0.5, seed=1) for _ in range(2))
    with pytest.raises(ValueError, match="x: expected"):
        lstm.forward(ones(T, B, 4))
    with pytest.raises(ValueError, match="h_0: expected"):
        lstm.forward(x, state(1, B, H))
    with pytest.raises(ValueError, match="checkpoint_every: expected"):
        lstm.forward(x, checkpoint_every=0)
    v = random_call(rng, lstm, T, B)
    check_bits(results(lstm, v), results(other, v))


@pytest.mark.parametrize("value", ["avx1024", "AVX2 ", "none"])
def test_unknown_isa(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLSTM_ISA", value)
    message = f"FASTLSTM_ISA: expected one of {', '.join(fastlstm.isas())}, got {value!r}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        LSTM(I, H)


def test_empty_isa_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLSTM_ISA", "")
    assert LSTM(I, H).isa == fastlstm.isas()[0]


# Sizes whose products pass 2^31, 2^47 (what can be addressed) and 2^63, in a process of its own
# that may use 4 GiB: the answer is an exception, at once, and the process goes on.
HOSTILE = """
import resource, sys
import numpy as np
import fastlstm

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
fastlstm.set_num_threads(1)
small = fastlstm.LSTM(3, 5, seed=1)
deep = fastlstm.LSTM(1, 1, 50, bidirectional=True)
value = np.zeros((1, 1, 3), np.float32)
y = small(value)[0]


def huge(steps, batch, size=3):
    return np.broadcast_to(value[..., :1], (steps, batch, size))


def state(batch):
    h = np.broadcast_to(np.float32(0), (1, batch, 5))
    return h, h


def backward(steps, batch):
    tape = small.forward(value)[2]
    small.backward(tape, np.broadcast_to(y, (steps, batch, 5)))


calls = {}
for e in (31, 32, 40, 47, 56, 59, 60):
    for T, B in ((1 << e, 1), (1, 1 << e), (1 << e // 2, 1 << (e + 1) // 2)):
        calls[f"call T={T} B={B}"] = lambda T=T, B=B: small(huge(T, B))
        calls[f"state T={T} B={B}"] = lambda T=T, B=B: small(huge(T, B), state(B))
        calls[f"forward T={T} B={B}"] = lambda T=T, B=B: small.forward(huge(T, B))
        calls[f"deep T={T} B={B}"] = lambda T=T, B=B: deep.forward(huge(T, B, 1))
        calls[f"backward T={T} B={B}"] = lambda T=T, B=B: backward(T, B)
    calls[f"run T={1 << e}"] = lambda T=1 << e: small.stream().run(huge(T, 1))
    calls[f"stream B={1 << e}"] = lambda B=1 << e: small.stream(B)
    calls[f"input {1 << e}"] = lambda n=1 << e: fastlstm.LSTM(n, 1)
    calls[f"hidden {1 << e}"] = lambda n=1 << e: fastlstm.LSTM(1, n)
    calls[f"both {1 << e // 2}"] = lambda n=1 << e // 2: fastlstm.LSTM(n, n, 1000)
    calls[f"one step of {1 << e}"] = lambda n=1 << e: small(huge(1, 1, n))

for name, call in calls.items():
    try:
        call()
    except (MemoryError, ValueError) as error:
        kinds = (type(error).__name__, type(error).__mro__[1].__name__)
        if not {"MemoryError", "ValueError"} & set(kinds) or not str(error):
            sys.exit(f"{name}: {error!r}")
    else:
        sys.exit(f"{name}: no exception")
    if small(value)[0].tobytes() != y.tobytes():
        sys.exit(f"{name}: the layer is not what it was")
print(len(calls))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_hostile_sizes() -> None:
    command = [sys.executable, "-c", HOSTILE]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(run.stdout) > 100


def test_masked_values_are_refused() -> None:
    """NumPy would drop the mask, and the values behind it would count."""
    lstm = fastlstm.LSTM(2, 3)
    x = np.ma.masked_array(np.zeros((4, 1, 2), np.float32))
    assert (lstm(x)[0] == lstm(np.zeros((4, 1, 2), np.float32))[0]).all()
    x[1, 0, 0] = np.ma.masked
    with pytest.raises(ValueError, match="x: expected an array without masked values"):
        lstm(x)
    tokens = np.ma.masked_array([[0], [1]], [[False], [True]])
    with pytest.raises(ValueError, match="x: expected an array without masked values"):
        lstm(tokens, embedding="one-hot")
    with pytest.raises(ValueError, match="lengths: expected an array without masked values"):
        lstm(x.filled(), lengths=np.ma.masked_array([4], [True]))
    with pytest.raises(ValueError, match="reset: expected an array without masked values"):
        lstm(x.filled(), reset=np.ma.masked_array(np.zeros((4, 1), bool), [[1], [0], [0], [0]]))
