"""Windows of a series, and what comes after each: what forecasts are learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fastlstm import _validation
from fastlstm._validation import shape_text

Array = NDArray[Any]


def windows(
    series: Any,
    length: int,
    horizon: int = 1,
    stride: int = 1,
    *,
    target: int | str | None = None,
) -> tuple[Array, Array]:
    """Cut a series into windows, and find what comes after each of them.

    Window i has the steps from ``i * stride`` to ``i * stride + length - 1``; its target has the
    `horizon` steps after these.

    Parameters
    ----------
    series : (N,) or (N, F) array-like, such as a series or data frame of pandas
        Equally spaced steps, the oldest first.
    length : int
        Steps of a window, T.
    horizon : int, default 1
        Steps to forecast.
    stride : int, default 1
        Steps from one window to the next.
    target : int or str, optional
        Which feature to forecast: its place, or its name in a data frame.  Needed if there is more
        than one.

    Returns
    -------
    X : (n, T, F) array of float32, if the series is, or float64
    y : (n,) array, or (n, horizon) for a horizon of more than 1

    Raises
    ------
    TypeError, ValueError
        An argument is not what it has to be, or the series is too short for one window.

    See Also
    --------
    last_window : the window to forecast from.
    DifferencedRegressor : forecasts of a series that has a trend or a season.

    Notes
    -----
    To test without a look into the future, cut the series in two first: windows of its first part
    to learn from, and windows of ``series[split - length:]`` to test with, whose targets all come
    after the split.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.sklearn import windows
    >>> X, y = windows(np.arange(10.0), length=4, horizon=2)
    >>> X.shape, y.shape
    ((5, 4, 1), (5, 2))
    >>> X[1, :, 0].tolist(), y[1].tolist()
    ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0])
    """
    length = _validation.integer(length, "length", 1)
    horizon = _validation.integer(horizon, "horizon", 1)
    stride = _validation.integer(stride, "stride", 1)
    values = _steps(series, length + horizon)
    place = _place(series, values.shape[1], target)
    starts = slice(0, len(values) - length - horizon + 1, stride)
    X = sliding_window_view(values, length, axis=0)[starts].swapaxes(1, 2)
    y = sliding_window_view(values[length:, place], horizon)[starts]
    return X.copy(), y[:, 0].copy() if horizon == 1 else y.copy()


def last_window(series: Any, length: int) -> Array:
    """Take the last steps of a series: what the next ones are forecast from.

    Parameters
    ----------
    series : (N,) or (N, F) array-like
        As for `windows`.
    length : int
        Steps of the window, T.

    Returns
    -------
    (1, T, F) array
        What ``predict`` of an estimator takes that learned from `windows` of this length.

    Raises
    ------
    TypeError, ValueError
        As `windows` does.

    Examples
    --------
    >>> from fastlstm.sklearn import last_window
    >>> last_window([1.0, 2.0, 3.0, 4.0], 3).tolist()
    [[[2.0], [3.0], [4.0]]]
    """
    length = _validation.integer(length, "length", 1)
    return _steps(series, length)[None, -length:].copy()


def _steps(series: Any, least: int) -> Array:
    """(N, F) array of float32 or float64, with at least so many steps."""
    _validation.refuse_masks(series, "series")
    try:
        values = np.asarray(series)
        if values.dtype.kind not in "fiubO":  # dates, texts and complex numbers could be cast, too
            raise TypeError(values.dtype)
        single = values.dtype.newbyteorder("=") == np.float32
        values = values.astype(np.float32 if single else np.float64, copy=False)
    except (TypeError, ValueError) as error:  # texts, or rows of unequal lengths
        raise TypeError(f"series: expected an array of numbers, got {error}") from None
    if values.ndim not in (1, 2) or values.shape[-1:] == (0,):
        raise ValueError(f"series: expected (N,) or (N, F), got {shape_text(values.shape)}")
    if len(values) < least:
        raise ValueError(f"series: expected at least {least} steps, got {len(values)}")
    return values.reshape(len(values), -1)


def _place(series: Any, features: int, target: int | str | None) -> int:
    """Of the feature to forecast."""
    if target is None:
        if features > 1:
            raise ValueError(
                f"target: expected which of the {features} features to forecast, got None"
            )
        return 0
    if isinstance(target, str):
        names = [str(name) for name in getattr(series, "columns", [])]
        if names.count(target) != 1:
            raise ValueError(f"target: expected the name of a column, got {target!r}")
        return names.index(target)
    return _validation.integer(target, "target", 0, features - 1)
