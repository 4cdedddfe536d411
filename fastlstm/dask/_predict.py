"""Lazy predictions, block by block."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import dask
import dask.array
import dask.bag
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def predict(model: Any, X: Any, client: Any = None, *, method: str = "predict") -> Any:
    """Predict, as the blocks of `X` are computed.

    Parameters
    ----------
    model : estimator
        `LSTMClassifier`, `LSTMRegressor`, or another one.  It is copied when this is called, and
        every worker is sent it once, not with each block.
    X : dask.array.Array (n, T, F) or (n, features), or dask.bag.Bag of sequences (T_i, F)
        An array with more than one chunk along steps or features is chunked again, along the
        samples alone.  Blocks and partitions may be empty.
    client : dask.distributed.Client, optional
        Default: the current one, if there is any.  Whoever computes the result has to use it.
    method : str, default "predict"
        For example "predict_proba".

    Returns
    -------
    dask.array.Array or dask.bag.Bag
        As `X` is: an array (n, ...) with the bits of ``model.predict``, for any chunks, or a bag of
        what it gives for each sequence.

    Raises
    ------
    TypeError, ValueError
        `X` is neither, or no array that the model takes; the model has no such method.

    Examples
    --------
    >>> import dask.array
    >>> import numpy as np
    >>> import fastlstm.dask
    >>> from fastlstm.sklearn import LSTMClassifier
    >>> X = np.random.default_rng(0).normal(size=(100, 6, 2))
    >>> model = LSTMClassifier(8, max_iter=2, random_state=0).fit(X, X[:, 0, 0] > 0)
    >>> labels = fastlstm.dask.predict(model, dask.array.from_array(X, chunks=(30, 6, 2)))
    >>> labels
    dask.array<_block, shape=(100,), dtype=bool, chunksize=(30,), chunktype=numpy.ndarray>
    >>> np.array_equal(labels.compute(), model.predict(X))
    True
    """
    if not callable(getattr(model, str(method), None)):
        raise ValueError(f"method: expected one of {type(model).__name__}, got {method!r}")
    if isinstance(X, dask.bag.Bag):
        return X.map_partitions(_partition, _sent(model, client), method)
    if not isinstance(X, dask.array.Array):
        raise TypeError(f"X: expected a dask array or bag, got {type(X).__name__}")
    if X.ndim not in (2, 3) or any(math.isnan(size) for size in X.shape[1:]):
        raise ValueError(f"X: expected (n, T, F) or (n, features), known but for n, got {X.shape}")
    X = X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
    # One row shows dtype and shape of the result, and that the model takes such rows.
    one = np.asarray(getattr(model, method)(np.zeros((1, *X.shape[1:]), X.dtype)))
    return X.map_blocks(
        _block,
        _sent(model, client),
        method,
        empty=one[:0],
        dtype=one.dtype,
        chunks=(X.chunks[0], *((size,) for size in one.shape[1:])),
        drop_axis=list(range(one.ndim, X.ndim)),
        new_axis=list(range(X.ndim, one.ndim)),
        meta=one[:0],
    )


def _sent(model: Any, client: Any) -> Any:
    """What stands for the model in tasks: a future, or a task of its own without a client."""
    if client is None:
        client = _current_client()
    if client is None or client.asynchronous:
        return dask.delayed(copy.deepcopy(model), pure=True)
    return client.scatter(copy.deepcopy(model), broadcast=True)  # in threads it is no copy


def _current_client() -> Any:
    try:
        from distributed import default_client
    except ImportError:
        return None
    try:
        return default_client()
    except ValueError:
        return None


def _block(rows: Array, model: Any, method: str, *, empty: Array) -> Array:
    result: Array = getattr(model, method)(rows) if len(rows) else empty
    return result


def _partition(sequences: Iterable[Any], model: Any, method: str) -> list[Any]:
    listed = list(sequences)
    return list(getattr(model, method)(listed)) if listed else []
