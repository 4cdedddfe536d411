"""What a picture shows, read from its artists."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def panels(figure: Any, name: str) -> list[Any]:
    """The axes with this title, of all columns and bands."""
    return [axes for axes in figure.axes if axes.get_title(loc="left") == name]


def cells(axes: Any) -> NDArray[Any]:
    """The values of a heat map, (units, steps), each where it is drawn."""
    steps = round(np.diff(axes.get_xlim())[0])
    units = round(-np.diff(axes.get_ylim())[0])
    first = axes.get_xlim()[0]
    values = np.full((units, steps), np.nan, np.float64)
    for part in axes.collections:
        left, top = part.get_offsets().T
        across, down = (left - first).round().astype(int), (top + 0.5).round().astype(int)
        assert np.isnan(values[down, across]).all()
        values[down, across] = part.get_array()
    for image in axes.images:
        array = image.get_array()
        assert image.get_extent() == [*axes.get_xlim(), *axes.get_ylim()]
        down, across = array.shape[0] // units, array.shape[1] // steps
        assert array.shape == (units * down, steps * across)
        values = np.asarray(array[::down, ::across], np.float64)
        assert np.array_equal(values.repeat(down, 0).repeat(across, 1), array)
    return values


def limits(axes: Any) -> tuple[float, float]:
    """The values of the first and the last colour."""
    return next(artist.get_clim() for artist in (*axes.collections, *axes.images))


def x_labels(axes: Any) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def y_labels(axes: Any) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]
