"""What a training run did."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple


class Record(NamedTuple):
    """Where a training run stood at one moment."""

    step: int
    """Updates of the weights so far."""
    epoch: int
    """Whole epochs so far; 0 of data that have none."""
    seconds: float
    """Time since the start, evaluations included."""
    done: float
    """Part of the run, 0 to 1."""
    loss: float
    """Mean training loss, of this step or since the last record."""
    score: float
    """What `evaluate` returned last; NaN before it or without one."""


Progress = Callable[[Any], object]


class Panel(NamedTuple):
    """Some curves on the same axes."""

    label: str
    curves: Sequence[tuple[str, Sequence[float]]]


@dataclass
class History:
    """What a training run returns.

    In a notebook it shows its curve, or, without matplotlib, a table of it.

    Examples
    --------
    >>> from fastlstm.training import History, Record
    >>> History([Record(10, 1, 0.5, 0.5, 2.1, 0.7), Record(20, 2, 1.0, 1.0, 1.6, 0.8)])
    History(2 records, 20 steps, loss 1.6, score 0.8, 1.0 s)
    """

    records: list[Any] = field(default_factory=list)
    """One per evaluation, or per epoch; the last is the end of the run."""
    stopped: bool = False
    """Whether Ctrl-C ended it before its time."""

    _RECORD: ClassVar[Any] = Record
    _AGAINST: ClassVar[tuple[str, ...]] = ("seconds", "step", "epoch")
    _COLUMNS: ClassVar[tuple[str, ...]] = ("steps", "seconds", "loss", "score")

    def plot(self, against: str = "seconds") -> Any:
        """Draw what was measured, of the training data and of what was held out.

        Parameters
        ----------
        against : {"seconds", "step", "epoch"}
            What the horizontal axis has; of a text, "characters" instead of epochs.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        ValueError
            If `against` is none of these.

        Examples
        --------
        >>> from fastlstm.models import LanguageModel
        >>> text = "the cat sat on the mat. " * 200
        >>> history = LanguageModel(text, hidden_size=32, seed=1).fit(text, steps=20, batch_size=8)
        >>> figure = history.plot(against="step")
        """
        if against not in self._AGAINST:
            *others, last = map(repr, self._AGAINST)
            raise ValueError(f"against: expected {', '.join(others)} or {last}, got {against!r}")
        from fastlstm._figure import Picture

        panels = self._panels()
        figure = Picture(figsize=(6.4, 1.6 + 2.0 * len(panels)), layout="constrained")
        place = [getattr(record, against) for record in self.records]
        for axes, panel in zip(
            figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
        ):
            _draw(axes, place, panel)
        figure.axes[-1].set_xlabel({"step": "steps", "epoch": "epochs"}.get(against, against))
        return figure

    def _panels(self) -> list[Panel]:
        """What is drawn, one above the other."""
        loss, score = ([getattr(r, name) for r in self.records] for name in ("loss", "score"))
        scores = [] if all(map(math.isnan, score)) else [Panel("score", [("held out", score)])]
        return [Panel("loss", [("training", loss)]), *scores]

    def _measured(self, record: Any) -> list[str]:
        """What a record measured, in words."""
        score = [] if math.isnan(record.score) else [f"score {record.score:.4g}"]
        return [f"loss {record.loss:.4g}", *score]

    def _cells(self, record: Any) -> tuple[str, ...]:
        """What a record measured, in the last columns of a table."""
        return f"{record.loss:.4g}", f"{record.score:.4g}"

    def __repr__(self) -> str:
        parts = [f"{len(self.records)} record{'s' * (len(self.records) != 1)}"]
        if self.records:
            last = self.records[-1]
            parts += [f"{last.step} steps", *self._measured(last), f"{last.seconds:.1f} s"]
        return f"History({', '.join([*parts, *['stopped'] * self.stopped])})"

    def _repr_png_(self) -> Any:
        """The curve; None, and then there is the table, without matplotlib."""
        return self.plot()._repr_png_() if _can_draw() and self.records else None

    def _repr_html_(self) -> str | None:
        if _can_draw() and self.records:
            return None
        rows = [self._COLUMNS]
        rows += [(str(r.step), f"{r.seconds:.1f}", *self._cells(r)) for r in self.records]
        cells = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


_STYLES = {"held out": ("#1a85ff", "-"), "training": ("#777777", "--")}


def _draw(axes: Any, place: Sequence[float], panel: Panel) -> None:
    drawn = 0
    for label, values in panel.curves:
        if not all(map(math.isnan, values)):
            color, style = _STYLES[label]
            axes.plot(place, values, style, color=color, marker="o", markersize=3, label=label)
            drawn += 1
    axes.set_ylabel(panel.label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4)
    if drawn:
        axes.legend(frameon=False)


def _can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None
