# Types of the compiled module; library.pyx explains them.

from typing import NamedTuple, final

PROCESSORS: int

class Cell(NamedTuple):
    name: str
    gates: str
    states: str
    has_options: bool

def cells() -> list[Cell]: ...
def isas() -> list[str]: ...
def has_openmp() -> bool: ...

@final
class Buffer:
    @property
    def nbytes(self) -> int: ...
    def __new__(cls, nbytes: int) -> Buffer: ...
    def clear(self) -> None: ...

@final
class BufferCache:
    def take(self, nbytes: int) -> Buffer: ...
    def give(self, buffer: Buffer) -> None: ...
