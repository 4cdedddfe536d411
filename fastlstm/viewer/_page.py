"""The page as text: its style, its scripts and its data, put together."""

from __future__ import annotations

import html as html_text
import json
import re
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

# In this order, as one script: each uses those before it.
SCRIPTS = (
    "data",
    "state",
    "write",
    "text",
    "chart",
    "arcs",
    "shares",
    "drawing",
    "lstm",
    "gru",
    "rnn",
    "cell",
    "next",
    "matches",
    "saturation",
    "units",
    "main",
)
HEIGHT = 940  # of the frame in a notebook, in pixels
STATIC_STEPS = 400


def html(about: dict[str, Any], data: str) -> str:
    """The whole page; `data` is text in base64."""
    scripts = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    parts = {
        "title": html_text.escape(f"{about['model']} · fastlstm look"),
        "style": _asset("style.css"),
        "about": _as_script(about),
        "data": data,
        "script": f'(() => {{\n"use strict";\n{scripts}\n}})();',
    }
    # In one pass: a text may have such marks, too.
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _asset("page.html"))


def in_notebook(page: str, static: str) -> str:
    """The page in a frame, isolated from the notebook; what no script has to run for below it."""
    frame = (
        f'<iframe srcdoc="{html_text.escape(page)}" sandbox="allow-scripts" '
        f'style="width:100%;height:{HEIGHT}px;border:0" title="fastlstm look"></iframe>'
    )
    return f"{frame}<details><summary>Without scripts</summary>{static}</details>"


def static(steps: list[str], values: NDArray[Any], caption: str) -> str:
    """What was read, each step in the colour of a value: a picture without a script."""
    largest = float(np.abs(values).max(initial=0)) or 1.0
    cells = []
    for step, value in zip(steps[:STATIC_STEPS], values[:STATIC_STEPS].tolist(), strict=False):
        red, green, blue = (91, 147, 214) if value > 0 else (232, 133, 58)
        alpha = abs(value) / largest
        cells.append(
            f'<span title="{value:+.2f}" style="background:rgba({red},{green},{blue},{alpha:.2f})">'
            f"{html_text.escape(step)}</span>"
        )
    more = f" The first {STATIC_STEPS} steps." if len(steps) > STATIC_STEPS else ""
    return (
        f"<p>{html_text.escape(caption)}{more}</p>"
        f'<pre style="white-space:pre-wrap;line-height:1.8">{"".join(cells)}</pre>'
    )


def _as_script(value: Any) -> str:
    """JSON in which no text can end the script element it stands in."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")
