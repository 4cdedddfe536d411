"""Score with all processors, or with a cluster: the same labels from any executor.

    python examples/predict_anywhere.py

A classifier of handwritten digits, read row by row, scores copies of its data: alone, in threads,
in processes of concurrent.futures, and in workers of Dask if that is installed.  What runs on one
machine here runs on many with ``mpi4py.futures.MPIPoolExecutor`` or a Dask cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from fastlstm import distributed
from fastlstm.sklearn import LSTMClassifier


def executors(workers: int) -> Iterator[tuple[str, Any]]:
    """The executors that there are, one after another."""
    with ThreadPoolExecutor(workers) as executor:
        yield "threads", executor
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as executor:
        yield "processes", executor
    with contextlib.suppress(ImportError):
        from dask.distributed import Client, LocalCluster

        with (
            LocalCluster(workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield "Dask", client.get_executor()


def main() -> None:
    """Print a table of seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--copies", type=int, default=20, help="of the 1797 digits")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    images, digits = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) / 16).astype(np.float32)
    model = LSTMClassifier(args.hidden, max_iter=args.epochs, random_state=0).fit(images, digits)
    X = np.tile(images, (args.copies, 1, 1))

    start = time.perf_counter()
    expected = model.predict(X)
    print(f"{'alone':10} {time.perf_counter() - start:8.2f} seconds")
    for name, executor in executors(args.workers):
        distributed.predict(model, X[:1], executor)  # starts workers
        start = time.perf_counter()
        labels = distributed.predict(model, X, executor)
        seconds = time.perf_counter() - start
        same = "the same" if np.array_equal(labels, expected) else "OTHER"
        print(f"{name:10} {seconds:8.2f} seconds, {same} labels", flush=True)


if __name__ == "__main__":
    main()
