"""What the classifier and the regressor share: parameters, fitting."""

from __future__ import annotations

import copy
import warnings
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted

from fastlstm import _validation
from fastlstm._layers.cells import CELLS, check_cell
from fastlstm._shards import Shards
from fastlstm._validation import bound, non_negative
from fastlstm.distributed._alone import alone
from fastlstm.distributed._group import Group, current
from fastlstm.optim import AdamW
from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import Network
from fastlstm.sklearn._progress import Progress
from fastlstm.sklearn._sequences import Sequences, read
from fastlstm.sklearn._training import History, Learner, Plan, as_process_0, train
from fastlstm.training._together import agree

Array = NDArray[Any]

_MOST_SEED = (1 << 31) - 1
_OF_PROCESS = ("random_state", "verbose")  # parameters that may differ: process 0's are used


class SequenceEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of the estimators; they say what the targets are, and how they are scored."""

    _stratified: ClassVar[bool]  # whether parts of a split have equal shares of each target
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
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
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
        """Targets, (n,) or (n, K); `fresh` if nothing is known of them yet."""
        raise NotImplementedError

    def _prepared(self, examples: Examples, fresh: bool) -> Examples:
        """With the targets and weights that the loss takes."""
        raise NotImplementedError

    def _outputs(self) -> int:
        """How many outputs the network has."""
        raise NotImplementedError

    def _score(self, outputs: Array, examples: Examples) -> float:
        raise NotImplementedError

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
        small._network, small.lstm_, small.out_ = network, network.layer, network.out
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

        def prepare() -> tuple[Plan, Examples, Learner]:
            if going_on:
                method = "partial_fit" if partial else "fit with warm_start"
                self._network.layer._check_trainable(method, "estimator")
            plan = self._plan(partial, group)
            sequences = self._read(X, self._network if going_on else None)
            weights = _sample_weights(sample_weight, len(sequences))
            targets = self._checked(self._required(y, sequences), not going_on, classes)
            # Without a weight, an example is as if it were not there: it fills no place in a batch.
            examples = Examples(sequences, targets, weights).take(np.flatnonzero(weights))
            examples = self._prepared(self._scaled(examples, plan, partial), not going_on)
            return plan, examples, self._learner(sequences, going_on, partial)

        (plan, examples, learner), _ = agree(group, prepare)
        if group.size > 1:
            same = {name: v for name, v in self.get_params().items() if name not in _OF_PROCESS}
            group.check({**same, "goes on": going_on})
            group.check_same(examples.arrays(), "X, y and sample_weight")
            learner = as_process_0(learner, group)
        history = self._train(learner, examples, plan, group)
        self._network, self._optimizer, self._rng = learner
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
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, "
                "but the target y is None"
            )
        check_consistent_length(sequences.starts, y)
        return y

    def _train(self, learner: Learner, examples: Examples, plan: Plan, group: Group) -> History:
        """Hold out what is to be held out, and train on the rest."""
        validate = None
        if self.early_stopping:
            examples, held = self._split(examples, learner.rng)

            def validate() -> float:
                return self._score(learner.network.outputs(held.sequences), held)

        with Progress(plan.max_iter, bool(self.verbose) and group.rank == 0) as report:
            return train(learner, examples, plan, group, validate, report)

    def _plan(self, partial: bool, group: Group) -> Plan:
        """The parameters of the training, checked."""
        if partial and self.early_stopping:
            raise ValueError("early_stopping: expected False for partial_fit, got True")
        check_cell(self.cell, CELLS)
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
            seed=int(rng.randint(_MOST_SEED)),
        )
        return Network(layer, self._outputs(), rng)

    def _scaled(self, examples: Examples, plan: Plan, partial: bool) -> Examples:
        """With weights that have the mean 1; or, in one part of more, as they are."""
        n = len(examples)
        # In one batch, the gradient is that of the whole: what is equal need not be repeated.
        if n <= plan.batch_size and not self.early_stopping:
            examples = examples.merged()
        weights = examples.weights
        factor = len(weights) / (n if partial else weights.sum())
        return Examples(examples.sequences, examples.targets, weights * factor)

    def _split(self, examples: Examples, rng: np.random.RandomState) -> tuple[Examples, Examples]:
        """Examples to train on, and those to hold out."""
        rows, held = train_test_split(
            np.arange(len(examples)),
            test_size=self.validation_fraction,
            random_state=rng,
            stratify=examples.targets if self._stratified else None,
        )
        if len(held) < 2:
            raise ValueError(
                f"validation_fraction: expected at least 2 sequences, got {len(held)}: "
                "increase it, or give more of them"
            )
        return examples.take(rows), examples.take(held)

    def _tell(self, history: History, going_on: bool) -> None:
        """Set the attributes of a fitted estimator."""
        self.lstm_ = self._network.layer
        self.out_ = self._network.out
        self.n_iter_ = len(history.losses)
        self.loss_curve_ = (self.loss_curve_ if going_on else []) + history.losses
        self.validation_scores_ = history.scores if self.early_stopping else None
        self.best_validation_score_ = max(history.scores, default=None)
        if history.interrupted:
            warnings.warn(
                f"interrupted after {self.n_iter_} whole epochs: what was learned is kept",
                stacklevel=4,  # of fit's caller
            )

    def _predict(self, X: Any) -> Array:
        """(n, K) array: the outputs of the network."""
        check_is_fitted(self, "lstm_")
        outputs: Array = self._network.outputs(self._read(X, self._network))
        return outputs


def _sample_weights(value: Any, n: int) -> Array:
    """(n,) array of float64; ones if there is none."""
    if value is None:
        return np.ones(n)
    weights: Array = check_array(
        value, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weights.shape != (n,):
        shape = _validation.shape_text(weights.shape)
        raise ValueError(f"sample_weight: expected ({n},), got {shape}")
    if weights.min() < 0:
        raise ValueError(f"sample_weight: expected no negative weights, got {weights.min()}")
    if weights.max() == 0:
        raise ValueError("sample_weight: expected a weight that is not zero")
    return weights
