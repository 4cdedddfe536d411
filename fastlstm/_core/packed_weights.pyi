# Types of the compiled module; packed_weights.pyx explains them.

from typing import Any, final

from numpy.typing import NDArray

_Array = NDArray[Any]

@final
class StackConfig:
    def __new__(
        cls,
        cell: int,
        layers: int,
        directions: int,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        bias: bool,
        options: Any,  # a record with the names of fl_options, or None
        weights: int = ...,
        heads: int = ...,
    ) -> StackConfig: ...

@final
class PackedWeights:
    @property
    def is_double(self) -> bool: ...
    @property
    def itemsize(self) -> int: ...
    @property
    def version(self) -> int: ...
    def __new__(
        cls,
        isa: str,
        stack: StackConfig,
        flat: _Array,
        version: int,
        threads: int,
        scales: _Array | None = ...,
    ) -> PackedWeights: ...
    def is_of(self, version: int, backward: bool) -> bool: ...
    def add_backward(self, flat: _Array, threads: int) -> None: ...
    def tape_nbytes(
        self, steps: int, batch: int, dropout: tuple[int, float, float, int, int] | None
    ) -> int: ...
    def sums_nbytes(self, count: int) -> int: ...
    def segment(self, rows: int) -> int: ...
