# Types of the compiled module; heads.pyx explains them.

from typing import Any

from numpy.typing import NDArray

from fastlstm._core.library import BufferCache
from fastlstm._shards import Shards

_Array = NDArray[Any]

def head(
    isa: str,
    cache: BufferCache,
    y: _Array,
    weight: _Array,
    bias: _Array,
    targets: _Array,
    losses: _Array,
    dy: _Array | None,
    dweight: _Array | None,
    dbias: _Array | None,
    threads: int,
    scale: float = ...,
    weights: _Array | None = ...,
    shards: Shards | None = ...,
) -> None: ...
def linear(
    isa: str,
    cache: BufferCache,
    y: _Array,
    weight: _Array,
    bias: _Array | None,
    out: _Array,
    threads: int,
) -> None: ...
def linear_backward(
    isa: str,
    cache: BufferCache,
    y: _Array,
    weight: _Array,
    dout: _Array,
    dy: _Array | None,
    dweight: _Array,
    dbias: _Array | None,
    threads: int,
) -> None: ...
def loss(
    isa: str,
    cache: BufferCache,
    z: _Array,
    targets: _Array,
    losses: _Array,
    dz: _Array,
    threads: int,
    scale: float,
    weights: _Array | None = ...,
) -> None: ...
