# Types of the compiled core; _core.pyx explains them.

from typing import Any, final

from numpy.typing import ArrayLike, NDArray

from fastlstm._layer import LSTM

_Array = NDArray[Any]
_State = tuple[_Array, _Array]

PROCESSORS: int

def isas() -> list[str]: ...
def has_openmp() -> bool: ...
def compiler() -> str: ...
def head(
    isa: str,
    pool: Pool,
    y: _Array,
    weight: _Array,
    bias: _Array,
    targets: _Array,
    nll: _Array,
    dy: _Array | None,
    dweight: _Array | None,
    dbias: _Array | None,
    threads: int,
) -> None: ...
def activate(isa: str, name: str, x: _Array) -> _Array: ...
def probe(isa: str, kind: str, nbytes: int, repeats: int, threads: int) -> float: ...
def forward(
    packed: Packed,
    pool: Pool,
    x: _Array | None,
    tokens: _Array | None,
    rows: Rows | None,
    y: _Array,
    h: _Array,
    c: _Array,
    tape: Buffer | None,
    rate: float,
    key: int,
    first_step: int,
    threads: int,
) -> None: ...
def backward(
    packed: Packed,
    pool: Pool,
    x: _Array | None,
    tokens: _Array | None,
    rows: Rows | None,
    tape: Buffer,
    rate: float,
    key: int,
    first_step: int,
    dy: _Array,
    dh: _Array,
    dc: _Array,
    dx: _Array | None,
    grads: _Array,
    sums: Buffer | None,
    edge: _Array | None,
    earlier: bool,
    later: bool,
    threads: int,
) -> None: ...

@final
class Buffer:
    @property
    def nbytes(self) -> int: ...
    def __new__(cls, nbytes: int) -> Buffer: ...
    def clear(self) -> None: ...

@final
class Rows:
    def __new__(
        cls, order: _Array | None, lengths: _Array | None, steps: int, reset: _Array | None
    ) -> Rows: ...

@final
class Pool:
    def take(self, nbytes: int) -> Buffer: ...
    def give(self, buffer: Buffer) -> None: ...

@final
class Packed:
    @property
    def is_double(self) -> bool: ...
    @property
    def flat(self) -> _Array: ...
    @property
    def itemsize(self) -> int: ...
    def __new__(
        cls,
        isa: str,
        layers: int,
        directions: int,
        input_size: int,
        hidden_size: int,
        bias: bool,
        flat: _Array,
        threads: int,
    ) -> Packed: ...
    def tape_nbytes(self, steps: int, batch: int, dropout: bool) -> int: ...
    def sums_nbytes(self, count: int) -> int: ...
    def segment(self, batch: int) -> int: ...

@final
class Stream:
    @property
    def layer(self) -> LSTM: ...
    @property
    def state(self) -> _State: ...
    @state.setter
    def state(self, value: tuple[ArrayLike, ArrayLike] | None) -> None: ...
    def __init__(self, layer: LSTM, h: _Array, c: _Array) -> None: ...
    def step(self, x_t: ArrayLike, out: _Array | None = None) -> _Array: ...
    def run(self, x: ArrayLike) -> _Array: ...
    def reset(self, rows: Any = None) -> None: ...
    def copy(self) -> Stream: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
