# Types of the compiled module; sequence.pyx explains them.

from typing import Any, final

from numpy.typing import NDArray

from fastlstm._core.library import Buffer, BufferCache
from fastlstm._core.packed_weights import PackedWeights, StackConfig
from fastlstm._shards import Shards

_Array = NDArray[Any]

def forward(
    packed: PackedWeights,
    cache: BufferCache,
    x: _Array | None,
    tokens: _Array | None,
    rows: Rows | None,
    y: _Array,
    states: list[_Array],
    tape: Buffer | None,
    dropout: tuple[int, float, float, int, int] | None,
    first_step: int,
    threads: int,
) -> None: ...
def backward(
    packed: PackedWeights,
    cache: BufferCache,
    x: _Array | None,
    tokens: _Array | None,
    rows: Rows | None,
    tape: Buffer,
    dropout: tuple[int, float, float, int, int] | None,
    first_step: int,
    dy: _Array,
    dstates: list[_Array],
    dx: _Array | None,
    grads: _Array,
    sums: Buffer | None,
    boundary_dz: _Array | None,
    earlier: bool,
    later: bool,
    threads: int,
    shards: Shards | None = ...,
) -> None: ...
def read_tape(
    packed: PackedWeights,
    tape: Buffer,
    rows: Rows | None,
    layer: int,
    direction: int,
    field: int,
    out: _Array,
) -> None: ...
def plan(
    isa: str,
    config: StackConfig,
    is_double: bool,
    steps: int,
    batch: int,
    dropout: tuple[int, float, float, int, int] | None,
    training: bool,
    threads: int,
) -> list[dict[str, Any]]: ...

@final
class Rows:
    def __new__(
        cls, order: _Array | None, lengths: _Array | None, steps: int, reset: _Array | None
    ) -> Rows: ...
