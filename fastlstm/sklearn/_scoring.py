"""How early stopping scores what is held out: a scorer of scikit-learn, or the loss."""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring, get_scorer
from sklearn.utils import _safe_indexing

from fastlstm.sklearn._examples import Examples
from fastlstm.sklearn._network import Network

Array = NDArray[Any]
Scorer = Callable[..., float]


def scorer_of(estimator: BaseEstimator) -> Scorer | None:
    """What the parameter `scoring` stands for; None for a score that the estimator knows itself."""
    scoring = estimator.scoring
    if scoring is None or (isinstance(scoring, str) and scoring == "loss"):
        return None
    if callable(scoring):
        scorer: Scorer = check_scoring(estimator, scoring)  # refuses metrics, which are no scorers
        return scorer
    try:
        named: Scorer = get_scorer(scoring)
    except ValueError:
        raise ValueError(
            "scoring: expected 'loss', one of sklearn.metrics.get_scorer_names(), "
            f"a callable (estimator, X, y) or None, got {scoring!r}"
        ) from None
    return named


class Given(NamedTuple):
    """What `fit` was given, of which a scorer is shown a part."""

    X: Any
    rows: Array
    """Those that count: numbers of sequences."""
    examples: Examples
    """They, with their targets and weights before any scaling."""
    weighted: bool
    """Whether weights were given."""


def validation(
    estimator: BaseEstimator, network: Network, examples: Examples, given: Given, held: Array
) -> Callable[[], float]:
    """The score of the network as it is whenever that is called; higher is better.

    `held` are the examples to score it by, numbers of both `examples` and ``given.examples``.
    """
    part, scorer = examples.take(held), scorer_of(estimator)
    if scorer is None:
        score = estimator._score if estimator.scoring is None else estimator._negative_loss
        return lambda: score(network, part)
    shown = given.examples.take(held)
    held_out = HeldOut(
        estimator,
        network,
        _safe_indexing(given.X, given.rows[held]),
        estimator._as_y(shown.targets),
        shown.weights if given.weighted else None,
    )
    return lambda: held_out.score(scorer, network.outputs(part.sequences))


class HeldOut:
    """What is held out, for a scorer: its outputs are computed once for all that asks for them.

    Parameters
    ----------
    estimator : BaseEstimator
        What is fitted.  The scorer is given a copy of it, with the network as it is then.
    network : Network
    X : array-like or list
        In the form that `fit` was given.
    y : (N,) or (N, K) array
        Of sequences; or of all their steps, one sequence after another, as the predictions of the
        copy for this very `X`: scorers expect that.
    sample_weight : (N,) array, or None
        None if `fit` was given none: not all scorers take it.
    """

    outputs: Array

    def __init__(
        self,
        estimator: BaseEstimator,
        network: Network,
        X: Any,
        y: Array,
        sample_weight: Array | None,
    ) -> None:
        self.X = X
        self._y = y
        self._weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        self._fitted = copy.copy(estimator)
        self._fitted._learned(network)
        self._fitted._held_out = self

    def score(self, scorer: Scorer, outputs: Array) -> float:
        """What the scorer says of these outputs."""
        self.outputs = outputs
        value = scorer(self._fitted, self.X, self._y, **self._weights)
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"scoring: expected a scorer that returns a number, got {type(value).__name__}"
            )
        if not math.isfinite(value):
            raise ValueError(
                f"scoring: expected a finite score of the {len(outputs)} held-out predictions, "
                f"got {value}"
            )
        return float(value)
