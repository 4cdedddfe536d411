"""Scoring on executors: order, bits, how often a model travels, errors, and none hangs."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.launchers import MPIS, launch
from support.scorers import Scorer

from fastlstm.distributed import _predict, predict

SPAWN = multiprocessing.get_context("spawn")  # this process has threads
X = np.arange(1000.0).reshape(500, 2)


class Counting:
    """An executor that counts tasks, and those with a model."""

    def __init__(self, executor: Any) -> None:
        self.executor, self.tasks, self.models = executor, 0, 0

    @property
    def _max_workers(self) -> Any:
        return getattr(self.executor, "_max_workers", None)

    def submit(self, function: Any, task: Any) -> Any:
        self.tasks += 1
        self.models += task.model is not None
        return self.executor.submit(function, task)


@pytest.mark.parametrize("rows", [1, 7, 499, 500, 501])
def test_order(rows: int, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as executor:
        assert np.array_equal(predict(Scorer(tmp_path), X, executor, rows), 2 * X[:, 0])


def test_lists_and_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        assert predict(Scorer(tmp_path), [[1, 2], [3, 4]], executor, rows=1).tolist() == [2, 6]
        assert predict(Scorer(tmp_path), X[:0], executor).shape == (0,)


def test_a_worker_is_sent_the_model_once(tmp_path: Path) -> None:
    """Not with each task, nor in a later call; a changed model is another one."""
    scorer = Scorer(tmp_path, size=1000)
    with ProcessPoolExecutor(1, SPAWN) as pool:
        for models in (1, 0):
            executor = Counting(pool)
            assert np.array_equal(predict(scorer, X, executor, rows=10), 2 * X[:, 0])
            assert (executor.models, executor.tasks) == (models, 51)  # one asks
        scorer.weights[0] = 1
        predict(scorer, X, executor := Counting(pool))
        assert executor.models == 1
        assert scorer.unpickled() == [2]


def test_every_worker_is_sent_the_model_once(tmp_path: Path) -> None:
    scorer = Scorer(tmp_path)
    with ProcessPoolExecutor(2, SPAWN) as pool:
        predict(scorer, X, executor := Counting(pool), rows=4, method="predict_slowly")
    assert set(scorer.unpickled()) == {1}
    assert executor.models <= 10  # of 125: one for each, more for one that was late


@pytest.mark.parametrize("guess", [16, 2])
def test_many_workers(guess: int) -> None:
    """All are found, though they may be more than expected, and few models are sent in vain."""
    mine = threading.local()
    models, workers = [], set()

    def work(number: int, with_model: bool) -> Any:
        known = with_model or hasattr(mine, "model")
        if known:
            mine.model = True
            time.sleep(0.002)
        me = threading.get_ident()
        workers.add(me)
        return _predict._Answer(("", me), me, not known, [number])

    with ThreadPoolExecutor(16) as pool:

        def begin(number: int, with_model: bool) -> Any:
            models.append(with_model)
            return pool.submit(work, number, with_model)

        capacity = _predict._Capacity(guess, guess)
        found = _predict._collect(begin, 1000, capacity, True, 10)
    assert [part[0] for part in found] == list(range(1000))
    assert len(workers) == 16
    assert sum(models) < 100


def test_a_worker_that_comes_late_is_sent_the_model() -> None:
    """A task that it could not do is done, with the model."""
    begun = []

    def begin(number: int, with_model: bool) -> Any:
        begun.append((number, with_model))
        future: Future[Any] = Future()
        unknown = number == 1 and not with_model
        future.set_result(_predict._Answer(("", number), 0, unknown, [number]))
        return future

    assert _predict._collect(begin, 3, _predict._Capacity(1, 1), False, 10) == [[0], [1], [2]]
    assert sorted(begun) == [(0, False), (1, False), (1, True), (2, False)]


def test_capacity() -> None:
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2, SPAWN) as processes:
        assert _predict._capacity(threads) == (1, 3)
        assert _predict._capacity(processes) == (2, 2)
    assert _predict._capacity(Counting(3)) >= (1, 1)


def test_kept_models_are_few(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        for size in range(6):
            predict(Scorer(tmp_path, size), X, pool)
        assert len(_predict._models) == _predict._KEPT
        for size, sent in ((5, 0), (2, 0), (1, 1)):
            predict(Scorer(tmp_path, size), X, executor := Counting(pool))
            assert executor.models == sent


def test_an_executor_that_has_only_map(tmp_path: Path) -> None:
    with SPAWN.Pool(2) as pool:
        assert np.array_equal(predict(Scorer(tmp_path), X, pool, rows=50), 2 * X[:, 0])
        with pytest.raises(KeyError, match="not these"):
            predict(Scorer(tmp_path), X, pool, method="refuse")


# Errors.


def test_arguments(tmp_path: Path) -> None:
    scorer, executor = Scorer(tmp_path), ThreadPoolExecutor(1)
    with pytest.raises(ValueError, match="rows: expected at least 1, got 0"):
        predict(scorer, X, executor, 0)
    with pytest.raises(ValueError, match="timeout: expected a number >= 0, got -1"):
        predict(scorer, X, executor, timeout=-1)
    with pytest.raises(ValueError, match="method: expected one of Scorer, got 'predict_proba'"):
        predict(scorer, X, executor, method="predict_proba")
    with pytest.raises(TypeError, match="executor: expected submit or map, got int"):
        predict(scorer, X, 3)

    class Client:
        def submit(self, *args: Any) -> int:
            return 3

    with pytest.raises(TypeError, match=r"client.get_executor\(\), got int"):
        predict(scorer, X, Client())


def test_an_error_of_a_task_cancels_the_others(tmp_path: Path) -> None:
    futures: list[Future[Any]] = []

    class Executor:
        """The second task fails, after a first that asks for the model; others do not begin."""

        def submit(self, function: Any, task: Any) -> Any:
            futures.append(Future())
            if len(futures) == 1:
                futures[0].set_result(function(task))
            if len(futures) == 2:
                futures[1].set_exception(KeyError("not these"))
            return futures[-1]

    with pytest.raises(KeyError, match="not these"):
        predict(Scorer(tmp_path), X, Executor(), rows=1)
    assert 2 < len(futures) < 2 * os.cpu_count() + 5
    assert all(future.cancelled() for future in futures[2:])


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, SPAWN) as executor, pytest.raises(BrokenProcessPool):
        predict(Scorer(tmp_path), X, executor, method="die")


def test_a_task_that_takes_too_long(tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(TimeoutError, match=r"none of \d tasks was done in 0.1 seconds"),
    ):
        predict(Scorer(tmp_path), X, executor, method="never", timeout=0.1)


# Estimators, on the executors of others.


@pytest.fixture(scope="module")
def estimators() -> dict[str, Any]:
    """Fitted ones, and what they read."""
    pytest.importorskip("sklearn")
    from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

    rng = np.random.default_rng(0)
    sequences = rng.normal(size=(200, 6, 2))
    ragged = [rng.normal(size=(rng.integers(1, 9), 2)) for _ in range(200)]
    y = np.array(["no", "yes!"])[(sequences[:, 0, 0] > 0).astype(int)]
    small = {"hidden_size": 4, "max_iter": 1, "random_state": 0}
    table = sequences.reshape(200, -1).astype(np.float32)
    targets = rng.normal(size=(200, 2))
    return {
        "sequences": (LSTMClassifier(**small).fit(sequences, y), sequences),
        "ragged": (LSTMClassifier(**small).fit(ragged, y), ragged),
        "table": (LSTMRegressor(n_timesteps=6, **small).fit(table, targets), table),
    }


def check(estimators: dict[str, Any], executor: Any) -> None:
    """The bits of each model alone."""
    for model, data in estimators.values():
        for method in ("predict", "predict_proba"):
            if hasattr(model, method):
                found = predict(model, data, executor, rows=33, method=method)
                expected = getattr(model, method)(data)
                assert found.dtype == expected.dtype
                assert np.array_equal(found, expected)


@pytest.mark.peer
def test_threads_and_processes(estimators: dict[str, Any]) -> None:
    with ThreadPoolExecutor(3) as executor:
        check(estimators, executor)
    with ProcessPoolExecutor(2, SPAWN) as executor:
        check(estimators, executor)


@pytest.mark.peer
def test_a_data_frame(estimators: dict[str, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    from fastlstm.sklearn import LSTMRegressor

    table = pandas.DataFrame(estimators["table"][1]).rename(columns="column {}".format)
    model = LSTMRegressor(4, max_iter=1, random_state=0).fit(table, table["column 0"])
    with ThreadPoolExecutor(1) as executor:
        assert np.array_equal(predict(model, table, executor, 7), model.predict(table))


@pytest.mark.peer
def test_loky(estimators: dict[str, Any]) -> None:
    loky = pytest.importorskip("joblib.externals.loky")
    with loky.ProcessPoolExecutor(2) as executor:
        check(estimators, executor)


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from mpi4py.futures import MPIPoolExecutor
import fastlstm
from fastlstm import distributed
from support.scorers import Scorer

if __name__ == "__main__":
    scorer, X = Scorer(Path(__file__).parent), np.arange(1000.0).reshape(500, 2)
    with MPIPoolExecutor() as executor:
        found = distributed.predict(scorer, X, executor, rows=5, method="predict_slowly")
        assert np.array_equal(found, 2 * X[:, 0])
        threads = [executor.submit(fastlstm.get_num_threads).result() for _ in range(4)]
        print("threads", *threads, "models", *scorer.unpickled())
"""


@pytest.mark.peer
@pytest.mark.parametrize("mpi", MPIS)
def test_a_pool_of_mpi(mpi: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    # mpi4py.futures puts the folder of the script in the place of another one.
    variables = {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": ""}
    status, printed = launch(mpi, 3, script, "mpi4py.futures", **variables)
    assert (status, printed.strip()) == (0, "threads 1 1 1 1 models 1 1"), printed
