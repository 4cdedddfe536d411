"""Predictions of Dask's arrays and bags.  Needs Dask: ``pip install fastlstm[dask]``."""

from __future__ import annotations

try:
    import dask.array as _array
    import dask.bag as _bag
except ImportError as error:
    message = "fastlstm.dask needs Dask: pip install 'fastlstm[dask]'"
    raise ImportError(message) from error

from fastlstm.dask._predict import predict

__all__ = ["predict"]

del _array, _bag
