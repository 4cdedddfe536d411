# Types of the compiled module; locked_slots.pyx explains them.

from typing import Any, final

from numpy.typing import NDArray

from fastlstm._core.packed_weights import PackedWeights

@final
class LockedSlots:
    def __new__(cls, packed: PackedWeights, states: list[NDArray[Any]]) -> LockedSlots: ...
