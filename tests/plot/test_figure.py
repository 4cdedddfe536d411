"""The figures that all pictures are."""

from __future__ import annotations

import pickle

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from fastlstm._figure import Picture


def test_a_picture_is_a_figure_and_a_png_of_its_size() -> None:
    picture = Picture(figsize=(3, 2), dpi=50)
    assert isinstance(picture, Figure)
    data, metadata = picture._repr_png_()
    assert metadata == {"width": 150, "height": 100}
    assert data.startswith(b"\x89PNG")
    size = [int.from_bytes(data[at : at + 4], "big") for at in (16, 20)]
    assert size == [300, 200]
    assert picture.dpi == 50
    assert type(pickle.loads(pickle.dumps(picture))) is Picture
