"""What a training run did."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Record(NamedTuple):
    """Where a training run stood at one moment."""

    step: int
    """Updates of the weights so far."""
    characters: int
    """Characters read so far."""
    seconds: float
    """Time since the start, evaluations included."""
    done: float
    """Part of the run, 0 to 1."""
    loss: float
    """Mean training loss in nats per character, of this step or since the last record."""
    held_out_bits: float
    """Held-out bits per character at the last evaluation; NaN before it or without one."""


Progress = Callable[[Record], object]


@dataclass
class History:
    """What a training run returns.

    In a notebook it shows its curve, or, without matplotlib, a table of it.

    Examples
    --------
    >>> from fastlstm.models import History, Record
    >>> History([Record(10, 5120, 0.5, 0.5, 2.1, 3.2), Record(20, 10240, 1.0, 1.0, 1.6, 2.5)])
    History(2 records, 20 steps, held out 2.500 bits per character, 1.0 s)
    """

    records: list[Record] = field(default_factory=list)
    """One per held-out evaluation; the last is the end of the run."""
    stopped: bool = False
    """Whether Ctrl-C ended it before its time."""

    @property
    def characters_per_second(self) -> float:
        """Mean speed over the whole run, evaluations included."""
        last = self.records[-1]
        return last.characters / last.seconds

    def plot(self, against: str = "seconds") -> Any:
        """Draw bits per character, of the held-out text and of the training text.

        Parameters
        ----------
        against : {"seconds", "step", "characters"}
            What the horizontal axis has.

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
        if against not in ("seconds", "step", "characters"):
            raise ValueError(
                f"against: expected 'seconds', 'step' or 'characters', got {against!r}"
            )
        from fastlstm._figure import Picture

        figure = Picture(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        place = [getattr(record, against) for record in self.records]
        curves = [
            ("held out", [record.held_out_bits for record in self.records], "#1a85ff", "-"),
            ("training", [_bits(record.loss) for record in self.records], "#777777", "--"),
        ]
        for label, bits, color, style in curves:
            if not all(map(math.isnan, bits)):
                axes.plot(place, bits, style, color=color, marker="o", markersize=3, label=label)
        axes.set_xlabel({"step": "steps"}.get(against, against))
        axes.set_ylabel("bits per character")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4)
        if self.records:
            axes.legend(frameon=False)
        return figure

    def __repr__(self) -> str:
        parts = [f"{len(self.records)} record{'s' * (len(self.records) != 1)}"]
        if self.records:
            last = self.records[-1]
            held_out = not math.isnan(last.held_out_bits)
            bits = last.held_out_bits if held_out else _bits(last.loss)
            measured = f"{'held out' if held_out else 'training'} {bits:.3f} bits per character"
            parts += [f"{last.step} steps", measured, f"{last.seconds:.1f} s"]
        return f"History({', '.join([*parts, *['stopped'] * self.stopped])})"

    def _repr_png_(self) -> Any:
        """The curve; None, and then there is the table, without matplotlib."""
        return self.plot()._repr_png_() if _can_draw() and self.records else None

    def _repr_html_(self) -> str | None:
        if _can_draw() and self.records:
            return None
        cells = [("steps", "seconds", "training", "held out")]
        for record in self.records:
            bits = (f"{_bits(record.loss):.3f}", f"{record.held_out_bits:.3f}")
            cells.append((str(record.step), f"{record.seconds:.1f}", *bits))
        rows = ["".join(f"<td>{cell}</td>" for cell in row) for row in cells]
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _bits(nats: float) -> float:
    return nats / math.log(2)


def _can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None
