# Types of the compiled module; heads.pyx explains them.

from typing import Any

from numpy.typing import NDArray

from fastlstm._core.library import BufferCache

_Array = NDArray[Any]

def head(
    isa: str,
    cache: BufferCache,
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
