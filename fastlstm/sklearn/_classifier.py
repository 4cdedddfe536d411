"""The classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array

from fastlstm._validation import non_negative
from fastlstm.heads._softmax import log_softmax
from fastlstm.sklearn._base import SequenceEstimator
from fastlstm.sklearn._examples import Examples

Array = NDArray[Any]


class LSTMClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """Classify sequences: recurrent layer -> its last hidden state -> linear -> softmax.

    Trained on the cross-entropy by Adam, in shuffled batches.  The same `random_state` gives the
    same bits, whatever the number of threads.  Inputs are not scaled: the layer expects values
    around 1, as a ``StandardScaler`` before it gives.

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
    cell : {"lstm", "gru", "rnn"}, default "lstm"
    n_timesteps : int, optional
        For a table `X`: how many steps a row has.  Step t of T reads the t-th part of the columns,
        ``row.reshape(T, -1)[t]``.  Default: each column is a step.
    learning_rate : float, default 0.01
    batch_size : int, default 64
        Sequences for each update.
    max_iter : int, default 100
        Epochs at most.  Reaching them is no reason for a warning: see `loss_curve_`.
    early_stopping : bool, default False
        Hold a part of the sequences out, end when their score gets no better, and keep the weights
        of the best epoch.  Otherwise it ends when the training loss gets no lower.
    validation_fraction : float, default 0.1
        The part to hold out; of every class alike.
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
    lstm_ : LSTM, or GRU or RNN
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
        Accuracy after every epoch, with `early_stopping`.
    best_validation_score_ : float, or None

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
    """

    _stratified: ClassVar[bool] = True

    def __init__(
        self,
        hidden_size: int = 32,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        cell: str = "lstm",
        n_timesteps: int | None = None,
        learning_rate: float = 0.01,
        batch_size: int = 64,
        max_iter: int = 100,
        early_stopping: bool = False,
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
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_iter=max_iter,
            early_stopping=early_stopping,
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

    def predict(self, X: Any) -> Array:
        """Return the most probable labels, (n,).

        Parameters
        ----------
        X
            As for `fit`.
        """
        outputs = self._predict(X)
        labels: Array = self.classes_[outputs.argmax(axis=1)]
        return labels

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`, (n, K), computed without leaving them.

        Parameters
        ----------
        X
            As for `fit`.
        """
        return log_softmax(self._predict(X))

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities, (n, K) of float64, in the order of `classes_`.

        Parameters
        ----------
        X
            As for `fit`.
        """
        result: Array = np.exp(self.predict_log_proba(X))
        result /= result.sum(axis=1, keepdims=True)
        return result

    def _checked(self, y: Any, fresh: bool, classes: Array | None) -> Array:
        """Places of the labels in `classes_`, (n,)."""
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

    def _prepared(self, examples: Examples, fresh: bool) -> Examples:
        """With the factors of the classes."""
        classes, weights = examples.targets, examples.weights
        factors = self._factors(np.bincount(classes, weights, len(self.classes_)))
        return Examples(examples.sequences, classes, weights * factors[classes])

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

    def _score(self, outputs: Array, examples: Examples) -> float:
        """Accuracy."""
        right = outputs.argmax(axis=1) == examples.targets
        return float(np.average(right, weights=examples.weights))
