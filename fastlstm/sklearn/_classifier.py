"""The classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array

from fastlstm._validation import non_negative
from fastlstm.heads._softmax import log_softmax
from fastlstm.sklearn._base import SequenceEstimator
from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import Network

Array = NDArray[Any]


class LSTMClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """Classify sequences, or each of their steps: recurrent layer -> linear -> softmax.

    Trained on the cross-entropy by Adam, in shuffled batches.  The same `random_state` gives the
    same bits, whatever the number of threads.  Inputs are not scaled: the layer expects values
    around 1, as a `SequenceScaler` before it gives.

    Parameters
    ----------
    hidden_size : int, default 32
        Hidden units of each layer and direction, H.
    num_layers : int, default 1
        Layers, each reading the output of the one below.
    bidirectional : bool, default False
        Read in both directions; the last hidden states of both are used.
    dropout : float, default 0.0
        Rate of dropout between the layers while training; needs ``num_layers > 1``.
    cell : {"lstm", "gru", "rnn", "slstm"}, default "lstm"
    n_timesteps : int, optional
        For a table `X`: how many steps a row has.  Step t of T reads the t-th part of the columns,
        ``row.reshape(T, -1)[t]``.  Default: each column is a step.
    output : {"last", "steps"}, default "last"
        What the linear layer reads: the last hidden state, for a label of each sequence; or the
        hidden states of all steps, for a label of each step.  Then `y` and what is predicted have
        an axis of steps, (n, T), or are lists of n arrays (T_i,) beside a list `X`.  Each step
        counts the same in the loss, in the score, and by the weight of its sequence.  In one
        direction, a step is classified by what came up to it.
    learning_rate : float, default 0.01
    batch_size : int, default 64
        Sequences for each update.
    max_iter : int, default 100
        Epochs at most.  Reaching them is no reason for a warning: see `loss_curve_`.
    early_stopping : bool, default False
        Hold a part of the sequences out, end when their score gets no better, and keep the weights
        of the best epoch.  Otherwise it ends when the training loss gets no lower.
    scoring : str, callable or None, default None
        The score of early stopping; higher is better.  A name of scikit-learn's scorers, such as
        "balanced_accuracy", "f1", "roc_auc" or "neg_log_loss"; a callable ``(estimator, X, y)``;
        "loss", for that of the training with its sign changed; or None, for the accuracy, in which
        labels count by `class_weight`, as they do in the loss.  A scorer is given the held-out
        `X`, and its `sample_weight` if `fit` was given some; of steps, labels and predictions one
        after another, (N,).  Outputs are computed once an epoch, whatever it asks for.
    validation_fraction : float, default 0.1
        The part to hold out; of every class alike, unless there is a label for each step.
    n_iter_no_change : int, default 10
        Epochs in a row without an improvement by `tol` that end the training.
    tol : float, default 1e-4
    clip_norm : float or None, default 1.0
        Largest norm of the gradients of an update.
    weight_decay : float, default 0.0
        Of AdamW.
    shards : int, optional
        Cut every batch into so many, a power of two, and add their gradients in a fixed order.
        Within ``with group:`` (see `fastlstm.distributed`) all processes of the group fit it
        together, each some of the shards, and end with the same bits as one process would; all
        are given the same data.
    class_weight : dict or "balanced", optional
        Factors of the loss for each class, 1 for classes that a dict does not have; "balanced"
        makes the classes count alike.
    random_state : int, RandomState or None
        Of initial weights, dropout, shuffling, and the part that is held out.
    warm_start : bool, default False
        `fit` goes on from the present weights, whose sizes stay as they are.
    verbose : bool, default False
        Show progress: a bar on a terminal, some lines elsewhere.

    Attributes
    ----------
    classes_ : (K,) array
    lstm_ : LSTM, GRU, RNN or SLSTM
        The layer, batch first: call it, `trace` it, or `save` it.
    out_ : Parameters
        The linear layer: ``weight`` (K, D*H) and ``bias`` (K,).
    n_features_in_ : int
        Columns of a table, or features of a step.
    feature_names_in_ : array of str
        Of a data frame with names.
    n_iter_ : int
        Epochs of the last call of `fit` or `partial_fit`.
    loss_curve_ : list of float
        The mean loss of every epoch since the weights were initialized.
    validation_scores_ : list of float, or None
        The score after every epoch, with `early_stopping`.
    best_validation_score_ : float, or None
        Their maximum.  The weights are those of the first epoch that has it.

    Notes
    -----
    A float32 `X` is computed in float32, which takes about half the time; anything else in
    float64.  An equal number of steps is not needed between `fit` and `predict`, except for tables.

    Examples
    --------
    Which half of a series has the peak?

    >>> import numpy as np
    >>> from fastlstm.sklearn import LSTMClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 12)).astype(np.float32)
    >>> y = np.where(X.argmax(axis=1) < 6, "first", "second")
    >>> classifier = LSTMClassifier(16, random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.95
    True
    >>> ragged = [rng.normal(size=(length, 2)) for length in (5, 9, 2)]
    >>> LSTMClassifier(4, max_iter=1).fit(ragged, [0, 1, 0]).predict_proba(ragged).shape
    (3, 2)

    Has there been a positive value yet?  A label for each step:

    >>> y = np.maximum.accumulate(X > 0, axis=1)
    >>> classifier = LSTMClassifier(8, output="steps", max_iter=60, random_state=0).fit(X, y)
    >>> classifier.predict(X).shape, classifier.score(X, y) > 0.95
    ((200, 12), True)
    """

    _stratified: ClassVar[bool] = True
    _several: ClassVar[bool] = False

    def __init__(
        self,
        hidden_size: int = 32,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        cell: str = "lstm",
        n_timesteps: int | None = None,
        output: str = "last",
        learning_rate: float = 0.01,
        batch_size: int = 64,
        max_iter: int = 100,
        early_stopping: bool = False,
        scoring: Any = None,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        clip_norm: float | None = 1.0,
        weight_decay: float = 0.0,
        shards: int | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            cell=cell,
            n_timesteps=n_timesteps,
            output=output,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_iter=max_iter,
            early_stopping=early_stopping,
            scoring=scoring,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            clip_norm=clip_norm,
            weight_decay=weight_decay,
            shards=shards,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch of these sequences, going on from the present weights.

        Parameters
        ----------
        X, y
            As for `fit`.
        classes : (K,) array-like
            All labels that there will be; needed in the first call.
        sample_weight : (n,) array-like, optional
            Factors of the loss, as they are: one call knows no mean of all.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `fit` does; if `classes` are missing, or not those of the first call; for
            `early_stopping` and a "balanced" `class_weight`, which need all the data.

        Examples
        --------
        >>> import numpy as np
        >>> from fastlstm.sklearn import LSTMClassifier
        >>> classifier = LSTMClassifier(4, random_state=0)
        >>> for chunk in np.random.default_rng(0).normal(size=(3, 8, 5, 2)):
        ...     y = chunk.mean(axis=(1, 2)) > 0
        ...     classifier = classifier.partial_fit(chunk, y, classes=[False, True])
        >>> len(classifier.loss_curve_)
        3
        """
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight: expected a dict or None for partial_fit, got {self.class_weight!r}"
            )
        given = None if classes is None else np.unique(np.asarray(classes))
        if not hasattr(self, "_network"):
            if given is None:
                raise ValueError("classes: expected all labels in the first call of partial_fit")
        elif given is not None and not np.array_equal(given, self.classes_):
            raise ValueError(f"classes: expected {self.classes_} as before, got {given}")
        return self._learn(X, y, sample_weight, partial=True, classes=given)

    def predict(self, X: Any) -> Any:
        """Return the most probable labels, (n,).

        With ``output="steps"``: (n, T), or a list of n arrays (T_i,) if `X` is a list.

        Parameters
        ----------
        X
            As for `fit`.
        """
        return self._predict(X, lambda outputs: self.classes_[outputs.argmax(axis=1)])

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of `predict_proba`, computed without leaving them.

        Parameters
        ----------
        X
            As for `fit`.
        """
        return self._predict(X, log_softmax)

    def predict_proba(self, X: Any) -> Any:
        """Return probabilities, (n, K) of float64, in the order of `classes_`.

        With ``output="steps"``: (n, T, K), or a list of n arrays (T_i, K) if `X` is a list.

        Parameters
        ----------
        X
            As for `fit`.
        """
        return self._predict(X, _softmax)

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy: the share of right labels, of sequences or of all their steps.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        """
        labels, predicted, weights = self._compared(X, y, sample_weight)
        return float(accuracy_score(labels, predicted, sample_weight=weights))

    def _checked(self, y: Any, fresh: bool, classes: Array | None) -> Array:
        """Places of the labels in `classes_`, (N,)."""
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        if fresh:
            self.classes_ = np.unique(labels) if classes is None else classes
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise ValueError(f"y: expected labels of {self.classes_}, got {unknown}")
        codes: Array = np.searchsorted(self.classes_, labels)
        return codes

    def _as_y(self, targets: Array) -> Array:
        labels: Array = self.classes_[targets]
        return labels

    def _prepared(self, examples: Examples, fresh: bool) -> Examples:
        """With the factors of the classes."""
        classes, weights = examples.targets, examples.weights
        factors = self._factors(np.bincount(classes, weights, len(self.classes_)))
        return replace(examples, weights=weights * factors[classes])

    def _factors(self, mass: Array) -> Array:
        """Factors of the classes, (K,), from the sums of their weights."""
        factors = np.ones(len(mass))
        if isinstance(self.class_weight, Mapping):
            places = {label: i for i, label in enumerate(self.classes_.tolist())}
            for label, factor in self.class_weight.items():
                if label not in places:
                    raise ValueError(f"class_weight: expected labels of y, got {label!r}")
                factors[places[label]] = non_negative("class_weight", factor)
        elif isinstance(self.class_weight, str) and self.class_weight == "balanced":
            present = mass > 0
            factors[present] = mass.sum() / (present.sum() * mass[present])
        elif self.class_weight is not None:
            raise ValueError(
                f"class_weight: expected a dict, 'balanced' or None, got {self.class_weight!r}"
            )
        return factors

    def _outputs(self) -> int:
        return len(self.classes_)

    def _score(self, network: Network, examples: Examples) -> float:
        """Accuracy."""
        right = network.outputs(examples.sequences).argmax(axis=1) == examples.targets
        return float(np.average(right, weights=examples.weights))

    def _losses(self, outputs: Array, targets: Array) -> Array:
        """The cross-entropy."""
        losses: Array = -log_softmax(outputs)[np.arange(len(targets)), targets]
        return losses


def _softmax(outputs: Array) -> Array:
    result: Array = np.exp(log_softmax(outputs))
    result /= result.sum(axis=1, keepdims=True)
    return result
