"""`fastlstm.dask`: lazy, the bits of the model whatever the chunks, and the model sent once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator
from support.launchers import launch
from support.scorers import Scorer

pytestmark = pytest.mark.peer

dask = pytest.importorskip("dask")
pytest.importorskip("dask.array")
pytest.importorskip("dask.bag")
pytest.importorskip("sklearn")

import fastlstm.dask  # noqa: E402
from fastlstm.sklearn import LSTMClassifier, LSTMRegressor  # noqa: E402

SMALL: dict[str, Any] = {"hidden_size": 4, "max_iter": 1, "random_state": 0}
N, STEPS, FEATURES = 60, 6, 2


@pytest.fixture
def sequences(rng: Generator) -> Any:
    return rng.normal(size=(N, STEPS, FEATURES))


@pytest.fixture
def classifier(sequences: Any) -> Any:
    labels = np.array(["no", "yes!"])[(sequences[:, 0, 0] > 0).astype(int)]
    return LSTMClassifier(**SMALL).fit(sequences, labels)


@pytest.mark.parametrize(
    "chunks",
    [(N, STEPS, FEATURES), (7, STEPS, FEATURES), (20, 4, 1), ((0, 50, 0, 10), STEPS, FEATURES)],
    ids=str,
)
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_any_chunks(classifier: Any, sequences: Any, chunks: Any, method: str) -> None:
    X = dask.array.from_array(sequences, chunks=chunks)
    lazy = fastlstm.dask.predict(classifier, X, method=method)
    expected = getattr(classifier, method)(sequences)
    assert (lazy.dtype, lazy.shape) == (expected.dtype, expected.shape)
    assert lazy.chunks[0] == X.chunks[0]
    found = lazy.compute()
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    assert lazy[:0].compute().shape == expected[:0].shape


@pytest.mark.parametrize("outputs", [0, 1, 3])
def test_tables_and_regressors(rng: Generator, outputs: int) -> None:
    table = rng.normal(size=(N, STEPS * FEATURES)).astype(np.float32)
    y = rng.normal(size=(N, outputs) if outputs else N)
    model = LSTMRegressor(n_timesteps=STEPS, **SMALL).fit(table, y)
    lazy = fastlstm.dask.predict(model, dask.array.from_array(table, chunks=(25, 5)))
    expected = model.predict(table)
    assert (lazy.dtype, lazy.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(lazy.compute(), expected)


@pytest.mark.parametrize("outputs", [0, 2])
@pytest.mark.parametrize("table", [False, True])
def test_a_target_for_each_step(rng: Generator, table: bool, outputs: int) -> None:
    X = rng.normal(size=(N, STEPS) if table else (N, STEPS, FEATURES))
    y = rng.normal(size=(N, STEPS, outputs) if outputs else (N, STEPS))
    model = LSTMRegressor(output="steps", **SMALL).fit(X, y)
    lazy = fastlstm.dask.predict(model, dask.array.from_array(X, chunks=(25, *X.shape[1:])))
    expected = model.predict(X)
    assert lazy.shape == expected.shape == y.shape
    assert np.array_equal(lazy.compute(), expected)
    assert lazy[:0].compute().shape == expected[:0].shape


def test_sizes_that_are_not_known(classifier: Any, sequences: Any) -> None:
    X = dask.array.from_array(sequences, chunks=(20, STEPS, FEATURES))
    lazy = fastlstm.dask.predict(classifier, X[X[:, 0, 0] > 0])
    assert math.isnan(lazy.shape[0])
    kept = sequences[sequences[:, 0, 0] > 0]
    assert np.array_equal(lazy.compute(), classifier.predict(kept))


def test_a_bag_of_sequences(classifier: Any, rng: Generator) -> None:
    sequences = [rng.normal(size=(rng.integers(1, 9), FEATURES)) for _ in range(30)]
    bag = dask.bag.from_sequence(sequences, npartitions=5).filter(lambda each: len(each) > 6)
    kept = [each for each in sequences if len(each) > 6]
    assert 0 < len(kept) < 20
    lazy = fastlstm.dask.predict(classifier, bag)
    assert lazy.compute(scheduler="sync") == list(classifier.predict(kept))
    steps = LSTMRegressor(output="steps", **SMALL).fit(kept, [x[:, 0] for x in kept])
    found = fastlstm.dask.predict(steps, bag).compute(scheduler="sync")
    for one, expected in zip(found, steps.predict(kept), strict=True):
        assert np.array_equal(one, expected)


def test_it_is_lazy_and_not_changed_later(sequences: Any, tmp_path: Path) -> None:
    """Nothing is computed but a row of zeros; what is computed is of the model as it was."""
    model = LSTMClassifier(**SMALL).fit(sequences, sequences[:, 0, 0] > 0)
    expected = model.predict_proba(sequences)
    X = dask.array.from_array(sequences, chunks=(20, STEPS, FEATURES))
    lazy = fastlstm.dask.predict(model, X, method="predict_proba")
    model.lstm_.parameters.flat = model.lstm_.parameters.flat + 1
    assert np.array_equal(lazy.compute(), expected)
    refused = fastlstm.dask.predict(Scorer(tmp_path), X.map_blocks(_refuse, dtype=float))
    with pytest.raises(KeyError, match="computed"):
        refused.compute()


def _refuse(block: Any) -> Any:
    raise KeyError("computed")


def test_what_is_no_collection(classifier: Any, sequences: Any) -> None:
    X = dask.array.from_array(sequences, chunks=(20, STEPS, FEATURES))
    with pytest.raises(TypeError, match="X: expected a dask array or bag, got ndarray"):
        fastlstm.dask.predict(classifier, sequences)
    with pytest.raises(ValueError, match=r"known but for n, got \(60,\)"):
        fastlstm.dask.predict(classifier, X[:, 0, 0])
    with pytest.raises(ValueError, match=r"known but for n, got \(60, nan, 2\)"):
        fastlstm.dask.predict(classifier, X[:, dask.array.arange(STEPS, chunks=STEPS) > 2])
    with pytest.raises(ValueError, match="X has 1 features, but LSTMClassifier is expecting 2"):
        fastlstm.dask.predict(classifier, X[:, :, :1])
    with pytest.raises(ValueError, match="method: expected one of LSTMClassifier, got 'score_it'"):
        fastlstm.dask.predict(classifier, X, method="score_it")


PROGRAM = """
from pathlib import Path
import dask.array, dask.bag
import numpy as np
from distributed import Client, LocalCluster
import fastlstm.dask
from fastlstm import distributed
from support.scorers import Scorer

def main():
    X = np.arange(1000.0).reshape(500, 2)
    expected = 2 * X[:, 0]
    lazy = dask.array.from_array(X, chunks=(20, 2))
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        scorers = []
        for given in (None, client):
            scorers.append(Scorer(folder(len(scorers)), size=len(scorers)))
            found = fastlstm.dask.predict(scorers[-1], lazy, given, method="predict_slowly")
            assert np.array_equal(found.compute(), expected)
        bag = dask.bag.from_sequence([np.ones(2)] * 10, npartitions=3)
        scorers.append(Scorer(folder(len(scorers)), size=len(scorers)))
        assert fastlstm.dask.predict(scorers[-1], bag).compute() == [2] * 10
        scorers.append(Scorer(folder(len(scorers)), size=len(scorers)))
        executor = client.get_executor()
        found = distributed.predict(scorers[-1], X, executor, rows=5, method="predict_slowly")
        assert np.array_equal(found, expected)
        print("capacity", *distributed._predict._capacity(executor))
        print("unpickled", *(scorer.unpickled() for scorer in scorers))
        print("threads", *client.run(fastlstm.get_num_threads).values())

def folder(number):
    path = Path(__file__).parent / str(number)
    path.mkdir()
    return path

if __name__ == "__main__":
    main()
"""


def test_a_cluster(tmp_path: Path) -> None:
    """Two workers, each of which unpickles the model once, and computes with one thread."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    status, printed = launch("dask", 1, script)
    assert status == 0, printed
    expected = ["capacity 2 2", "unpickled [1, 1] [1, 1] [1, 1] [1, 1]", "threads 1 1"]
    assert printed.splitlines()[-3:] == expected
