"""The tagger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fastlstm import _validation
from fastlstm._layers.cells import CELLS
from fastlstm._parameters import Parameters
from fastlstm.distributed._group import Group
from fastlstm.heads import CRF
from fastlstm.sklearn._classifier import LSTMClassifier
from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import MOST_SEED, Network
from fastlstm.sklearn._sequences import Sequences, axes_of, is_list
from fastlstm.sklearn._tagging import TaggingNetwork
from fastlstm.sklearn._tokens import Tokens, Vocabulary, are_tokens, read_tokens
from fastlstm.sklearn._training import Plan

Array = NDArray[Any]


class LSTMTagger(LSTMClassifier):
    """Tag sequences, of tokens or of features: BiLSTM -> linear -> CRF.

    With a conditional random field (`fastlstm.heads.CRF`) a tag depends on its neighbours, and what
    is predicted is the most probable sequence of tags; without one, each step has its most probable
    tag.  Trained on the likelihood of the tags by Adam, in shuffled batches.  The same
    `random_state` gives the same bits, whatever the number of threads.

    Parameters
    ----------
    hidden_size : int, default 64
        Hidden units of each layer and direction, H.
    crf : bool, default True
        Whether tags depend on their neighbours.
    embedding_size : int, default 32
        Numbers that stand for a token; of features there is no embedding.
    bidirectional : bool, default True
        A tag depends on what follows, too.  Otherwise, and without `crf`, only on what came up to
        it.
    num_layers, dropout, cell, learning_rate, max_iter, clip_norm, weight_decay, random_state
    warm_start, verbose
        As for `LSTMClassifier`.
    batch_size : int, default 16
        Sequences for each update.
    early_stopping, scoring, validation_fraction, n_iter_no_change, tol
        As for `LSTMClassifier`; the score is the share of tags that are right.

    Attributes
    ----------
    classes_ : (K,) array
        The tags.
    vocabulary_ : dict
        Of token to number, from 1 on; only of tokens.  Those it does not have are read as 0, which
        stands for nothing that is known.
    lstm_ : LSTM, GRU, RNN or SLSTM
        The layer, batch first.
    embedding_ : Parameters, or None
        ``weight`` (tokens + 1, embedding_size).
    out_ : Parameters
        The linear layer: ``weight`` (K, D*H) and ``bias`` (K,).
    crf_ : CRF, or None
        Look at ``crf_.parameters["transitions"]``: which tag is followed by which.
    n_features_in_ : int
        Features of a step; only of features.
    n_iter_, loss_curve_, validation_scores_, best_validation_score_
        As of `LSTMClassifier`; the loss is the mean over all steps.

    Examples
    --------
    Which words are names?  Those with a Mr or a Mrs before them, here:

    >>> import numpy as np
    >>> from fastlstm.sklearn import LSTMTagger
    >>> rng = np.random.default_rng(0)
    >>> words = np.array(["Mr", "Mrs", "Brown", "Green", "sees", "a"])
    >>> X = [words[rng.integers(6, size=n)].tolist() for n in rng.integers(3, 9, size=200)]
    >>> def tags(sentence):
    ...     before = ["", *sentence[:-1]]
    ...     return ["name" if word.startswith("M") else "-" for word in before]
    >>> y = [tags(sentence) for sentence in X]
    >>> tagger = LSTMTagger(16, random_state=0).fit(X, y)
    >>> tagger.predict([["a", "Brown", "sees", "Mr", "Green"]])[0].tolist()
    ['-', '-', '-', '-', 'name']
    >>> tagger.score(X, y) > 0.99, tagger.sequence_score(X, y) > 0.99
    (True, True)
    """

    _stratified: ClassVar[bool] = False
    # Parameters of the other estimators that a tagger has not.
    n_timesteps = None
    output = "steps"
    shards = None
    class_weight = None

    _network: TaggingNetwork
    vocabulary_: Vocabulary

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        crf: bool = True,
        embedding_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
        cell: str = "lstm",
        learning_rate: float = 0.01,
        batch_size: int = 16,
        max_iter: int = 50,
        early_stopping: bool = False,
        scoring: Any = None,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        clip_norm: float | None = 1.0,
        weight_decay: float = 0.0,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
    ) -> None:
        self.hidden_size = hidden_size
        self.crf = crf
        self.embedding_size = embedding_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.cell = cell
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
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:  # type: ignore[override]  # without weights
        """Train on sequences.

        Ctrl-C ends it after the current batch, with a warning; what was learned is kept.

        Parameters
        ----------
        X : list of n sequences of tokens, or of n array-likes (T_i, F), or (n, T, F) array-like
            Tokens are words, characters, numbers: anything that a dictionary can have as a key.  A
            text is a sequence of its characters.
        y : list of n sequences of T_i tags, or (n, T) array-like
            A text is a sequence of tags of one character.  For the cross-validation of scikit-learn
            each has to be an array, or the folds given, as ``cv=KFold(3)``.

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
        return self._learn(X, y, None, partial=False)

    def partial_fit(  # type: ignore[override]  # without weights
        self, X: Any, y: Any, classes: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch of these sequences, going on from the present weights.

        Parameters
        ----------
        X, y
            As for `fit`.  Tokens that the first call did not have stay unknown.
        classes : (K,) array-like
            All tags that there will be; needed in the first call.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `fit` does; if `classes` are missing, or not those of the first call; for
            `early_stopping`, which needs all the data.

        Examples
        --------
        >>> from fastlstm.sklearn import LSTMTagger
        >>> tagger = LSTMTagger(4, random_state=0)
        >>> for X, y in [(["ab", "b"], [[0, 1], [1]]), (["ba"], [[1, 0]])]:
        ...     tagger = tagger.partial_fit(X, y, classes=[0, 1])
        >>> len(tagger.loss_curve_)
        2
        """
        return super().partial_fit(X, y, classes)

    def predict(self, X: Any) -> Any:
        """Return the most probable tags: with a CRF, the most probable sequence of them.

        Parameters
        ----------
        X
            As for `fit`.

        Returns
        -------
        list of n arrays (T_i,), or an array (n, T) if `X` is one
        """
        return self._of_sequences(X, lambda *of: self.classes_[self._network.tags(*of)])

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of `predict_proba`.

        Parameters
        ----------
        X
            As for `fit`.
        """
        return self._of_sequences(X, self._network_log_probabilities)

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each tag at each step, in the order of `classes_`.

        With a CRF, given the whole sequence (its marginals).

        Parameters
        ----------
        X
            As for `fit`.

        Returns
        -------
        list of n arrays (T_i, K), or an array (n, T, K) if `X` is one
        """
        return self._of_sequences(X, lambda *of: np.exp(self._network_log_probabilities(*of)))

    def score(self, X: Any, y: Any) -> float:  # type: ignore[override]  # without weights
        """Return the share of tags that are right, of all steps.

        Parameters
        ----------
        X, y
            As for `fit`.
        """
        return super().score(X, y)

    def sequence_score(self, X: Any, y: Any) -> float:
        """Return the share of sequences all of whose tags are right.

        Parameters
        ----------
        X, y
            As for `fit`.
        """
        labels, predicted, _ = self._compared(X, y, None)
        ends = np.cumsum([len(sequence) for sequence in X])
        right = np.split(np.asarray(labels) == predicted, ends[:-1])
        return float(np.mean([all(tags) for tags in right]))

    def _network_log_probabilities(self, emissions: Array, lengths: Array) -> Array:
        return self._network.log_probabilities(emissions, lengths)

    def _of_sequences(self, X: Any, values: Callable[[Array, Array], Array]) -> Any:
        """Values (N, ...) of emissions (N, K) and lengths (n,), in the form of X."""
        check_is_fitted(self, "lstm_")
        if self._held_out is not None and X is self._held_out.X:
            return values(self._held_out.outputs, np.array([len(sequence) for sequence in X]))
        sequences = self._read(X, self._network)
        found = values(self._network.outputs(sequences), sequences.lengths)
        return sequences.as_given(found)

    def _read(self, X: Any, network: Network | None) -> Sequences:
        X = _listed(X)
        if are_tokens(X):
            return self._read_tokens(X, network)
        if isinstance(network, TaggingNetwork) and network.vocabulary is not None:
            raise ValueError("X: expected sequences of tokens, as in fit, got features")
        if (axes := axes_of(X)) != 3:
            got = f"a list of {axes} axes" if is_list(X) else _validation.shape_text(np.shape(X))
            raise ValueError(
                "X: expected a list of sequences of tokens, a list of arrays (T, F) or an array "
                f"(n, T, F), got {got}"
            )
        return super()._read(X, network)

    def _read_tokens(self, X: Any, network: Network | None) -> Sequences:
        if network is None:
            return read_tokens(X, None)
        assert isinstance(network, TaggingNetwork)
        if network.vocabulary is None:
            raise ValueError("X: expected features (T, F), as in fit, got sequences of tokens")
        return read_tokens(X, network.vocabulary)

    def _new_network(self, sequences: Sequences, rng: np.random.RandomState) -> TaggingNetwork:
        vocabulary = sequences.vocabulary if isinstance(sequences, Tokens) else None
        of_tokens = vocabulary is not None
        width = self.embedding_size if of_tokens else sequences.width
        layer = CELLS[self.cell](
            _validation.integer(width, "embedding_size", 1),
            self.hidden_size,
            self.num_layers,
            batch_first=True,
            dropout=self.dropout,
            bidirectional=self.bidirectional,
            dtype="float32" if of_tokens else sequences.steps.dtype,
            seed=int(rng.randint(MOST_SEED)),
        )
        return TaggingNetwork(layer, self._outputs(), rng, bool(self.crf), vocabulary)

    def _plan(self, partial: bool, group: Group) -> Plan:
        if (partial or self.warm_start) and hasattr(self, "crf_"):
            before = self.crf_ is not None
            if bool(self.crf) != before:
                raise ValueError(f"crf: expected {before} as before, got {self.crf!r}")
        if group.size > 1:
            raise ValueError(
                f"group: expected one process, got {group.size}: a tagger is fitted in one"
            )
        return super()._plan(partial, group)

    def _scaled(self, examples: Examples, plan: Plan, partial: bool) -> Examples:
        """All weights are the same: a step counts as much as any other."""
        weights = np.full_like(examples.weights, len(examples) / len(examples.weights))
        return Examples(examples.sequences, examples.targets, weights, True)

    def _score(self, network: Network, examples: Examples) -> float:
        """The share of tags that are right."""
        assert isinstance(network, TaggingNetwork)
        emissions = network.outputs(examples.sequences)
        tags = network.tags(emissions, examples.sequences.lengths)
        return float((tags == examples.targets).mean())

    def _negative_loss(self, network: Network, examples: Examples) -> float:
        assert isinstance(network, TaggingNetwork)
        emissions = network.outputs(examples.sequences)
        losses = network.losses(emissions, examples.targets, examples.sequences.lengths)
        return float(-losses.sum() / len(examples.targets))

    def _learned(self, network: Network) -> None:
        super()._learned(network)
        assert isinstance(network, TaggingNetwork)
        self.embedding_: Parameters | None = network.embedding
        self.crf_: CRF | None = network.crf
        if network.vocabulary is not None:
            self.vocabulary_ = network.vocabulary
        stale = "vocabulary_" if network.vocabulary is None else "n_features_in_"
        self.__dict__.pop(stale, None)  # of a fit before


def _listed(X: Any) -> Any:
    """Sequences in a series of pandas, or in an array of objects or texts, as a list."""
    if isinstance(X, str):
        raise TypeError(f"X: expected a list of sequences, got a text; put it in one: [{X[:20]!r}]")
    if isinstance(X, list | tuple) and not len(X):
        raise ValueError("X: expected at least one sequence, got none")
    axes, kind = getattr(X, "ndim", 0), getattr(getattr(X, "dtype", None), "kind", "f")
    return list(X) if axes == 1 or (axes == 2 and kind in "OUT") else X
