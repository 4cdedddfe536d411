"""Estimators fitted by several processes together: the bits of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("sklearn")

from sklearn.base import clone
from support.groups import outcomes

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

Array = NDArray[Any]

pytestmark = pytest.mark.peer

N = 45
ESTIMATORS = {
    "classifier": LSTMClassifier(
        7, num_layers=2, dropout=0.3, batch_size=20, max_iter=3, shards=8, random_state=4
    ),
    "regressor": LSTMRegressor(
        7, batch_size=20, max_iter=3, early_stopping=True, shards=4, random_state=4
    ),
}


def data(kind: str) -> tuple[list[Array], Array]:
    """Sequences of different lengths."""
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(length, 2)) for length in rng.integers(1, 9, N)]
    y = np.array([x.sum() for x in X])
    return X, y > 0 if kind == "classifier" else y


def learned(estimator: Any) -> list[bytes]:
    history = np.array([*estimator.loss_curve_, *(estimator.validation_scores_ or [])])
    weights = [p.flat.tobytes() for p in (estimator.lstm_.parameters, estimator.out_)]
    return [*weights, history.tobytes()]


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_any_number_of_processes(kind: str) -> None:
    X, y = data(kind)
    alone = learned(clone(ESTIMATORS[kind]).fit(X, y))

    def fit(group: Any) -> list[bytes]:
        with group:
            return learned(clone(ESTIMATORS[kind]).fit(X, y))

    for size in (1, 2, 3, 5, 9):
        assert outcomes(size, fit) == [alone] * size


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_without_shards_it_is_nearly_the_same(kind: str) -> None:
    X, y = data(kind)
    estimator = clone(ESTIMATORS[kind]).set_params(dropout=0.0)
    with_shards = estimator.fit(X, y).lstm_.parameters.flat.copy()
    without = estimator.set_params(shards=None).fit(X, y).lstm_.parameters.flat
    np.testing.assert_allclose(with_shards, without, rtol=0, atol=1e-9)
    assert with_shards.tobytes() != without.tobytes()


@pytest.mark.parametrize(
    "state", [None, np.random.RandomState(3), np.random.RandomState(np.random.PCG64(3))]
)
def test_random_choices_are_those_of_process_0(state: Any) -> None:
    X, y = data("classifier")

    def fit(group: Any) -> list[bytes]:
        own = state if group.rank == 0 or state is None else np.random.RandomState(7)
        estimator = clone(ESTIMATORS["classifier"]).set_params(verbose=group.rank == 5)
        with group:
            estimator.set_params(random_state=own).fit(X, y).partial_fit(X, y)
        return learned(estimator)

    first, second, third = outcomes(3, fit)
    assert isinstance(first, list)
    assert first == second == third


def test_partial_fit_goes_on_as_process_0_would() -> None:
    """Its weights, its optimizer and its random choices, whatever the others had done before."""
    X, y = data("classifier")
    alone = clone(ESTIMATORS["classifier"]).fit(X, y)
    goes_on = learned(alone.partial_fit(X, y))

    def fit(group: Any) -> list[bytes]:
        estimator = clone(ESTIMATORS["classifier"]).set_params(max_iter=3 + group.rank)
        estimator.fit(X, y).set_params(max_iter=3)
        with group:
            found = learned(estimator.partial_fit(X, y))
        return [*found[:2], goes_on[2] if group.rank else found[2]]

    assert outcomes(2, fit) == [goes_on] * 2


def test_an_error_while_process_0_scores_is_one_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data("regressor")

    def fails(self: Any, *arguments: Any) -> float:
        raise MemoryError("of process 0")

    monkeypatch.setattr(LSTMRegressor, "_score", fails)

    def fit(group: Any) -> None:
        with group:
            clone(ESTIMATORS["regressor"]).fit(X, y)

    first, second = outcomes(2, fit)
    assert isinstance(first, MemoryError)
    assert str(second) == "rank 0: MemoryError: of process 0"


def test_other_data_is_an_error_in_all() -> None:
    X, y = data("regressor")

    def fit(group: Any) -> None:
        with group:
            clone(ESTIMATORS["regressor"]).fit(X, y + (group.rank == 1))

    for error in outcomes(3, fit):
        assert isinstance(error, RuntimeError)
        assert "X, y and sample_weight: expected the same bits" in str(error)
        assert "on rank 1" in str(error)


def test_other_parameters_are_an_error_in_all() -> None:
    X, y = data("regressor")

    def fit(group: Any) -> None:
        with group:
            clone(ESTIMATORS["regressor"]).set_params(tol=group.rank * 0.1).fit(X, y)

    for error in outcomes(2, fit):
        assert isinstance(error, ValueError)
        assert "tol: 0.0 on rank 0, 0.1 on rank 1" in str(error)


def test_an_error_of_one_is_one_of_all() -> None:
    X, y = data("classifier")

    def fit(group: Any) -> None:
        with group:
            clone(ESTIMATORS["classifier"]).fit(X, None if group.rank == 1 else y)

    first, second = outcomes(2, fit)
    assert isinstance(second, ValueError)
    assert isinstance(first, RuntimeError)
    assert "rank 1: ValueError: " in str(first)


def test_a_group_needs_shards() -> None:
    X, y = data("classifier")

    def fit(group: Any) -> None:
        with group:
            clone(ESTIMATORS["classifier"]).set_params(shards=None).fit(X, y)

    for error in outcomes(2, fit):
        assert isinstance(error, ValueError)
        assert str(error).startswith("shards: expected a power of two in a group of 2 processes")
    with pytest.raises(ValueError, match="shards: expected a power of two, got 3"):
        clone(ESTIMATORS["classifier"]).set_params(shards=3).fit(X, y)
