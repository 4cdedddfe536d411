"""Read handwritten digits row by row: an LSTM classifier as an estimator of scikit-learn.

    python examples/digits.py

The 1,797 images that come with scikit-learn have 8 rows of 8 pixels.  A row is a step: the layer
reads an image from top to bottom and from bottom to top, and says which digit it was.  A quarter of
the images is held out; every seed has another split and other initial weights.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split

from fastlstm.sklearn import LSTMClassifier


def main() -> None:
    """Print the held-out accuracy for each seed, and what is taken for what."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many runs")
    parser.add_argument("--hidden", type=int, default=64, help="units of each direction")
    parser.add_argument("--epochs", type=int, default=60, help="at most")
    args = parser.parse_args()
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)  # (n, 8 rows, 8 pixels), 0 to 1
    confusions = np.zeros((10, 10), int)
    for seed in range(args.seeds):
        X, X_held, y, y_held = train_test_split(
            images, digits.target, test_size=0.25, stratify=digits.target, random_state=seed
        )
        start = time.perf_counter()
        classifier = LSTMClassifier(
            args.hidden, bidirectional=True, max_iter=args.epochs, random_state=seed
        ).fit(X, y)
        seconds = time.perf_counter() - start
        predicted = classifier.predict(X_held)
        confusions += confusion_matrix(y_held, predicted, labels=range(10))
        right, epochs = (predicted == y_held).mean(), classifier.n_iter_
        print(f"seed {seed}: {epochs} epochs, {seconds:.1f} s, held-out accuracy {right:.2%}")
    np.fill_diagonal(confusions, 0)
    worst = np.argsort(-confusions, axis=None)[:3]
    for digit, taken in zip(*np.unravel_index(worst, confusions.shape), strict=True):
        if confusions[digit, taken]:
            print(f"a {digit} was taken for a {taken}: {confusions[digit, taken]} times")


if __name__ == "__main__":
    main()
