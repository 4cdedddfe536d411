"""A highlighter of Python code that learns: characters in, kinds of tokens out.

    python examples/highlight.py --plot

The texts are modules of the standard library; their kinds come from its tokenizer, `tokenize`:
keyword, name, number, string, comment, operator, space.  A tagger, an LSTM that reads in both
directions, gets a few lines at a time and tags each character, once with a softmax for each of them
and once with a conditional random field, in which a tag depends on its neighbours.  Beside them is
what one can know from the character alone.  Other modules than those learned from are held out.
"""

from __future__ import annotations

import argparse
import io
import keyword
import sysconfig
import time
import tokenize
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.sklearn import LSTMTagger

COLORS = {
    "keyword": "#a626a4",
    "name": "#202020",
    "number": "#b76b01",
    "string": "#2f7d32",
    "comment": "#8a8a8a",
    "operator": "#1565c0",
    "space": "#202020",
}
KINDS = {
    tokenize.NUMBER: "number",
    tokenize.STRING: "string",
    tokenize.COMMENT: "comment",
    tokenize.OP: "operator",
}


def kind_of(token: tokenize.TokenInfo) -> str | None:
    """What a token is shown as; None of those that are space or nothing."""
    if token.type == tokenize.NAME:
        return "keyword" if keyword.iskeyword(token.string) else "name"
    if tokenize.tok_name[token.type].startswith(("FSTRING", "TSTRING")):  # parts, since 3.12
        return "string"
    return KINDS.get(token.type)


def kinds(text: str) -> list[str]:
    """The kind of each character of a module."""
    lines = text.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines)])
    found = ["space"] * len(text)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = kind_of(token)
        if kind is not None:
            begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
            found[begin:end] = [kind] * (end - begin)
    return found


def pieces(text: str, size: int) -> list[tuple[str, list[str]]]:
    """Whole lines, about so many characters at a time, and their kinds."""
    tags, cut, begin = kinds(text), [], 0
    for line in text.splitlines(keepends=True):
        end = (cut[-1] if cut else 0) + len(line)
        cut.append(end)
    found = []
    for end in cut:
        if end - begin >= size or end == len(text):
            found.append((text[begin:end], tags[begin:end]))
            begin = end
    return found


def read_modules(count: int, size: int) -> tuple[list[Any], list[Any]]:
    """Pieces of the standard library's modules: to learn from, and of every fifth one, held out."""
    parts: tuple[list[Any], list[Any]] = ([], [])
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-z]*.py"))
    for i, path in enumerate(paths[:count]):
        text = path.read_text(encoding="utf-8")
        if text.isascii() and text:
            parts[i % 5 == 4].extend(pieces(text, size))
    return parts


def of_characters(X: list[str], y: list[list[str]]) -> dict[str, str]:
    """The most frequent kind of each character."""
    counts: dict[str, Counter[str]] = {}
    for text, tags in zip(X, y, strict=True):
        for character, tag in zip(text, tags, strict=True):
            counts.setdefault(character, Counter())[tag] += 1
    return {character: found.most_common(1)[0][0] for character, found in counts.items()}


def report(name: str, found: list[Any], y: list[list[str]], seconds: float) -> None:
    """A row of the table: accuracy of characters and of pieces, F1 of the kinds."""
    from sklearn.metrics import f1_score

    right = [np.asarray(ours) == np.asarray(tags) for ours, tags in zip(found, y, strict=True)]
    flat, truth = np.concatenate(found), np.concatenate(y)
    scores = f1_score(truth, flat, labels=list(COLORS), average=None, zero_division=0)
    row = " ".join(f"{100 * score:8.1f}" for score in scores)
    whole = np.mean([part.all() for part in right])
    print(f"{name:20} {np.concatenate(right).mean():8.1%} {whole:7.1%} {row} {seconds:6.0f} s",
          flush=True)  # fmt: skip


def draw(text: str, tags: Any, truth: list[str], path: str) -> None:
    """Save a picture of some lines as they are tagged, with a line under what is wrong."""
    from matplotlib.figure import Figure

    lines = text.splitlines(keepends=True)
    columns = max(map(len, lines))
    figure = Figure(figsize=(0.085 * columns + 0.3, 0.2 * len(lines) + 0.3))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, columns + 1), ylim=(len(lines) + 0.5, -0.5))
    axes.axis("off")
    at = 0
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            if not character.isspace():
                axes.text(column, row + 0.5, character, family="monospace", fontsize=9,
                          color=COLORS[tags[at]], va="center", ha="center")  # fmt: skip
            if tags[at] != truth[at] and character != "\n":
                axes.plot([column - 0.5, column + 0.5], [row + 0.95] * 2, color="#d32f2f", lw=1.5)
            at += 1
    figure.savefig(path)


def main() -> None:
    """Train, compare, show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modules", type=int, default=40, help="of the library (%(default)s)")
    parser.add_argument("--size", type=int, default=150, help="characters of a piece (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--plot", nargs="?", const="highlight.svg", help="(%(const)s)")
    args = parser.parse_args()

    learned, held_out = read_modules(args.modules, args.size)
    X, y = ([pair[i] for pair in learned] for i in (0, 1))
    X_held, y_held = ([pair[i] for pair in held_out] for i in (0, 1))
    print(f"{sum(map(len, X)):,} characters in {len(X):,} pieces to learn from, "
          f"{sum(map(len, X_held)):,} held out\n")  # fmt: skip
    print(
        f"{'right, of':20} {'chars':>8} {'pieces':>7} " + " ".join(f"{kind:>8}" for kind in COLORS)
    )
    usual = of_characters(X, y)
    report(
        "the character alone", [[usual.get(c, "name") for c in text] for text in X_held], y_held, 0
    )
    options = {
        "batch_size": 32,
        "max_iter": args.epochs,
        "random_state": args.seed,
        "verbose": True,
    }
    for name, crf in (("LSTM, softmax", False), ("LSTM, CRF", True)):
        start = time.perf_counter()
        tagger = LSTMTagger(64, crf=crf, **options).fit(X, y)
        report(name, tagger.predict(X_held), y_held, time.perf_counter() - start)
    if args.plot:
        shown = max(range(len(X_held)), key=lambda i: len(set(y_held[i])) + i / len(X_held))
        draw(X_held[shown], tagger.predict([X_held[shown]])[0], y_held[shown], args.plot)


if __name__ == "__main__":
    main()
