"""What the classifier and the regressor share: parameters, fitting."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from fastlstm import _validation
from fastlstm._layers.cells import CELLS, check_cell
from fastlstm._shards import Shards
from fastlstm._validation import bound, non_negative
from fastlstm.distributed._alone import alone
from fastlstm.distributed._group import Group, current
from fastlstm.optim import AdamW
from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import MOST_SEED, Network
from fastlstm.sklearn._progress import Progress
from fastlstm.sklearn._readout import EveryStep, LastStep
from fastlstm.sklearn._scoring import Given, HeldOut, scorer_of, validation
from fastlstm.sklearn._sequences import Sequences, read
from fastlstm.sklearn._targets import check_given, check_of_sequences, of_steps, sample_weights
from fastlstm.sklearn._training import History, Learner, Plan, as_process_0, train
from fastlstm.training._together import agree

Array = NDArray[Any]

_OF_PROCESS = ("random_state", "verbose")  # parameters that may differ: process 0's are used


class SequenceEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of the estimators; they say what the targets are, and how they are scored."""

    _stratified: ClassVar[bool]  # whether parts of a split have equal shares of each target
    _several: ClassVar[bool]  # whether a target may be several numbers
    _held_out: HeldOut | None = None  # for a copy that is scored by it
    _network: Network
    _optimizer: AdamW
    _rng: np.random.RandomState
    loss_curve_: list[float]

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
        random_state: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.cell = cell
        self.n_timesteps = n_timesteps
        self.output = output
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.clip_norm = clip_norm
        self.weight_decay = weight_decay
        self.shards = shards
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def _checked(self, y: Any, fresh: bool, classes: Array | None) -> Array:
        """Targets, (N,) or (N, K); `fresh` if nothing is known of them yet."""
        raise NotImplementedError

    def _as_y(self, targets: Array) -> Array:
        """What `_checked` made targets of."""
        raise NotImplementedError

    def _prepared(self, examples: Examples, fresh: bool) -> Examples:
        """With the targets and weights that the loss takes."""
        raise NotImplementedError

    def _outputs(self) -> int:
        """How many outputs the network has."""
        raise NotImplementedError

    def _score(self, network: Network, examples: Examples) -> float:
        raise NotImplementedError

    def _losses(self, outputs: Array, targets: Array) -> Array:
        """(N,) array: of each prediction, as training has them."""
        raise NotImplementedError

    def _negative_loss(self, network: Network, examples: Examples) -> float:
        outputs = network.outputs(examples.sequences)
        losses = self._losses(outputs, examples.targets) * examples.weights
        return float(-losses.sum() / len(examples))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on sequences.

        Ctrl-C ends it after the current batch, with a warning; what was learned is kept.

        Parameters
        ----------
        X : (n, features) or (n, T, F) array-like, or list of n array-likes (T_i, F)
        y : (n,) array-like, or (n, outputs) for a regressor
            With ``output="steps"``: (n, T) array-like or list of n array-likes (T_i,), or, for a
            regressor, (n, T, outputs) or (T_i, outputs).
        sample_weight : (n,) array-like, optional
            How much each sequence counts, at least 0, relative to the mean of them.  If all
            sequences are in one batch and none are held out, a weight of 2 gives the same bits as
            a sequence that is there twice.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If a parameter or an argument is not what it has to be.
        FloatingPointError
            If the loss is not finite any more.
        """
        return self._learn(X, y, sample_weight, partial=False)

    def quantize(self, weights_dtype: str) -> Self:
        """Return a fitted estimator for prediction whose weights take fewer bytes.

        It has the same parameters and attributes; `lstm_` is quantized, `out_` is a copy.

        Parameters
        ----------
        weights_dtype : {"int8", "bfloat16", "float16"}
            As of `fastlstm.LSTM.quantize`.  Weights of float64 become float32 first, and so does
            any `X` the new estimator predicts from.

        Returns
        -------
        estimator of the same class
            It predicts, is scored, copied and pickled as any other.  ``partial_fit``, and `fit`
            with `warm_start`, would go on from its weights: they raise ``ValueError``.  `fit`
            without it begins anew, as always, and leaves an estimator with weights of all bits;
            so does one of ``sklearn.base.clone``.

        Raises
        ------
        NotFittedError
            If this estimator is not fitted.
        TypeError, ValueError
            As `fastlstm.LSTM.quantize` does.

        Examples
        --------
        >>> import numpy as np
        >>> from fastlstm.sklearn import LSTMRegressor
        >>> series = np.sin(np.arange(300) / 5)
        >>> X = np.lib.stride_tricks.sliding_window_view(series[:-1], 8)
        >>> y = series[8:]
        >>> small = LSTMRegressor(16, random_state=0).fit(X[:200], y[:200]).quantize("int8")
        >>> small.lstm_.weights_dtype
        'int8'
        >>> small.score(X[200:], y[200:]) > 0.99
        True
        """
        check_is_fitted(self, "lstm_")
        network = self._network.quantize(weights_dtype)
        small = copy.copy(self)
        del small._optimizer, small._rng  # of no use without training
        small._learned(network)
        return small

    def _learn(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        partial: bool,
        classes: Array | None = None,
    ) -> Self:
        group = current() or alone()
        going_on = hasattr(self, "_network") and (partial or self.warm_start)

        def prepare() -> tuple[Plan, Examples, Given, Learner]:
            plan = self._plan(partial, group)
            if going_on:
                method = "partial_fit" if partial else "fit with warm_start"
                self._network.layer._check_trainable(method, "estimator")
                before = "steps" if self._network.readout.of_steps else "last"
                if self.output != before:
                    raise ValueError(f"output: expected {before!r} as before, got {self.output!r}")
            sequences = self._read(X, self._network if going_on else None)
            weights = sample_weights(sample_weight, len(sequences))
            targets = self._checked(self._required(y, sequences), not going_on, classes)
            # Without a weight, an example is as if it were not there: it fills no place in a batch.
            rows = np.flatnonzero(weights)
            if by_step := self.output == "steps":
                weights = np.repeat(weights, sequences.lengths)
            read = Examples(sequences, targets, weights, by_step).take(rows)
            examples = self._prepared(self._scaled(read, plan, partial), not going_on)
            given = Given(X, rows, read, sample_weight is not None)
            return plan, examples, given, self._learner(sequences, going_on, partial)

        (plan, examples, given, learner), _ = agree(group, prepare)
        if group.size > 1:
            parameters = self.get_params().items()
            # A function, such as `scoring`, has another address in each.
            same = {n: v for n, v in parameters if n not in _OF_PROCESS and not callable(v)}
            group.check({**same, "goes on": going_on})
            group.check_same(examples.arrays(), "X, y and sample_weight")
            learner = as_process_0(learner, group)
        history = self._train(learner, examples, given, plan, group)
        network, self._optimizer, self._rng = learner
        self._learned(network)
        self._tell(history, going_on)
        return self

    def _learner(self, sequences: Sequences, going_on: bool, partial: bool) -> Learner:
        """What is trained, new or as it was left."""
        resumed = going_on and partial
        rng = self._rng if resumed else check_random_state(self.random_state)
        network = self._network if going_on else self._new_network(sequences, rng)
        if resumed:
            self._optimizer.lr = self.learning_rate
            return Learner(network, self._optimizer, rng)
        decay = self.weight_decay
        return Learner(
            network, AdamW(network.trainable, self.learning_rate, weight_decay=decay), rng
        )

    def _required(self, y: Any, sequences: Sequences) -> Any:
        check_given(self, y)
        check_consistent_length(sequences.starts, y)
        if self.output == "steps":
            return of_steps(y, sequences.lengths, self._several)
        check_of_sequences(y, self._several)
        return y

    def _train(
        self, learner: Learner, examples: Examples, given: Given, plan: Plan, group: Group
    ) -> History:
        """Hold out what is to be held out, and train on the rest."""
        validate = None
        if self.early_stopping:
            rows, held = self._split(examples, learner.rng)
            validate = validation(self, learner.network, examples, given, held)
            examples = examples.take(rows)
        with Progress(plan.max_iter, bool(self.verbose) and group.rank == 0) as report:
            return train(learner, examples, plan, group, validate, report)

    def _plan(self, partial: bool, group: Group) -> Plan:
        """The parameters of the training, checked."""
        if partial and self.early_stopping:
            raise ValueError("early_stopping: expected False for partial_fit, got True")
        check_cell(self.cell, CELLS)
        if self.output not in ("last", "steps"):
            raise ValueError(f"output: expected 'last' or 'steps', got {self.output!r}")
        scorer_of(self)
        for name in ("learning_rate", "weight_decay"):
            non_negative(name, getattr(self, name))
        part = non_negative("validation_fraction", self.validation_fraction)
        if not 0 < part < 1:
            raise ValueError(f"validation_fraction: expected a part between 0 and 1, got {part}")
        most = _validation.integer(self.max_iter, "max_iter", 1)
        if group.size > 1 and self.shards is None:
            raise ValueError(
                f"shards: expected a power of two in a group of {group.size} processes, got None"
            )
        return Plan(
            batch_size=_validation.integer(self.batch_size, "batch_size", 1),
            max_iter=1 if partial else most,
            patience=_validation.integer(self.n_iter_no_change, "n_iter_no_change", 1),
            tol=non_negative("tol", self.tol),
            clip_norm=None if self.clip_norm is None else bound("clip_norm", self.clip_norm),
            shards=None if self.shards is None else Shards(0, self.shards).count,
        )

    def _read(self, X: Any, network: Network | None) -> Sequences:
        """X, for this network or, if there is none, for a new one."""
        if network is None:
            return read(self, X, (np.float64, np.float32), None)
        return read(self, X, (network.layer.dtype,), network.layer.input_size)

    def _new_network(self, sequences: Sequences, rng: np.random.RandomState) -> Network:
        layer = CELLS[self.cell](
            sequences.width,
            self.hidden_size,
            self.num_layers,
            batch_first=True,
            dropout=self.dropout,
            bidirectional=self.bidirectional,
            dtype=sequences.steps.dtype,
            seed=int(rng.randint(MOST_SEED)),
        )
        readout = EveryStep() if self.output == "steps" else LastStep()
        return Network(layer, self._outputs(), rng, readout)

    def _scaled(self, examples: Examples, plan: Plan, partial: bool) -> Examples:
        """With weights whose sums over sequences have the mean 1, as training expects.

        In one part of more, they are taken for weights of the mean 1.
        """
        n = len(examples.weights)
        # In one batch, the gradient is that of the whole: what is equal need not be repeated.
        if len(examples) <= plan.batch_size and not self.early_stopping:
            examples = examples.merged()
        factor = len(examples) / (n if partial else examples.weights.sum())
        return replace(examples, weights=examples.weights * factor)

    def _split(self, examples: Examples, rng: np.random.RandomState) -> tuple[Array, Array]:
        """Which examples to train on, and which to hold out."""
        rows: Array
        held: Array
        rows, held = train_test_split(
            np.arange(len(examples)),
            test_size=self.validation_fraction,
            random_state=rng,
            stratify=examples.targets if self._stratified and not examples.of_steps else None,
        )
        if len(held) < 2:
            raise ValueError(
                f"validation_fraction: expected at least 2 sequences, got {len(held)}: "
                "increase it, or give more of them"
            )
        return rows, held

    def _learned(self, network: Network) -> None:
        """Make it the network that predicts."""
        self._network, self.lstm_, self.out_ = network, network.layer, network.out

    def _tell(self, history: History, going_on: bool) -> None:
        """Set the attributes that say how it was fitted."""
        self.n_iter_ = len(history.losses)
        self.loss_curve_ = (self.loss_curve_ if going_on else []) + history.losses
        self.validation_scores_ = history.scores if self.early_stopping else None
        self.best_validation_score_ = max(history.scores, default=None)
        if history.interrupted:
            warnings.warn(
                f"interrupted after {self.n_iter_} whole epochs: what was learned is kept",
                stacklevel=4,  # of fit's caller
            )

    def _predict(self, X: Any, values: Callable[[Array], Array]) -> Any:
        """Values (N, ...) of the network's outputs (N, K), for X; those of steps in its form."""
        check_is_fitted(self, "lstm_")
        if self._held_out is not None and X is self._held_out.X:
            return values(self._held_out.outputs)
        sequences = self._read(X, self._network)
        found = values(self._network.outputs(sequences))
        return sequences.as_given(found) if self._network.readout.of_steps else found

    def _compared(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Targets, predictions and weights for a metric; of all steps, one after another."""
        predicted: Any = self.predict(X)
        of_scorer = self._held_out is not None and X is self._held_out.X
        if of_scorer or not self._network.readout.of_steps:
            return y, predicted, sample_weight
        lengths = [len(each) for each in predicted]
        check_consistent_length(predicted, y, sample_weight)
        if sample_weight is not None:
            sample_weight = np.repeat(sample_weight, lengths)
        return of_steps(y, lengths, self._several), np.concatenate(predicted), sample_weight
