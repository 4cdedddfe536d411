"""Scoring on any executor: workers that are sent a model once, and rows as they ask for them."""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import platform
import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np

from fastlstm import _validation

_KEPT = 4
_models: dict[str, Any] = {}  # the last ones that this worker was sent, by their hashes


_serials = itertools.count()


class _Task(NamedTuple):
    """Rows, and the model as a worker needs to know it."""

    key: str
    model: bytes | None
    """Pickled; None for a worker that may have it."""
    method: str | None
    """None to ask whether the worker has the model."""
    rows: Any
    serial: int
    """Dask takes equal tasks for one, but a worker that is asked again may have the model now."""


class _Answer(NamedTuple):
    """Of a worker."""

    process: tuple[str, int]
    thread: int
    unknown: bool
    """Whether it does not have the model."""
    result: Any


def predict(
    model: Any,
    X: Any,
    executor: Any,
    rows: int = 1024,
    *,
    method: str = "predict",
    timeout: float = 600.0,
) -> Any:
    """Predict on the workers of an executor.

    Every process of them is sent the model once, and keeps it for later calls: a task names it by a
    hash of its content.

    Parameters
    ----------
    model : estimator
        `LSTMClassifier`, `LSTMRegressor`, or whatever can be pickled and has the method.
    X : array (n, T, F) or (n, features), data frame, or list of n sequences
        What the method takes.
    executor : concurrent.futures.Executor, or another object that has `submit` or `map`
        A pool of threads or processes, of loky, ``mpi4py.futures.MPIPoolExecutor``,
        ``client.get_executor()`` of Dask.  `submit` returns a ``concurrent.futures.Future``; `map`,
        as ``multiprocessing.Pool`` has it, may be called by several threads.
    rows : int, default 1024
        Sequences for each task.
    method : str, default "predict"
        For example "predict_proba".
    timeout : float, default 600
        Seconds in which at least one task has to be done, before it is a `TimeoutError`.

    Returns
    -------
    (n, ...) array, or list of n
        What the method returns, in the order of `X`, with the bits of ``model.predict(X)``;
        provided that no worker has the instruction set `baseline` alone, where this process has
        another.  (Probabilities are exponentials of NumPy, whose last bits may depend on the
        processor.)

    Raises
    ------
    TypeError, ValueError
        An argument is none of these.
    TimeoutError
        No task was done in time.
    Exception
        What a task raises, or the executor: ``BrokenProcessPool`` if a worker was killed.  Tasks
        that have not begun are cancelled.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import numpy as np
    >>> from fastlstm import distributed
    >>> from fastlstm.sklearn import LSTMClassifier
    >>> X = np.random.default_rng(0).normal(size=(100, 6, 2))
    >>> model = LSTMClassifier(8, max_iter=2, random_state=0).fit(X, X[:, 0, 0] > 0)
    >>> with ThreadPoolExecutor(2) as executor:
    ...     labels = distributed.predict(model, X, executor, rows=30)
    >>> np.array_equal(labels, model.predict(X))
    True
    """
    rows = _validation.integer(rows, "rows", 1)
    timeout = _validation.non_negative("timeout", timeout)
    submit = _submit_of(executor)
    if not callable(getattr(model, str(method), None)):
        raise ValueError(f"method: expected one of {type(model).__name__}, got {method!r}")
    n = len(X)
    if not n:  # the model knows what it makes of nothing
        return getattr(model, method)(X)
    X = getattr(X, "iloc", X)  # of a data frame
    pickled = pickle.dumps(model)
    key = hashlib.blake2b(pickled, digest_size=16).hexdigest()

    def begin(number: int, with_model: bool) -> Future[_Answer]:
        part = X[number * rows : (number + 1) * rows]
        task = _Task(key, pickled if with_model else None, method, part, next(_serials))
        return submit(_work, task)

    question = submit(_work, _Task(key, None, None, None, next(_serials)))
    try:
        _done([question], timeout)
    finally:
        question.cancel()
    unknown = question.result().unknown
    parts = _collect(begin, -(-n // rows), _capacity(executor), unknown, timeout)
    return list(itertools.chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts)


def _submit_of(executor: Any) -> Callable[..., Future[_Answer]]:
    """The method `submit`, made of `map` where there is none."""

    def by_map(function: Callable[[_Task], _Answer], task: _Task) -> Future[_Answer]:
        future: Future[_Answer] = Future()

        def work() -> None:
            try:
                [answer] = executor.map(function, [task])
                future.set_result(answer)
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()  # no join: a timeout may pass
        return future

    def by_submit(function: Callable[[_Task], _Answer], task: _Task) -> Future[_Answer]:
        future = executor.submit(function, task)
        if not isinstance(future, Future):
            raise TypeError(
                "executor: expected a submit that returns a concurrent.futures.Future, as that of "
                f"Dask's client.get_executor(), got {type(future).__name__}"
            )
        return future

    for name, submit in (("submit", by_submit), ("map", by_map)):
        if callable(getattr(executor, name, None)):
            return submit
    raise TypeError(f"executor: expected submit or map, got {type(executor).__name__}")


class _Capacity(NamedTuple):
    """What an executor has; guessed where it does not say."""

    processes: int
    tasks: int
    """Those that its workers do at a time."""


def _capacity(executor: Any) -> _Capacity:
    client = getattr(executor, "_client", None)
    if client is not None:  # of Dask
        threads = client.nthreads().values()
        return _Capacity(len(threads), sum(threads))
    attributes = (getattr(executor, name, None) for name in ("_max_workers", "_processes"))
    tasks = next((value for value in attributes if isinstance(value, int)), os.cpu_count() or 1)
    return _Capacity(1 if isinstance(executor, ThreadPoolExecutor) else tasks, tasks)


def _collect(
    begin: Callable[[int, bool], Future[_Answer]],
    count: int,
    capacity: _Capacity,
    unknown: bool,
    timeout: float,
) -> list[Any]:
    """The results of tasks, from a function that begins one, with or without the model.

    If the model is `unknown`, the first tasks have it, one for each process: all are idle.  Who
    comes late, and gets a task without it, asks; then no more tasks are under way than workers,
    until it had its chance to take one with the model.
    """
    results: list[Any] = [None] * count
    todo = deque(range(count))
    running: dict[Future[_Answer], int] = {}
    carrying: set[Future[_Answer]] = set()  # those with the model
    to_send = capacity.processes if unknown else 0
    asked: set[Any] = set()  # processes, since no task with the model is under way
    seen: set[Any] = set()  # workers: there may be more than at the beginning
    try:
        while todo or running:
            tasks = max(capacity.tasks, len(seen))
            while todo and (to_send or len(running) < (tasks if carrying else 2 * tasks + 2)):
                number = todo.popleft()
                running[future := begin(number, to_send > 0)] = number
                if to_send:
                    carrying.add(future)
                    to_send -= 1
            for future in _done(running, timeout):
                number, answer = running.pop(future), future.result()
                carrying.discard(future)
                seen.add((answer.process, answer.thread))
                results[number] = answer.result
                if answer.unknown:
                    todo.appendleft(number)
                    to_send += answer.process not in asked
                    asked.add(answer.process)
            if not carrying and not to_send:
                asked.clear()
    finally:
        for future in running:
            future.cancel()
    return results


def _done(running: Collection[Future[_Answer]], timeout: float) -> set[Future[_Answer]]:
    done, _ = wait(running, timeout, FIRST_COMPLETED)
    if not done:
        raise TimeoutError(f"none of {len(running)} tasks was done in {timeout:g} seconds")
    return done


def _work(task: _Task) -> _Answer:
    """In a worker."""
    global _models
    models = _models
    if task.key not in models and task.model is not None:
        kept = list(models.items())[1 - _KEPT :]
        models = dict([*kept, (task.key, pickle.loads(task.model))])
        _models = models  # no lock is needed: at worst another thread's is lost, and asked for
    unknown = task.key not in models
    result = None
    if task.method is not None and not unknown:
        result = getattr(models[task.key], task.method)(task.rows)
    return _Answer((platform.node(), os.getpid()), threading.get_ident(), unknown, result)
