"""Weights of 8 and 16 bits: quantize a classifier and a forecaster, compare, serve, and keep them.

    python examples/quantize.py

A bidirectional LSTM learns to read the digits of scikit-learn, row by row, and another one to
forecast the next day of a made series of hours (examples/digits.py and forecast.py have more of
both).  `quantize` makes estimators of them whose weights take a quarter or half of the bytes: the
table has what they lose.  Beside it is how long a stream of three layers takes for a step, and how
large its file is, which gives the same bits when it is loaded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastlstm
from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

TYPES = ("float32", "bfloat16", "float16", "int8")


def small(estimator: Any, weights_dtype: str) -> Any:
    """The estimator itself, or one with such weights."""
    return estimator if weights_dtype == "float32" else estimator.quantize(weights_dtype)


def digits(epochs: int) -> dict[str, float]:
    """Held-out accuracy in percent, for each type."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)
    X, X_held, y, y_held = train_test_split(
        images, data.target, test_size=0.25, stratify=data.target, random_state=0
    )
    classifier = LSTMClassifier(64, bidirectional=True, max_iter=epochs, random_state=0).fit(X, y)
    return {t: 100 * small(classifier, t).score(X_held, y_held) for t in TYPES}


def forecast(epochs: int, days: int) -> dict[str, float]:
    """Mean absolute error over the 24 hours after each window of 72, held out, for each type."""
    hours, rng = np.arange(24 * days), np.random.default_rng(0)
    day, week = np.sin(2 * np.pi * hours / 24), np.sin(2 * np.pi * hours / 168)
    series = (day * (1 + 0.5 * week) + rng.normal(0, 0.1, len(hours))).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, 96)[::3]
    X, y = windows[:, :72, None], windows[:, 72:]
    split = len(X) * 4 // 5
    regressor = LSTMRegressor(48, max_iter=epochs, learning_rate=5e-3, random_state=0)
    regressor.fit(X[: split - 32], y[: split - 32])
    errors = {t: np.abs(small(regressor, t).predict(X[split:]) - y[split:]) for t in TYPES}
    return {t: float(error.mean()) for t, error in errors.items()}


def serve(layer: fastlstm.LSTM, steps: int = 5000) -> float:
    """Microseconds of a step of one row, median."""
    stream = layer.stream()
    x, y = np.ones(layer.input_size, np.float32), np.empty(layer.hidden_size, np.float32)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        stream.step(x, y)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


def main() -> None:
    """Print what is lost, what is saved, and how long a step takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=60, help="of the classifier, at most")
    parser.add_argument("--days", type=int, default=365, help="length of the series")
    args = parser.parse_args()
    accuracy, error = digits(args.epochs), forecast(max(1, args.epochs // 4), args.days)
    lstm = fastlstm.LSTM(256, 256, 3, seed=0)
    x = np.random.default_rng(0).standard_normal((100, 256), dtype=np.float32)
    print("weights   digits right   error of the forecast   file, MB   a step of 3 x 256, us")
    with tempfile.TemporaryDirectory() as folder:
        for weights_dtype in TYPES:
            layer = small(lstm, weights_dtype)
            path = Path(folder) / weights_dtype
            layer.save(path)
            assert (fastlstm.LSTM.load(path)(x)[0] == layer(x)[0]).all()
            print(f"{weights_dtype:9} {accuracy[weights_dtype]:10.2f} %  "
                  f"{error[weights_dtype]:21.4f}   {path.stat().st_size / 1e6:8.2f}   "
                  f"{serve(layer):21.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
