# Types of the compiled module; ctc.pyx explains them.

from typing import Any

from numpy.typing import NDArray

from fastlstm._core.library import BufferCache

_Array = NDArray[Any]

def loss(
    isa: str,
    cache: BufferCache,
    logits: _Array,
    lengths: _Array,
    targets: _Array,
    target_lengths: _Array,
    blank: int,
    nll: _Array,
    dlogits: _Array,
    threads: int,
) -> None: ...
