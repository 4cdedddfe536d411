"""Train a model of one's own: the loop around its gradients."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from fastlstm import _validation
from fastlstm._io.atomic import StrPath
from fastlstm._parameters import Parameters
from fastlstm._validation import bound, non_negative
from fastlstm.distributed import alone
from fastlstm.optim import Adam
from fastlstm.optim._base import Optimizer
from fastlstm.optim._targets import targets_of
from fastlstm.training._checkpoint import Checkpoints
from fastlstm.training._examples import Examples, Generated, examples_of
from fastlstm.training._history import History, Progress
from fastlstm.training._loop import train
from fastlstm.training._plan import Plan, Schedule, check_schedule, length_of_run
from fastlstm.training._progress import ProgressDisplay
from fastlstm.training._task import Task

Gradients = Callable[..., tuple[float, Any]]


def fit(
    model: Any,
    gradients: Gradients,
    data: Any,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    batch_size: int = 32,
    optimizer: Optimizer | None = None,
    lr: float | None = None,
    schedule: Schedule = "constant",
    clip_norm: float | None = None,
    evaluate: Callable[[], float] | None = None,
    evaluations: int | None = None,
    patience: int | None = None,
    tol: float = 0.0,
    seed: int | None = None,
    progress: Progress | bool | None = None,
    checkpoint: StrPath | None = None,
    checkpoint_every: int | None = None,
    resume: bool | Literal["auto"] = False,
) -> History:
    """Train a model of your own: batches, optimizer, schedule, early stopping, checkpoints.

    You write what is special about the model, a function from a batch to the loss and its
    gradients.  Ctrl-C ends the run after the current step and keeps what was learned.

    Parameters
    ----------
    model : layer, head, Parameters or array, or a mapping or sequence of these
        What is trained.
    gradients : callable
        ``gradients(*batch) -> loss, grads``: the mean loss of a batch, and what the optimizer's
        ``step`` takes, gradients in the order of `model`.
    data : tuple of sequences, or callable
        Examples: arrays or lists of the same length, whose items belong together, such as
        ``(X, y)``.  A batch has the same items of each, in an order that is new for every epoch:
        of an array an array, of a list (of sequences of different lengths) a list.  Or a function
        that makes a batch, a tuple, of a NumPy generator: ``data(rng)``; it has no epochs.
    epochs, steps, seconds
        The length of the run: exactly one of them is given.  In an epoch each example comes once.
    batch_size : int
        Examples of a batch; the last one of an epoch may have fewer.
    optimizer : Optimizer, optional
        One of `fastlstm.optim`, of the parameters of `model`; its learning rate is that of the
        start.  Default: Adam with `lr`.
    lr : float, optional
        Learning rate at the start, without `optimizer`.  Default: 0.001.
    schedule : {"constant", "linear", "cosine"} or callable
        How the learning rate falls: not at all, or to 0, linearly or as half a cosine.  A callable
        returns its factor for the part of the run that is done, 0 to 1.
    clip_norm : float, optional
        Largest norm of the gradients of a step.  Default: any.
    evaluate : callable, optional
        Returns a score of what is held out, the higher the better.
    evaluations : int, optional
        How often, evenly spaced and at the end, it is called, and the history gets a record.
        Default: after every epoch; 10 times if there are none.
    patience : int, optional
        End the run after this many records in a row without an improvement by more than `tol`.
        With `evaluate`, the weights are those of the best record afterwards; without, the training
        loss is what has to get better, and the weights stay the last ones.
    tol : float, default 0
        What an improvement has to exceed.
    seed : int, optional
        Of the order of the examples, or of the generator that `data` gets.
    progress : callable or bool, optional
        True shows a bar on a terminal and in a notebook, and a few lines anywhere else.  A callable
        is called with a `Record` after every step.
    checkpoint, checkpoint_every, resume
        Save the run in a file, and go on from it with the same bits, as
        `fastlstm.models.LanguageModel.fit` does.  If `data` or `gradients` draw at random, they do
        so from the generator they get, or from layers of `model` (their dropout).

    Returns
    -------
    History
        A `Record` for each evaluation.

    Raises
    ------
    FloatingPointError
        The loss is not finite any more.
    OSError
        The checkpoint cannot be written or read.
    SystemExit
        SIGTERM or SIGUSR1 came, and the checkpoint is complete.
    TypeError, ValueError
        An argument cannot be meant, or the checkpoint is damaged or of another run.

    Examples
    --------
    Which of two sequences has the larger last value:

    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import heads, training
    >>> X = np.random.default_rng(0).standard_normal((512, 10, 2), np.float32)
    >>> y = (X[:, -1, 0] > X[:, -1, 1]).astype(int)
    >>> lstm = fastlstm.LSTM(2, 16, batch_first=True, seed=0)
    >>> linear = heads.Linear(16, 2, seed=0)
    >>> def gradients(x, targets):
    ...     out, _, tape = lstm.forward(x)
    ...     logits, tape_linear = linear.forward(out[:, -1])
    ...     loss, dlogits = heads.cross_entropy(logits, targets)
    ...     dlast, grads_linear = linear.backward(tape_linear, dlogits)
    ...     dout = np.zeros_like(out)
    ...     dout[:, -1] = dlast
    ...     _, _, grads = lstm.backward(tape, dout)
    ...     return loss, [grads, grads_linear]
    >>> history = training.fit([lstm, linear], gradients, (X, y), epochs=10, lr=0.01, seed=0)
    >>> history.records[-1].loss < 0.2
    True
    """
    batch_size = _validation.integer(batch_size, "batch_size", 1)
    source = examples_of(data, batch_size, seed)
    task = _Batches(model, gradients, source)
    if optimizer is None:
        optimizer = Adam(task.updated, 1e-3 if lr is None else non_negative("lr", lr))
    elif not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: expected one of fastlstm.optim, got {type(optimizer).__name__}"
        )
    elif lr is not None:
        raise ValueError(f"lr: expected none with optimizer, which has its own, got {lr}")
    else:
        _check_same(optimizer, task.updated)
    plan = _plan(
        source,
        optimizer.lr,
        length_of_run(steps, seconds, epochs, _per_epoch(source, epochs)),
        schedule=schedule,
        clip_norm=clip_norm,
        evaluations=evaluations,
        patience=patience,
        tol=tol,
    )
    for name, value in {"gradients": gradients, "evaluate": evaluate}.items():
        if not callable(value) and (name == "gradients" or value is not None):
            raise TypeError(f"{name}: expected a function, got {type(value).__name__}")
    settings = {
        **vars(plan),
        "schedule": schedule if isinstance(schedule, str) else _name_of(schedule),
        "batch_size": batch_size,
        "optimizer": f"{type(optimizer).__name__}({', '.join(optimizer._chosen)})",
        "model": [len(flat) for flat in task.weights()],
    }
    if checkpoint is not None:
        settings["data"] = source.fingerprint()
    checkpoints = Checkpoints.of(checkpoint, checkpoint_every, resume, settings)
    show = None if isinstance(progress, bool) else progress
    score = None if evaluate is None else _score_of(evaluate)
    with contextlib.ExitStack() as stack:
        if progress is True:
            show = stack.enter_context(ProgressDisplay())
        try:
            return train(task, optimizer, plan, alone(), score, show, checkpoints)
        finally:
            optimizer.lr = plan.lr  # of the start, for another run


class _Batches(Task):
    """A model of somebody's, and its data."""

    def __init__(self, model: Any, gradients: Gradients, source: Examples | Generated) -> None:
        whole = isinstance(model, list | tuple)
        parts = list(model) if whole else [model]
        updated = [
            _updated(part, f"model[{i}]" if whole else "model") for i, part in enumerate(parts)
        ]
        self.updated = updated if whole else updated[0]
        self.trainable = [
            item
            for part in updated
            for item in (part.values() if _is_plain_mapping(part) else [part])
        ]
        drawing = [part._dropout_keys for part in parts if hasattr(part, "_dropout_keys")]
        self.generators = [source.generator, *drawing]
        self._gradients, self._source = gradients, source

    def gradients(self, step: int) -> tuple[Any, Any]:
        batch = self._source.next()
        self.size = self._source.size
        found = self._gradients(*batch)
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(
                f"gradients: expected it to return (loss, grads), got {type(found).__name__}"
            )
        loss, grads = found
        if np.ndim(loss) != 0:
            raise TypeError(
                f"gradients: expected the loss to be a number, the mean of a batch, "
                f"got an array of shape {_validation.shape_text(np.shape(loss))}"
            )
        return _number(loss, "gradients: expected the loss to be a number"), grads

    def progress(self, step: int) -> int:
        return step // self._source.per_epoch if self._source.per_epoch else 0

    @property
    def read(self) -> int:  # type: ignore[override]
        return self._source.read

    def whole_state(self, group: Any) -> tuple[Any, ...]:
        return self._source.state()

    def go_on(self, read: int, state: tuple[Any, ...]) -> None:
        self._source.go_on(read, state)


def _updated(part: Any, name: str) -> Any:
    """What an optimizer updates of a part of a model."""
    if _is_plain_mapping(part):
        for key, value in part.items():
            if not isinstance(value, np.ndarray):
                got = type(value).__name__
                raise TypeError(f"{name}[{key!r}]: expected an array, got {got}")
        return part
    if hasattr(part, "_check_trainable"):
        part._check_trainable("fit")
    found = getattr(part, "parameters", part)
    if not isinstance(found, Parameters | np.ndarray):
        raise TypeError(
            f"{name}: expected a layer, a head, Parameters or an array, got {type(part).__name__}"
        )
    return found


def _is_plain_mapping(part: Any) -> bool:
    """Whether it is a mapping of arrays, of which each is trained."""
    return isinstance(part, Mapping) and not isinstance(part, Parameters)


def _check_same(optimizer: Optimizer, updated: Any) -> None:
    """Refuse an optimizer of something else than is trained, or in another order."""
    ours, theirs = (
        [
            (vector.__array_interface__["data"], vector.size)
            for target in targets
            for vector in target.vectors().values()
        ]
        for targets in (targets_of(updated), optimizer._targets)
    )
    if ours != theirs:
        raise ValueError("optimizer: expected one of all that model has, in its order")


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _score_of(evaluate: Callable[[], Any]) -> Callable[[], float]:
    return lambda: _number(evaluate(), "evaluate: expected it to return a number")


def _number(value: Any, expected: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{expected}, got {value!r}") from None


def _per_epoch(source: Examples | Generated, epochs: Any) -> float:
    if epochs is not None and not source.per_epoch:
        raise ValueError("epochs: expected steps or seconds, because data makes batches endlessly")
    return source.per_epoch or math.inf


def _plan(
    source: Examples | Generated, lr: float, length: tuple[float, float], **options: Any
) -> Plan:
    """The arguments of a run, checked."""
    evaluations, patience, clip_norm = (
        options[name] for name in ("evaluations", "patience", "clip_norm")
    )
    if evaluations is not None:
        evaluations = _validation.integer(evaluations, "evaluations", 1)
    if patience is not None:
        patience = _validation.integer(patience, "patience", 1)
    return Plan(
        *length,
        lr=lr,
        clip_norm=None if clip_norm is None else bound("clip_norm", clip_norm),
        evaluations=evaluations if evaluations or source.per_epoch else 10,
        schedule=check_schedule(options["schedule"]),
        steps_per_epoch=source.per_epoch,
        patience=patience,
        tol=non_negative("tol", options["tol"]),
    )
