"""Pictures in notebooks, run by a real kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytestmark = pytest.mark.peer

DRAW = """
import numpy as np
import fastlstm
from fastlstm import plot
[trace] = fastlstm.LSTM(2, 3, seed=0).trace(np.ones((5, 2), np.float32))
plot.flow(trace, 1)
"""


def outputs_of(cells: Sequence[str]) -> list[dict[str, Any]]:
    """What the last cell of a notebook shows: one record for each output."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("ipykernel")
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs: list[dict[str, Any]] = notebook.cells[-1].outputs
    return outputs


@pytest.mark.parametrize(
    "before",
    [[], ["%matplotlib inline"], ["import matplotlib.pyplot as plt; plt.figure().axes"]],
    ids=["plain", "magic", "pyplot"],
)
def test_a_figure_is_shown_once(before: list[str]) -> None:
    outputs = outputs_of([*before, DRAW])
    assert [output["output_type"] for output in outputs] == ["execute_result"]
    images = [kind for kind in outputs[0]["data"] if kind.startswith("image/")]
    assert images == ["image/png"]


def test_a_history_shows_its_curve() -> None:
    make = "from fastlstm.models import History, Record\nrecord = Record(1, 2, 3.0, 1.0, 1.0, 2.5)"
    [output] = outputs_of([f"{make}\nHistory([record])"])
    assert set(output["data"]) == {"text/plain", "image/png"}
    [output] = outputs_of(
        [f"import sys; sys.modules['matplotlib'] = None\n{make}\nHistory([record])"]
    )
    assert set(output["data"]) == {"text/plain", "text/html"}
    assert "<td>2.500</td>" in output["data"]["text/html"]
