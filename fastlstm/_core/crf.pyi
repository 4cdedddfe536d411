# Types of the compiled module; crf.pyx explains them.

from typing import Any

from numpy.typing import NDArray

from fastlstm._core.library import BufferCache

_Array = NDArray[Any]

def loss(
    isa: str,
    cache: BufferCache,
    emissions: _Array,
    parameters: _Array,
    lengths: _Array | None,
    labels: _Array | None,
    nll: _Array,
    marginals: _Array,
    grads: _Array | None,
    threads: int,
) -> None: ...
def decode(
    isa: str,
    cache: BufferCache,
    emissions: _Array,
    parameters: _Array,
    lengths: _Array | None,
    path: _Array,
    threads: int,
) -> None: ...
