"""Heat maps over time, on a sheet: columns of panels, and bands for texts that are long."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.plot._cells import VECTOR_CELLS, Colors, colors, draw_cells

Array = NDArray[Any]

Row = tuple[str, ...]

GATES_FIRST: list[Row] = [
    ("input", "reset"), ("forget", "update"), ("candidate",), ("output",), ("cell",), ("hidden",),
]  # fmt: skip
"""The rows of a sheet from top to bottom; of the names of a row, each cell has one at most."""
STATES_FIRST: list[Row] = [("hidden",), *GATES_FIRST[2::-1], *GATES_FIRST[3:5]]
"""Each cell has the first rows, and some have more."""

_SIGNED = ("candidate", "cell", "hidden")  # around 0; gates are between 0 and 1

# In points.  Whole ones: the numbers in an SVG file are short then.
_WIDTH = 684  # of the panels of all columns, at most
_NARROWEST = 300  # of the panels of a column
_LEFT, _RIGHT, _TOP, _BOTTOM = 32, 40, 22, 26
_TITLE = 15  # above each panel
_BAR = 5
_LETTER, _LINE = 7, 8  # room for a letter, and for a line of small print
_HIGHEST = 2900  # of a sheet, if its panels can be so low

_STEPS = 1000  # of a band without letters, at most

_INK, _FAINT = "#333333", "#888888"


_Panels = list[tuple[str, Array]]


class Column(NamedTuple):
    """The panels of one trace, from top to bottom."""

    title: str
    panels: Mapping[str, Array]
    """(units, steps) each, by the names of gates and states."""
    units: Mapping[str, Sequence[int]]
    """The numbers of their units."""


def draw_sheet(
    columns: Sequence[Column],
    text: str | None,
    order: Sequence[Row],
    *,
    by_unit: bool = False,
) -> Any:
    """A figure with a column for each trace, a row of panels for names that belong together.

    Parameters
    ----------
    columns : sequence of Column
        All of as many steps.
    text : str, optional
        A character a step.
    order : sequence of rows
        `GATES_FIRST` or `STATES_FIRST`.
    by_unit : bool
        Whether each unit has limits of its own, instead of those of all panels of its row.
    """
    sheet = _Sheet(columns, text, order, by_unit)
    for i, column in enumerate(columns):
        sheet.draw(column, i * sheet.pitch + _LEFT)
    return sheet.figure


class _Sheet:
    """A figure, and what lies where on it, in points."""

    def __init__(
        self,
        columns: Sequence[Column],
        text: str | None,
        order: Sequence[Row],
        by_unit: bool,
    ) -> None:
        from fastlstm._figure import Picture

        panels = [panel for column in columns for panel in column.panels.items()]
        steps = panels[0][1].shape[1]
        self.rows = [row for row in order if any(name in row for name, _ in panels)]
        self.text, self.by_unit = text, by_unit
        most = max(_WIDTH // len(columns), _NARROWEST)
        room = most // _LETTER if text is not None else _STEPS
        count = math.ceil(steps / room) or 1
        length = math.ceil(steps / count) or 1
        self.bands = [slice(a, min(a + length, steps)) for a in range(0, steps or 1, length)]
        width = min(max(12, 336 / len(columns) / length), most / length)
        self.width_of_step = int(width) if width > _LETTER else width
        self.heights = {row: self._height(row, panels) for row in self.rows}
        self.palettes = {row: self._palette(row, panels) for row in self.rows}
        self.vector = sum(values.size for _, values in panels) <= VECTOR_CELLS
        self.pitch = _LEFT + length * self.width_of_step + _RIGHT
        self.band_height = sum(self.heights.values()) + _TITLE * len(self.rows) + _BOTTOM
        self.titled = _TOP if any(column.title for column in columns) else 0
        self.width = len(columns) * self.pitch
        self.height = self.titled + len(self.bands) * self.band_height
        self.figure = Picture(figsize=(self.width / 72, self.height / 72))

    def _height(self, row: Row, panels: _Panels) -> int:
        units = max(len(values) for name, values in panels if name in row)
        height = max(min(_LINE * units, 96), 0.75 * units, 26)
        lowest = _HIGHEST / (len(self.bands) * len(self.rows)) - _TITLE
        return round(min(height, max(lowest, 36), 192))

    def _palette(self, row: Row, panels: _Panels) -> Colors:
        """One for all panels of a row, so that equal colours are equal values."""
        signed, limit = row[0] in _SIGNED, 1.0
        for name, values in panels:
            if name in row and not self.by_unit:
                finite = np.abs(values[np.isfinite(values)])
                limit = max(limit, float(finite.max(initial=0)))
        return colors(signed, (-limit if signed else 0.0, limit))

    def draw(self, column: Column, left: float) -> None:
        """Draw the panels of a trace below each other."""
        self._write(left, 12, column.title, size=9, weight="bold")
        for k, band in enumerate(self.bands):
            top = self.titled + k * self.band_height
            width = max(band.stop - band.start, 1) * self.width_of_step
            self._write(left - 4, top + _TITLE - 4, "unit", size=6.5, color=_FAINT, ha="right")
            if len(self.bands) > 1:
                steps = f"steps {band.start} to {band.stop - 1}"
                place = left + width, top + _TITLE - 4
                self._write(*place, steps, size=6.5, color=_FAINT, ha="right")
            axes = None
            for row in self.rows:
                top += _TITLE
                for name in column.panels.keys() & set(row):  # one or none
                    axes = self._axes(left, top, width, self.heights[row])
                    self._draw_panel(axes, column, name, band, row)
                    self._draw_bar(left + width + 5, top, row)
                top += self.heights[row]
            self._label_steps(axes, band, width)

    def _draw_panel(self, axes: Any, column: Column, name: str, band: slice, row: Row) -> None:
        values, numbers = column.panels[name], column.units[name]
        axes.set_xlim(band.start - 0.5, max(band.stop, 1) - 0.5)
        if values.size:
            shown = _between_own_limits(values, name in _SIGNED) if self.by_unit else values
            palette = self.palettes[row]
            draw_cells(axes, shown[:, band], band.start, palette, vector=self.vector)
        every = _spacing(_LINE * len(values) / self.heights[row])
        ticks = range(0, len(values), every)
        axes.set_yticks(ticks, [str(numbers[i]) for i in ticks])
        axes.set_title(name, loc="left", fontsize=8, pad=3, color=_INK)

    def _draw_bar(self, left: float, top: float, row: Row) -> None:
        """The colours beside a panel, and the values of the first and last of them."""
        axes = self._axes(left, top, _BAR, self.heights[row])
        norm, cmap = self.palettes[row]
        low, high = norm.vmin, norm.vmax
        shades = np.linspace(high, low, 64)[:, None].repeat(2, axis=1)
        axes.imshow(shades, extent=(0, 1, low, high), aspect="auto", norm=norm, cmap=cmap)
        middle = [0.0] if low < 0 and self.heights[row] > 4 * _LINE else []
        names = [f"{tick:.3g}".replace("-", "\u2212") for tick in (low, *middle, high)]
        if self.by_unit:
            names[0], names[-1] = "\u2212max" if low < 0 else "min", "max"
        axes.spines[:].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([low, *middle, high], names)
        axes.tick_params(labelleft=False, labelright=True)
        first, *_, last = axes.get_yticklabels()
        first.set_verticalalignment("bottom")
        last.set_verticalalignment("top")

    def _label_steps(self, axes: Any, band: slice, width: float) -> None:
        """Below the lowest panel of a band: the letters, or some of the numbers."""
        axes.tick_params(axis="x", labelbottom=True)
        if self.text is not None:
            letters = [visible(character) for character in self.text[band]]
            axes.set_xticks(range(band.start, band.stop), letters, family="monospace", fontsize=7.5)
            return
        every = _spacing(28 * (band.stop - band.start) / width)
        axes.set_xticks(range(-(-band.start // every) * every, band.stop, every))
        axes.tick_params(axis="x", bottom=True)
        axes.set_xlabel("step", fontsize=7, color=_INK, labelpad=1)

    def _axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Thin ones, at a place in points from the upper left corner of the figure."""
        corner = left / self.width, 1 - (top + height) / self.height
        axes: Any = self.figure.add_axes((*corner, width / self.width, height / self.height))
        axes.spines[:].set(linewidth=0.4, color=_FAINT)
        axes.tick_params(labelsize=6.5, length=2, width=0.4, pad=2, color=_FAINT, labelcolor=_INK)
        axes.tick_params(left=False, bottom=False, labelbottom=False)
        return axes

    def _write(self, left: float, top: float, words: str, **style: Any) -> None:
        place = left / self.width, 1 - top / self.height
        self.figure.text(*place, words, **{"color": _INK, **style})


def _between_own_limits(values: Array, signed: bool) -> Array:
    """Each row divided by its largest absolute value, or from its minimum 0 to its maximum 1."""
    if signed:
        largest: Array = np.abs(values).max(axis=1, keepdims=True)
        return values / np.maximum(largest, 1e-30)
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    scaled: Array = (values - low) / np.maximum(high - low, 1e-30)
    return scaled


def _spacing(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is at least so much."""
    steps: Iterator[int] = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    return next(step for step in steps if step >= least)


def visible(character: str) -> str:
    """A mark for what would not be seen."""
    return {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}.get(character, character)
