"""Figures of matplotlib.  Imported by the functions that draw, because it needs matplotlib."""

from __future__ import annotations

import io
from typing import Any

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError:
    message = "pictures need matplotlib: pip install 'fastlstm[plot]'"
    raise ModuleNotFoundError(message) from None


class Picture(Figure):
    """A figure that a notebook shows as it is.

    Those of matplotlib need ``%matplotlib inline`` for that.  It registers a printer, which comes
    before the method below, so that a figure is shown once with it, too.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """Twice the pixels, for screens that have them, shown at the size of the figure."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=2 * self.dpi)
        width, height = (round(inches * self.dpi) for inches in self.get_size_inches())
        return file.getvalue(), {"width": width, "height": height}
