"""A matrix of cells in colours, whose edges are sharp in every renderer of every format."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

VECTOR_CELLS = 3000
"""Of a figure.  They are rectangles, of about 80 bytes in an SVG file; more are an image."""

_OVERLAP = 1.5 / 72  # inches
_DOTS = 200  # of such an image, to the inch, at least


class Colors(NamedTuple):
    """Which colour a value has."""

    norm: Any
    map: Any


def colors(signed: bool, limits: tuple[float, float]) -> Colors:
    """From orange by white to blue for values around 0; gates are dark where they are shut."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    stops = ["#5f2c00", "#e66100", "#fdc08a", "#ffffff", "#93c6ff", "#1a85ff", "#06306b"]
    two_sided = LinearSegmentedColormap.from_list("orange to blue", stops)
    return Colors(Normalize(*limits), two_sided if signed else colormaps["viridis"])


def draw_cells(axes: Any, values: Array, first: int, palette: Colors, *, vector: bool) -> None:
    """Draw (units, steps), the first unit on top, the steps numbered from `first` on."""
    units, steps = values.shape
    if vector:
        _draw_rectangles(axes, values, first, palette)
    else:
        # Viewers blur small images that they enlarge, so this one has whole pixels to spare.
        width, height = _size_of_cells(axes, values)
        across, down = math.ceil(_DOTS * width), math.ceil(_DOTS * height)
        axes.imshow(
            values.repeat(down, axis=0).repeat(across, axis=1),
            extent=(first - 0.5, first + steps - 0.5, units - 0.5, -0.5),
            aspect="auto",
            interpolation="none",
            norm=palette.norm,
            cmap=palette.map,
        )
    axes.set_ylim(units - 0.5, -0.5)


def _draw_rectangles(axes: Any, values: Array, first: int, palette: Colors) -> None:
    """Each reaches a point or so below its neighbours on the right and beneath, drawn after it.

    Smoothed edges that only touch would let the page shine through.  The last column and row have
    no such neighbours.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.transforms import AffineDeltaTransform

    left, top = first + np.arange(values.shape[1]) - 0.5, np.arange(values.shape[0]) - 0.5
    width, height = (1 + min(0.5, _OVERLAP / inches) for inches in _size_of_cells(axes, values))
    all_but_last, last = slice(0, -1), slice(-1, None)
    for (rows, down), (columns, across) in itertools.product(
        [(all_but_last, height), (last, 1)], [(all_but_last, width), (last, 1)]
    ):
        part = values[rows, columns]
        x, y = np.meshgrid(left[columns], top[rows])
        corners = [(0, 0), (across, 0), (across, down), (0, down)]
        cells = PolyCollection(
            [corners],
            offsets=np.stack([x.ravel(), y.ravel()], axis=1),
            offset_transform=axes.transData,
            array=part.ravel(),
            norm=palette.norm,
            cmap=palette.map,
            linewidths=0,
            clip_on=False,
        )
        cells.set_transform(AffineDeltaTransform(axes.transData))
        axes.add_collection(cells, autolim=False)


def _size_of_cells(axes: Any, values: Array) -> tuple[float, float]:
    """Width and height in inches."""
    width, height = axes.figure.get_size_inches() * axes.get_position().size
    return width / values.shape[1], height / values.shape[0]
