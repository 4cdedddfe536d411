"""Pictures of what a layer does inside.  Needs matplotlib: ``pip install fastlstm[plot]``."""

from fastlstm._layers.contributions import Contributions
from fastlstm.plot._changes import changes
from fastlstm.plot._compare import compare
from fastlstm.plot._contributions import contributions
from fastlstm.plot._flow import flow
from fastlstm.plot._gates import gates
from fastlstm.plot._gradients import gradient_flow, gradient_norms

__all__ = [
    "Contributions",
    "changes",
    "compare",
    "contributions",
    "flow",
    "gates",
    "gradient_flow",
    "gradient_norms",
]
