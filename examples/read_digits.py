"""Read lines of handwritten digits: a bidirectional LSTM over the columns, trained by CTC.

    python examples/read_digits.py --plot read_digits.png

The images that come with scikit-learn, 8 x 8 pixels, are put side by side, 5 to 8 to a line, with
gaps of different widths, a little higher or lower, on a noisy ground.  The network sees a line
column by column and is told its digits, but not where they are.  A quarter of the images are only
in the lines it is tested on, most of them by the hands of other writers.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import fastlstm
from fastlstm import training
from fastlstm.heads import Linear, ctc_decode, ctc_loss

Array = NDArray[Any]

HEIGHT = 10  # pixels of a column: a digit's 8, and room to be higher or lower
BLANK, CLASSES = 10, 11  # symbols 0 to 9 are the digits


class Lines(NamedTuple):
    """Lines of digits, padded at their ends."""

    x: Array  # [T, B, HEIGHT]
    lengths: Array  # [B] columns
    targets: Array  # [B, S]
    counts: Array  # [B] digits


def draw_line(images: Array, rng: np.random.Generator) -> Array:
    """Columns [T, HEIGHT] of a line of images [n, 8, 8]."""
    parts = [np.zeros((HEIGHT, rng.integers(1, 5)))]
    for image in images:
        above = rng.integers(HEIGHT - 7)
        parts.append(np.pad(image, ((above, HEIGHT - 8 - above), (0, rng.integers(0, 5)))))
    line = np.concatenate(parts, axis=1)
    return (line + rng.normal(0, 0.05, line.shape)).T.astype(np.float32)


def draw_lines(images: Array, labels: Array, count: int, rng: np.random.Generator) -> Lines:
    """Lines of 5 to 8 digits, drawn from these images."""
    picked = [rng.integers(len(images), size=rng.integers(5, 9)) for _ in range(count)]
    lines = [draw_line(images[numbers], rng) for numbers in picked]
    lengths, counts = np.array([len(a) for a in lines]), np.array([len(a) for a in picked])
    x = np.zeros((lengths.max(), count, HEIGHT), np.float32)
    targets = np.zeros((count, counts.max()), int)
    for b, (line, numbers) in enumerate(zip(lines, picked, strict=True)):
        x[: len(line), b], targets[b, : len(numbers)] = line, labels[numbers]
    return Lines(x, lengths, targets, counts)


class Reader:
    """An LSTM over the columns, both ways, and a linear layer to the digits and the blank."""

    def __init__(self, hidden: int, seed: int = 0) -> None:
        self.lstm = fastlstm.LSTM(HEIGHT, hidden, bidirectional=True, seed=seed)
        self.linear = Linear(2 * hidden, CLASSES, seed=seed)

    def logits(self, lines: Lines) -> Array:
        """[T, B, CLASSES]"""
        return self.linear(self.lstm(lines.x, lengths=lines.lengths)[0])

    def gradients(self, *lines: Array) -> tuple[float, list[Any]]:
        """The mean loss of some lines, and its gradients."""
        x, lengths, targets, counts = lines
        y, _, tape = self.lstm.forward(x, lengths=lengths)
        logits, linear_tape = self.linear.forward(y)
        nll, dlogits = ctc_loss(logits, targets, lengths, counts, blank=BLANK)
        dy, of_linear = self.linear.backward(linear_tape, dlogits / len(nll))
        _, _, of_lstm = self.lstm.backward(tape, dy, input_gradient=False)
        return float(nll.mean()), [of_lstm, of_linear]

    def read(self, lines: Lines, beam: int) -> list[list[int]]:
        """The digits of each line."""
        found = ctc_decode(self.logits(lines), lines.lengths, beam=beam, blank=BLANK)
        return [symbols.tolist() for symbols in found]


def edits(a: list[int], b: list[int]) -> int:
    """How many digits must be changed, left out or added to make one of the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        before, row = row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(before[j] + (x != y), before[j + 1] + 1, row[j] + 1))
    return row[-1]


def draw_picture(reader: Reader, lines: Lines, path: str) -> None:
    """A line, the probability of each digit at each column, and the reading."""
    import matplotlib.pyplot as plt

    n, logits = lines.lengths[0], reader.logits(lines)[: lines.lengths[0], 0]
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    figure, (above, below) = plt.subplots(
        2, sharex=True, figsize=(8, 3.6), layout="constrained", height_ratios=[1, 1.4]
    )
    above.imshow(lines.x[:n, 0].T, cmap="gray_r", vmin=0, vmax=1)
    above.set_axis_off()
    below.imshow(p[:, :BLANK].T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    below.set_yticks(range(10))
    below.set_xlabel("column")
    below.set_ylabel("p(digit)")
    text = "".join(map(str, reader.read(lines, 1)[0]))
    truth = "".join(map(str, lines.targets[0, : lines.counts[0]]))
    above.set_title(f"read as {text}" + ("" if text == truth else f", but it is {truth}"))
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train, print the errors on digits that were not seen in training, and draw a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500, help="batches of 32 lines")
    parser.add_argument("--hidden", type=int, default=96, help="units of each direction")
    parser.add_argument("--lines", type=int, default=500, help="to test on")
    parser.add_argument(
        "--plot",
        nargs="?",
        const="read_digits.svg",
        metavar="FILE",
        help="a name that ends in svg, png or pdf; read_digits.svg without a name",
    )
    args = parser.parse_args()
    data, rng = load_digits(), np.random.default_rng(0)
    images, labels = data.images / 16, data.target
    train, test = slice(0, len(images) * 3 // 4), slice(len(images) * 3 // 4, None)
    reader = Reader(args.hidden)
    training.fit(
        [reader.lstm, reader.linear],
        reader.gradients,
        lambda drawing: tuple(draw_lines(images[train], labels[train], 32, drawing)),
        steps=args.steps,
        lr=1e-2,
        schedule="cosine",
        clip_norm=5.0,
        seed=0,
        progress=True,
    )
    lines = draw_lines(images[test], labels[test], args.lines, np.random.default_rng(1))
    truth = [row[:n].tolist() for row, n in zip(lines.targets, lines.counts, strict=True)]
    for beam in (1, 16):
        wrong = [edits(a, b) for a, b in zip(reader.read(lines, beam), truth, strict=True)]
        name = "best path" if beam == 1 else f"beam of {beam}"
        digits, whole = sum(wrong) / lines.counts.sum(), 1 - np.count_nonzero(wrong) / len(wrong)
        print(f"{name}: {digits:.2%} of the digits wrong, {whole:.1%} of the lines right")
    if args.plot:
        draw_picture(reader, draw_lines(images[test], labels[test], 1, rng), args.plot)


if __name__ == "__main__":
    main()
