# Types of the compiled module; probes.pyx explains them.

from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

def compiler() -> str: ...
def activate(isa: str, name: str, x: _Array) -> _Array: ...
def probe(isa: str, kind: str, nbytes: int, repeats: int, threads: int) -> float: ...
