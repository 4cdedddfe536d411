"""Forecast the next day, hour by hour, from the last three: an LSTM regressor of scikit-learn.

    python examples/forecast.py --plot forecast.svg

The series is made here, because scikit-learn brings none: two years of hourly demand for power,
with a shape of the day that differs at weekends, and heating that depends on a temperature which
wanders.  Each hour of the window has the demand then, and of the same hour of the next day the
temperature (as if weather forecasts were perfect) and whether it is at a weekend.  The last fifth
is held out.  Beside the regressor are the naive seasonal forecast, which repeats the same day of
the week before, and a linear model of the same window.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from fastlstm.sklearn import LSTMRegressor, SequenceScaler, windows

WINDOW, AHEAD, WEEK, EVERY = 72, 24, 168, 3


def made_series(days: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Demand, and a day longer: temperature, and whether it is a weekend; for each hour."""
    hours = np.arange(24 * (days + 1))
    hour, weekend = hours % 24, hours // 24 % 7 >= 5
    wander = np.zeros(len(hours))
    for t in range(1, len(hours)):
        wander[t] = 0.99 * wander[t - 1] + rng.normal(0, 0.5)
    seasons = -8 * np.cos(hours * (2 * np.pi / (24 * 365.25)))
    temperature = 11 + seasons + 3 * np.cos((hour - 15) * (2 * np.pi / 24)) + wander
    working = 8 * np.exp(-(((hour - 8) / 2.5) ** 2)) + 10 * np.exp(-(((hour - 19) / 3) ** 2))
    leisure = 7 * np.exp(-(((hour - 12) / 4) ** 2)) + 6 * np.exp(-(((hour - 20) / 3) ** 2))
    active = np.where((hour > 5) & (hour < 23), 1.0, 0.4)  # who sleeps heats less
    heating = active * np.maximum(0, 14 - temperature)
    demand = 30 + np.where(weekend, leisure, working) + heating + rng.normal(0, 0.7, len(hours))
    return demand[:-24], temperature, weekend


def tasks(demand: Any, temperature: Any, weekend: Any) -> tuple[Any, Any, Any]:
    """X (n, 72, 3), y (n, 24), and the naive forecast (n, 24), for a start every 3 hours."""
    features = np.stack([demand, temperature[24:], weekend[24:]], axis=1)
    first = WEEK - WINDOW  # of these windows, the hours to forecast have a week before them
    X, y = windows(features[first:], WINDOW, AHEAD, EVERY, target=0)
    starts = WEEK + EVERY * np.arange(len(X))
    return X, y, demand[starts[:, None] + np.arange(AHEAD) - WEEK]


def main() -> None:
    """Print the errors of the forecasts, and draw some days."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=730, help="length of the series")
    parser.add_argument("--hidden", type=int, default=48, help="units")
    parser.add_argument("--epochs", type=int, default=20, help="at most")
    parser.add_argument("--plot", help="a name that ends in svg, png or pdf")
    args = parser.parse_args()
    X, y, naive = tasks(*made_series(args.days, np.random.default_rng(0)))
    split = len(X) * 4 // 5
    learned = slice(0, split - (WINDOW + AHEAD) // EVERY)  # no hour is in both parts
    X = SequenceScaler().fit(X[learned]).transform(X).astype(np.float32)
    flat = X.reshape(len(X), -1)
    regressor = LSTMRegressor(
        args.hidden, max_iter=args.epochs, learning_rate=5e-3, random_state=0, verbose=True
    ).fit(X[learned], y[learned])
    forecasts = {
        "the same day of the week before": naive[split:],
        "linear model": Ridge().fit(flat[learned], y[learned]).predict(flat[split:]),
        "LSTM": regressor.predict(X[split:]),
    }
    print(f"mean absolute error over {AHEAD} hours, {len(X) - split:,} held-out starts")
    for name, forecast in forecasts.items():
        print(f"{name:34} {np.abs(forecast - y[split:]).mean():.3f}")
    if args.plot:
        draw(y[split:], forecasts, args.plot)


def draw(true: Any, forecasts: dict[str, Any], path: str) -> None:
    """A week of the held-out part: each day as it was forecast at its start."""
    from matplotlib.figure import Figure

    starts = np.arange(0, min(len(true), WEEK // EVERY), AHEAD // EVERY)
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(true[starts].ravel(), color="black", label="true")
    for name, forecast in forecasts.items():
        axes.plot(forecast[starts].ravel(), label=name, linewidth=1)
    for start in range(0, len(starts) * AHEAD, AHEAD):
        axes.axvline(start, color="0.9", zorder=0)
    axes.set_xlabel("hour; a forecast begins at each line")
    axes.set_ylabel("demand")
    figure.legend(loc="outside upper center", ncols=4, fontsize="small")
    figure.savefig(path)


if __name__ == "__main__":
    main()
