# Types of the compiled updates; updates.pyx explains them.

from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

def sgd(
    p: _Array,
    g: _Array,
    velocity: _Array | None,
    *,
    lr: float,
    decay: float,
    momentum: float,
    weight: float,
    nesterov: bool,
    threads: int,
) -> None: ...
def rmsprop(
    p: _Array,
    g: _Array,
    square: _Array,
    mean: _Array | None,
    velocity: _Array | None,
    *,
    lr: float,
    decay: float,
    alpha: float,
    weight: float,
    eps: float,
    momentum: float,
    threads: int,
) -> None: ...
def adagrad(
    p: _Array, g: _Array, total: _Array, *, lr: float, decay: float, eps: float, threads: int
) -> None: ...
def adam(
    p: _Array,
    g: _Array,
    mean: _Array,
    square: _Array,
    largest: _Array | None,
    *,
    lr: float,
    decay: float,
    shrink: float,
    weight: float,
    beta2: float,
    weight2: float,
    eps: float,
    threads: int,
) -> None: ...
def sum_of_squares(vector: _Array, threads: int) -> float: ...
