# Types of the compiled module; _kernels.pyx explains them.

from typing import Any

from numpy.typing import NDArray

from fastlstm._core import Pool

_Array = NDArray[Any]

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
