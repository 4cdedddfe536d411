"""Progress of a fit: a bar on a terminal and in a notebook, a few plain lines anywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from fastlstm.training._progress import open_bar


class Progress:
    """Shows epochs on standard error while used in a ``with`` block.

    Parameters
    ----------
    epochs : int
        At most.
    shown : bool
        False shows nothing.
    """

    def __init__(self, epochs: int, shown: bool) -> None:
        self._epochs = epochs
        self._shown = shown
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._shown:
            self._bar = open_bar(self._epochs, unit="epoch")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, epoch: int, loss: float, score: float | None) -> None:
        """Show an epoch; of the plain lines, about twenty."""
        if not self._shown:
            return
        text = f"loss {loss:.4f}" + ("" if score is None else f", validation score {score:.4f}")
        if self._bar is not None:
            self._bar.set_description_str(text, refresh=False)
            self._bar.update(epoch - self._bar.n)
        elif epoch in (1, self._epochs) or epoch % max(1, self._epochs // 20) == 0:
            print(f"epoch {epoch:4}: {text}", file=sys.stderr, flush=True)
