"""The diagram of an LSTM's cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GATES = ("input", "forget", "candidate", "output")
"""In the order of the parameters."""

_POSITIVE, _NEGATIVE, _UNSIGNED, _FAINT = "#1a85ff", "#e66100", "#555555", "#999999"

# Where things are, in units of the axes: 12 x 7.2.
_BELT, _PRODUCT, _OUT, _BOX, _STATE_IN, _INPUT_IN = 6.4, 5.1, 4.7, 3.5, 1.7, 0.95
_LEFT, _RIGHT, _END = 0.4, 11.6, 10.0
_BOXES = {"forget": 2.4, "input": 4.5, "candidate": 6.5, "output": 8.5}
_SIDE = 0.22  # from the middle of a box to the lines that enter it

Points = Sequence[tuple[float, float]]


def draw_cell(
    values: Mapping[str, float],
    parts: Mapping[str, tuple[float, float]] | None,
    title: str,
    *,
    signed: bool,
) -> Any:
    """A figure with these values, and with those of what enters each gate, if there are any."""
    from fastlstm._figure import Picture

    figure = Picture(figsize=(7.8, 5.1))
    axes: Any = figure.add_axes(
        (0.01, 0.01, 0.98, 0.92), xlim=(0, 12), ylim=(0, 7.2), aspect="equal"
    )
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=11, x=_LEFT / 12)
    diagram = _Diagram(axes, values, signed)
    diagram.draw_what_enters(parts)
    diagram.draw_gates()
    diagram.draw_states()
    return figure


class _Diagram:
    def __init__(self, axes: Any, values: Mapping[str, float], signed: bool) -> None:
        self.axes, self.values, self.signed = axes, values, signed

    def draw_what_enters(self, parts: Mapping[str, tuple[float, float]] | None) -> None:
        """x_t from below, h_(t-1) from the left, and two lines into each box."""
        last = _BOXES["output"]
        self._line("x_t", [(_LEFT + 0.3, 0.2), (_LEFT + 0.3, _INPUT_IN), (last - _SIDE, _INPUT_IN)])
        self._line("h_before", [(_LEFT, _STATE_IN), (last + _SIDE, _STATE_IN)])
        self._say(_LEFT + 0.45, 0.35, "x\u209c")
        self._say(_LEFT, _STATE_IN + 0.3, "h\u209c\u208b\u2081")
        for gate, x in _BOXES.items():
            shares = (None, None) if parts is None else parts[gate]
            whole = None if parts is None else sum(map(abs, parts[gate])) or 1.0
            sides = [("x", x - _SIDE, _INPUT_IN, "right"), ("h", x + _SIDE, _STATE_IN, "left")]
            for (name, place, start, side), value in zip(sides, shares, strict=True):
                line = [(place, start), (place, _BOX)]
                if value is None or whole is None:
                    self._line(f"{name} to {gate}", line)
                    continue
                share = abs(value) / whole
                self._line(f"{name} to {gate}", line, share, self._color(value))
                away = 0.14 if side == "left" else -0.14
                style = {"ha": side, "size": 7.5}
                self._say(place + away, 2.75, self._number(value), **style)
                self._say(place + away, 2.45, f"{share:.0%}", color=_FAINT, **style)

    def draw_gates(self) -> None:
        """The boxes, and what leaves them."""
        forget, candidate = _BOXES["forget"], _BOXES["candidate"]
        ways: dict[str, Points] = {
            "forget": [(forget, _BOX), (forget, _BELT)],
            "input": [(_BOXES["input"], _BOX), (_BOXES["input"], _PRODUCT), (candidate, _PRODUCT)],
            "candidate": [(candidate, _BOX), (candidate, _PRODUCT)],
            "output": [(_BOXES["output"], _BOX), (_BOXES["output"], _OUT), (_END, _OUT)],
        }
        for gate, way in ways.items():
            value, x = self.values[gate], _BOXES[gate]
            color = self._color(value) if gate == "candidate" else _UNSIGNED
            self._line(gate, way, value, color)
            self._box(x, _BOX, "tanh" if gate == "candidate" else "\u03c3")
            number = self._number(value) if gate == "candidate" else f"{value:.2f}"
            self._say(x + 0.2, _BOX + 0.75, f"{gate}\n{number}", ha="left", va="center")

    def draw_states(self) -> None:
        """The belt on top, and the way to the hidden state."""
        forget, candidate = _BOXES["forget"], _BOXES["candidate"]
        ways: dict[str, tuple[Points, str]] = {
            "before": ([(_LEFT, _BELT), (forget, _BELT)], "c\u209c\u208b\u2081"),
            "kept": ([(forget, _BELT), (candidate, _BELT)], "kept"),
            "added": ([(candidate, _PRODUCT), (candidate, _BELT)], "added"),
            "cell": ([(candidate, _BELT), (_RIGHT, _BELT)], "c\u209c"),
            "shown": ([(_END, _BELT), (_END, _OUT)], ""),
            "hidden": ([(_END, _OUT), (_END, _STATE_IN), (_RIGHT, _STATE_IN)], "h\u209c"),
        }
        words: dict[str, tuple[float, float, str]] = {
            "before": (_LEFT, _BELT + 0.4, "left"),
            "kept": ((forget + candidate) / 2, _BELT + 0.4, "center"),
            "added": (candidate + 0.35, (_PRODUCT + _BELT) / 2, "left"),
            "cell": (_RIGHT, _BELT + 0.4, "right"),
            "hidden": (_RIGHT, _STATE_IN + 0.4, "right"),
        }
        for name, (way, label) in ways.items():
            value = self.values["cell" if name == "shown" else name]
            color = self._color(value)
            self._line(name, way, value, color, arrow=name in ("cell", "hidden"))
            if label:
                x, y, side = words[name]
                self._say(x, y, f"{label} {self._number(value)}", ha=side, va="center")
        self._box(_END, (_BELT + _OUT) / 2 + 0.1, "tanh")
        for x, y, sign in [
            (forget, _BELT, "\u00d7"),
            (candidate, _PRODUCT, "\u00d7"),
            (candidate, _BELT, "+"),
            (_END, _OUT, "\u00d7"),
        ]:
            self._node(x, y, sign)

    def _line(
        self,
        name: str,
        way: Points,
        value: float | None = None,
        color: str = _FAINT,
        *,
        arrow: bool = False,
    ) -> None:
        """A thin one without a value; else as wide as the value, up to 1.5."""
        width = 1.0 if value is None else 0.8 + 5 * min(abs(value), 1.5)
        x, y = zip(*way, strict=True)
        style = {"solid_capstyle": "butt", "solid_joinstyle": "round", "clip_on": False}
        self.axes.plot(x, y, color=color, linewidth=width, gid=name, zorder=1, **style)
        if arrow:
            size = 5 + 1.6 * width
            self.axes.plot(x[-1], y[-1], ">", color=color, markersize=size, markeredgewidth=0)

    def _box(self, x: float, y: float, words: str) -> None:
        from matplotlib.patches import FancyBboxPatch

        width, height = 0.6, 0.3
        corner = x - width / 2, y - height / 2
        style: dict[str, Any] = {
            "facecolor": "#fff6dd",
            "edgecolor": "#333333",
            "linewidth": 0.8,
            "zorder": 3,
        }
        box = FancyBboxPatch(corner, width, height, boxstyle="round,pad=0.12", **style)
        self.axes.add_patch(box)
        self._say(x, y, words, ha="center", va="center_baseline", size=9, zorder=4)

    def _node(self, x: float, y: float, sign: str) -> None:
        style = {"color": "white", "markeredgecolor": "#333333", "markeredgewidth": 0.8}
        self.axes.plot(x, y, "o", markersize=14, zorder=3, **style)
        self._say(x, y, sign, ha="center", va="center_baseline", size=10, zorder=4)

    def _say(self, x: float, y: float, words: str, **style: Any) -> None:
        self.axes.text(x, y, words, **{"size": 8.5, "color": "#333333", **style})

    def _color(self, value: float) -> str:
        if not self.signed or not round(value, 2):
            return _UNSIGNED
        return _NEGATIVE if value < 0 else _POSITIVE

    def _number(self, value: float) -> str:
        """With its sign, if it has one."""
        if not self.signed or not round(value, 2):
            return f"{abs(value):.2f}"
        return f"{value:+.2f}".replace("-", "\u2212")
