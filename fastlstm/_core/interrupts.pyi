# Types of the compiled module; interrupts.pyx explains them.

from typing import final

@final
class Interrupt:
    def __new__(cls) -> Interrupt: ...
