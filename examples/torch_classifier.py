"""A classifier in torch whose LSTM fastlstm computes: one line more.

    python examples/torch_classifier.py

Handwritten digits (scikit-learn's, 8 x 8 pixels) are read row by row, four pixels at a time, and an
LSTM in both directions has to say which digit it was.  The model is trained twice from the same
weights on the same batches: as torch computes it, and after ``fastlstm.torch.replace(model)``.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import torch
from sklearn.datasets import load_digits

import fastlstm.torch

FEATURES, BATCH, HELD_OUT = 4, 64, 400


class Classifier(torch.nn.Module):
    """An LSTM in both directions, its last states, a linear layer."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(FEATURES, hidden, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(2 * hidden, 10)

    def forward(self, x: Any) -> Any:
        """Logits (B, 10) of sequences (B, T, 4)."""
        _, (h_n, _) = self.lstm(x)
        return self.head(torch.cat([h_n[0], h_n[1]], dim=1))


def train(model: Any, x: Any, digits: Any, epochs: int) -> float:
    """Train it; return the seconds it took."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    start = time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = torch.nn.functional.cross_entropy(model(x[rows]), digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def accuracy(model: Any, x: Any, digits: Any) -> float:
    """Part of the digits it knows."""
    with torch.no_grad():
        return (model(x).argmax(dim=1) == digits).float().mean().item()


def main() -> None:
    """Train both and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fastlstm.set_num_threads(args.threads)
    torch.manual_seed(0)

    images, numbers = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(len(images), -1, FEATURES) / 16
    digits = torch.tensor(numbers)
    model = Classifier(args.hidden)
    models = {"torch": model, "fastlstm": fastlstm.torch.replace(copy.deepcopy(model))}

    print(f"{'LSTM by':10} held-out  seconds")
    for name, model in models.items():
        seconds = train(model, x[HELD_OUT:], digits[HELD_OUT:], args.epochs)
        part = accuracy(model, x[:HELD_OUT], digits[:HELD_OUT])
        print(f"{name:10} {part:8.1%} {seconds:8.2f}", flush=True)


if __name__ == "__main__":
    main()
