"""`fastlstm.training.fit`: the loop around the gradients of a model of somebody's own."""

from __future__ import annotations

import copy
import functools
import math
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.compare import same_bits

import fastlstm
from fastlstm import optim, training
from fastlstm._parameters import Gradients
from fastlstm.training import History, Record
from fastlstm.training._examples import examples_of

Array = np.ndarray[Any, Any]


class Line:
    """y = w x + b, of one number, with the gradients of half the mean squared error."""

    def __init__(self) -> None:
        self.parameters = fastlstm._parameters.Parameters({"w": (1,), "b": (1,)}, "float64")
        self.batches: list[tuple[Any, ...]] = []

    def gradients(self, x: Array, y: Array) -> tuple[float, Gradients]:
        self.batches.append((x, y))
        error = self.parameters["w"] * x + self.parameters["b"] - y
        flat = np.array([(error * x).mean(), error.mean()])
        return float((error**2).mean() / 2), Gradients({"w": (1,), "b": (1,)}, flat)


def line_data(n: int = 20) -> tuple[Array, Array]:
    x = np.random.default_rng(5).standard_normal(n)
    return x, 3 * x - 1


def test_it_learns() -> None:
    model, data = Line(), line_data()
    history = training.fit(model, model.gradients, data, epochs=60, batch_size=8, lr=0.1, seed=0)
    np.testing.assert_allclose(model.parameters.flat, [3, -1], atol=0.05)
    assert [r.epoch for r in history.records] == list(range(1, 61))
    assert [r.step for r in history.records] == list(range(3, 181, 3))
    assert history.records[-1].done == 1
    assert not history.stopped
    assert history.records[-1].loss < 1e-3 < history.records[0].loss
    assert all(math.isnan(r.score) for r in history.records)


def test_epochs_are_permutations() -> None:
    model, (x, y) = Line(), line_data()
    training.fit(model, model.gradients, (x, y), epochs=2, batch_size=8, seed=0)
    assert [len(xs) for xs, _ in model.batches] == [8, 8, 4] * 2
    epochs = [np.concatenate([xs for xs, _ in model.batches[i : i + 3]]) for i in (0, 3)]
    for xs in epochs:
        assert same_bits(np.sort(xs), np.sort(x))
    assert not same_bits(epochs[0], epochs[1])
    for xs, ys in model.batches:
        assert same_bits(3 * xs - 1, ys)


def test_the_loss_of_an_epoch_is_the_mean_over_examples() -> None:
    model, (x, y) = Line(), line_data()
    history = training.fit(model, model.gradients, (x, y), epochs=1, batch_size=8, lr=0.0)
    assert history.records[0].loss == pytest.approx((y**2).mean() / 2, rel=1e-14)


def test_lists_stay_lists() -> None:
    """Sequences of different lengths."""
    seen: list[Any] = []
    weight = np.zeros(1)

    def gradients(items: list[Array], numbers: Array) -> tuple[float, Array]:
        assert isinstance(items, list)
        seen.extend((len(item), number) for item, number in zip(items, numbers, strict=True))
        return 1.0, np.ones(1)

    items = [np.zeros(n) for n in range(1, 6)]
    training.fit([weight], lambda *b: (gradients(*b)[0], [np.ones(1)]), (items, range(1, 6)),
                 epochs=1, batch_size=2, optimizer=None, lr=0.5)  # fmt: skip
    assert sorted(seen) == [(n, n) for n in range(1, 6)]
    assert weight[0] == pytest.approx(-1.5)  # three steps of Adam


def test_batches_that_a_function_makes() -> None:
    model, drawn = Line(), []

    def make(rng: np.random.Generator) -> tuple[Array, Array]:
        x = rng.standard_normal(4)
        drawn.append(x)
        return x, 2 * x

    history = training.fit(model, model.gradients, make, steps=20, lr=0.1, seed=3)
    assert len(drawn) == 20
    assert same_bits(drawn[0], np.random.default_rng(3).standard_normal(4))
    assert [r.step for r in history.records] == list(range(2, 21, 2))  # ten evaluations
    assert {r.epoch for r in history.records} == {0}


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        (lambda done: 1 + done, [1, 1.25, 1.5, 1.75]),
    ],
)
def test_schedules(schedule: Any, rates: list[float]) -> None:
    model, (x, y) = Line(), line_data()
    optimizer, found = optim.SGD(model.parameters, lr=0.2), []

    def gradients(*batch: Any) -> Any:
        found.append(optimizer.lr)
        return model.gradients(*batch)

    training.fit(model, gradients, (x, y), steps=4, optimizer=optimizer, schedule=schedule)
    np.testing.assert_allclose(found, np.array(rates) * 0.2, rtol=1e-12)
    assert optimizer.lr == 0.2  # for another run


def test_an_optimizer_of_the_user() -> None:
    model, (x, y) = Line(), line_data()
    training.fit(
        model, model.gradients, (x, y), steps=1, optimizer=optim.SGD(model.parameters, 1.0)
    )
    np.testing.assert_allclose(model.parameters.flat, [(x * y).mean(), y.mean()], rtol=1e-12)


def test_gradients_are_clipped() -> None:
    model, (x, y) = Line(), line_data()
    sgd = optim.SGD(model.parameters, 1.0)
    training.fit(model, model.gradients, (x, y), steps=1, optimizer=sgd, clip_norm=0.5)
    assert np.linalg.norm(model.parameters.flat) == pytest.approx(0.5, rel=1e-5)


def test_patience_ends_it_and_the_best_weights_stay() -> None:
    model, data = Line(), line_data()
    scores, weights = iter([1.0, 3.0, 2.9, 3.05, 2.0, 9.0]), []

    def evaluate() -> float:
        weights.append(model.parameters.flat.copy())
        return next(scores)

    history = training.fit(model, model.gradients, data, epochs=6, lr=0.1, evaluate=evaluate,
                           patience=3, tol=0.1, seed=1)  # fmt: skip
    # 3.05 is the best, but no improvement by 0.1 of 3.
    assert [r.score for r in history.records] == [1.0, 3.0, 2.9, 3.05, 2.0]
    assert same_bits(model.parameters.flat, weights[3])
    assert not same_bits(weights[3], weights[4])
    assert not history.stopped


def test_without_patience_the_last_weights_stay() -> None:
    model, data = Line(), line_data()
    scores, weights = iter([3.0, 2.0, 1.0]), []

    def evaluate() -> float:
        weights.append(model.parameters.flat.copy())
        return next(scores)

    training.fit(model, model.gradients, data, epochs=3, evaluate=evaluate)
    assert same_bits(model.parameters.flat, weights[2])


def test_patience_without_a_score_waits_for_the_loss() -> None:
    losses = iter([5.0, 4.0, 3.0, 3.0, 3.5, 1.0])
    weight = np.zeros(1)
    history = training.fit([weight], lambda x: (next(losses), [np.ones(1)]), (np.zeros(3),),
                           epochs=6, patience=2, tol=0.0)  # fmt: skip
    assert [r.loss for r in history.records] == [5.0, 4.0, 3.0, 3.0, 3.5]
    assert weight[0] == pytest.approx(-5e-3)


class Recurrent:
    """An LSTM with dropout, on whose last hidden state a number is read."""

    def __init__(self, seed: int) -> None:
        self.lstm = fastlstm.LSTM(2, 6, 2, dropout=0.4, batch_first=True, seed=seed)
        self.out = {"w": np.ones(6, np.float32)}
        self.model: list[Any] = [self.lstm, self.out]

    def gradients(self, x: Array, y: Array) -> tuple[float, list[Any]]:
        out, _, tape = self.lstm.forward(x)
        error = out[:, -1] @ self.out["w"] - y
        dout = np.zeros_like(out)
        dout[:, -1] = error[:, None] * self.out["w"] / len(y)
        _, _, grads = self.lstm.backward(tape, dout)
        return float((error**2).mean() / 2), [grads, {"w": (error @ out[:, -1]) / len(y)}]

    @property
    def weights(self) -> Array:
        return np.concatenate([self.lstm.parameters.flat, self.out["w"]])


def recurrent_data() -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    return rng.standard_normal((30, 5, 2), np.float32), rng.standard_normal(30).astype(np.float32)


@pytest.mark.parametrize("stop", [1, 5, 8, 14])  # of 15, five in an epoch
@pytest.mark.parametrize("made", [False, True], ids=["examples", "function"])
def test_a_run_goes_on_with_the_same_bits(tmp_path: Path, stop: int, made: bool) -> None:
    """Order, dropout, optimizer, best weights: whatever it was stopped at."""
    X, y = recurrent_data()
    length: dict[str, Any] = {"steps": 15} if made else {"epochs": 3}

    def make(rng: np.random.Generator) -> tuple[Array, ...]:
        rows = rng.integers(0, 30, 6)
        return X[rows], y[rows]

    def run(seed: int, calls: int | None, **options: Any) -> tuple[Recurrent, History]:
        model = Recurrent(seed)
        count = 0

        def gradients(*batch: Array) -> Any:
            nonlocal count
            count += 1
            if count == calls:
                signal.raise_signal(signal.SIGINT)
            return model.gradients(*batch)

        score = lambda: -abs(float(model.weights[3]) - 0.2)  # noqa: E731
        history = training.fit(model.model, gradients, make if made else (X, y), batch_size=6,
                               seed=4, lr=0.05, schedule="cosine", clip_norm=1.0, evaluate=score,
                               patience=9, **length, **options)  # fmt: skip
        return model, history

    whole, history = run(1, None)
    path = tmp_path / "run.ckpt"
    part, first = run(1, stop, checkpoint=path, resume="auto")
    assert first.stopped
    again, second = run(7, None, checkpoint=path, resume="auto")
    assert same_bits(again.weights, whole.weights)
    assert not same_bits(part.weights, whole.weights)
    for ours, theirs in zip(second.records, history.records, strict=True):
        assert ours[:2] + ours[3:] == theirs[:2] + theirs[3:]


def test_the_best_weights_come_from_before_the_stop(tmp_path: Path) -> None:
    model, data = Line(), line_data()
    scores, first = iter([3.0, 1.0, 2.0]), []

    def evaluate() -> float:
        first.append(model.parameters.flat.copy())
        return next(scores)

    def gradients(*batch: Array) -> Any:
        if len(model.batches) == 4:  # of the second epoch
            signal.raise_signal(signal.SIGINT)
        return model.gradients(*batch)

    def run(gradients: Any) -> History:
        return training.fit(
            model,
            gradients,
            data,
            epochs=3,
            batch_size=8,
            lr=0.1,
            evaluate=evaluate,
            patience=5,
            seed=0,
            checkpoint=tmp_path / "x",
            resume="auto",
        )

    assert run(gradients).stopped
    scores = iter([1.0, 2.0])  # the record of the stop is not one of the run that goes on
    model = Line()
    history = run(model.gradients)
    assert [r.score for r in history.records] == [3.0, 1.0, 2.0]
    assert same_bits(model.parameters.flat, first[0])


def test_the_end_has_a_record_within_an_epoch() -> None:
    model, data = Line(), line_data()
    history = training.fit(model, model.gradients, data, steps=4, batch_size=8)
    assert [(r.step, r.epoch, r.done) for r in history.records] == [(3, 1, 0.75), (4, 1, 1.0)]
    history = training.fit(model, model.gradients, data, epochs=1.5, batch_size=8)
    assert [r.step for r in history.records] == [3, 5]


def test_another_run_is_refused(tmp_path: Path) -> None:
    X, y = recurrent_data()

    def run(X: Array, **options: Any) -> None:
        model = Recurrent(1)
        options = {"epochs": 2, "batch_size": 8, **options}
        training.fit(model.model, model.gradients, (X, y), checkpoint=tmp_path / "x",
                     resume="auto", **options)  # fmt: skip

    run(X)
    run(X)
    for options in ({"batch_size": 9}, {"lr": 0.1}, {"schedule": "linear"}, {"clip_norm": 1.0}):
        name = next(iter(options))
        with pytest.raises(ValueError, match=f"^{name}: expected .* as in the checkpoint"):
            run(X, **options)
    with pytest.raises(ValueError, match=r"^data: expected 30 examples with hash .*, got 30 exa"):
        run(X + 1)
    model = Recurrent(1)
    adam = optim.Adam([model.lstm.parameters, model.out], eps=1e-7)
    message = r"^optimizer: expected Adam\(\) as in the checkpoint .*, got Adam\(eps=1e-07\)"
    with pytest.raises(ValueError, match=message):
        training.fit(model.model, model.gradients, (X, y), epochs=2, batch_size=8,
                     checkpoint=tmp_path / "x", resume="auto", optimizer=adam)  # fmt: skip


def test_data_are_told_apart_to_the_last_number() -> None:
    """Whatever they are: arrays of objects, nested lists, dictionaries with long arrays."""
    long = np.arange(5000.0)
    other = np.where(np.arange(5000) == 2500, 0, long)
    ragged = [[1, 2], [3]]
    pairs: list[tuple[Any, Any]] = [
        (long.astype(object), other.astype(object)),
        ([{"x": long}], [{"x": other}]),
        ([ragged, ragged], [ragged, [[1, 2], [4]]]),
        ([np.zeros(3), np.zeros(2)], [np.zeros(2), np.zeros(3)]),
        ([(1, "a")], [(1, "b")]),
        ([None, 1], [1, None]),
    ]
    for first, second in pairs:
        one, again, two = (
            examples_of((copy.deepcopy(part),), 1, 0).fingerprint()
            for part in (first, first, second)
        )
        assert one == again
        assert one != two


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    model, data = Line(), line_data()
    told: list[Record] = []
    training.fit(model, model.gradients, data, epochs=2, batch_size=8, progress=told.append)
    assert [(r.step, r.epoch) for r in told] == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2)]
    assert capsys.readouterr().err == ""
    training.fit(model, model.gradients, data, epochs=2, evaluate=lambda: 0.5, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("100%")
    assert "steps/s, loss " in lines[-1]
    assert lines[-1].endswith(", score 0.5")


def test_a_loss_that_is_not_finite() -> None:
    model, data = Line(), line_data()
    with pytest.raises(FloatingPointError, match="the training loss is nan after 0 steps: try a"):
        training.fit(model, lambda x, y: (math.nan, None), data, epochs=1)
    assert not model.parameters.flat.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": [1, 2]}, "data: expected a tuple of arrays or lists"),
        ({"data": ()}, "data: expected a tuple of arrays or lists"),
        ({"data": (np.zeros(3), np.zeros(4))}, "data: expected the same number .* got 3 and 4"),
        ({"data": (np.zeros(0),)}, "data: expected the same number .* at least one, got 0"),
        ({"data": (3.0,)}, r"data\[0\]: expected an array or a list, got float"),
        ({"data": lambda rng: [1]}, "epochs: expected steps or seconds"),
        ({"data": lambda rng: [1], "epochs": None, "steps": 1}, "data: expected a function that"),
        ({"steps": 3}, "steps, seconds, epochs: expected one of them, got 2"),
        ({"epochs": None}, "steps, seconds, epochs: expected one of them, got 0"),
        ({"epochs": 0}, "epochs: expected a finite number > 0, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"lr": -1}, "lr: expected"),
        (
            {"lr": 0.1, "optimizer": optim.Adam(np.zeros(2))},
            "lr: expected none with optimizer, which has its own, got 0.1",
        ),
        (
            {"optimizer": optim.Adam(np.zeros(2))},
            "optimizer: expected one of all that model has, in its order",
        ),
        ({"optimizer": "adam"}, "optimizer: expected one of fastlstm.optim, got str"),
        ({"schedule": "steps"}, "schedule: expected 'constant', 'linear', 'cosine' or a function"),
        ({"clip_norm": -1}, "clip_norm: expected"),
        ({"evaluations": 0}, "evaluations: expected at least 1, got 0"),
        ({"patience": 0}, "patience: expected at least 1, got 0"),
        ({"tol": -1}, "tol: expected"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"evaluate": 3}, "evaluate: expected a function, got int"),
        ({"schedule": lambda done: None}, "schedule: expected it to return a finite .*, got None"),
        ({"schedule": lambda done: math.nan}, "schedule: expected it to return a .*, got nan"),
        ({"gradients": lambda x, y: (None, 0)}, "gradients: expected the loss .*, got None"),
        ({"gradients": None}, "gradients: expected a function, got NoneType"),
        ({"gradients": lambda x, y: 3.0}, r"gradients: expected it to return \(loss, grads\), got"),
        ({"gradients": lambda x, y: (np.zeros(3), 0)}, r"gradients: .* array of shape \(3,\)"),
        ({"model": "lstm"}, "model: expected a layer, a head, Parameters or an array, got str"),
        ({"model": [np.zeros(2), 5]}, r"model\[1\]: expected a layer, a head, .* got int"),
        ({"model": {"a": 5}}, r"model\['a'\]: expected an array, got int"),
        ({"resume": True}, "checkpoint: expected a path with resume, got None"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    model = Line()
    arguments = {"model": model, "gradients": model.gradients, "data": line_data(), "epochs": 1}
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        training.fit(**{**arguments, **options})
    assert not model.parameters.flat.any()


def test_an_evaluation_that_returns_nothing() -> None:
    model = Line()
    with pytest.raises(TypeError, match=r"^evaluate: expected it to return a number, got None"):
        training.fit(model, model.gradients, line_data(), epochs=1, evaluate=lambda: None)  # type: ignore[arg-type,return-value]


def test_an_optimizer_of_the_same_arrays_in_another_order() -> None:
    a, b = np.zeros(2), np.zeros(2)
    with pytest.raises(ValueError, match="in its order"):
        training.fit([a, b], lambda x: (0.0, [a, b]), (np.zeros(2),), epochs=1,
                     optimizer=optim.Adam([b, a]))  # fmt: skip


@pytest.mark.parametrize("given", [False, True], ids=["default", "own optimizer"])
def test_an_array_that_is_replaced_is_noticed(given: bool) -> None:
    model = {"w": np.zeros(2)}

    def gradients(x: Array) -> Any:
        model["w"] = model["w"] - 0.1  # not in place
        return 0.0, {"w": np.ones(2)}

    options = {"optimizer": optim.SGD(model, 0.1)} if given else {}
    with pytest.raises(ValueError, match=r"\['w'\]: expected the array that the optimizer was g"):
        training.fit(model, gradients, (np.zeros(2),), epochs=1, **options)  # type: ignore[arg-type]


class Warmup:
    """A schedule that cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, done: float) -> float:
        return min(1.0, 10 * done + 0.1)


def test_a_schedule_is_any_callable(tmp_path: Path) -> None:
    for schedule in (Warmup(), functools.partial(max, 0.5)):
        model = Line()
        training.fit(model, model.gradients, line_data(), epochs=1, schedule=schedule,
                     checkpoint=tmp_path / type(schedule).__name__)  # fmt: skip


def test_a_quantized_layer_is_refused() -> None:
    lstm = fastlstm.LSTM(2, 3).quantize("int8")
    with pytest.raises(ValueError, match=r"^fit: expected weights of float32, got int8"):
        training.fit([lstm], lambda x: (0.0, []), (np.zeros(2),), epochs=1)


def test_history(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [Record(10, 1, 0.5, 0.5, 2.1, 0.7), Record(20, 2, 1.0, 1.0, 1.6, 0.8)]
    history = History(records)
    assert repr(history) == "History(2 records, 20 steps, loss 1.6, score 0.8, 1.0 s)"
    figure = history.plot("epoch")
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "score"]
    assert figure.axes[-1].get_xlabel() == "epochs"
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), [0.7, 0.8])
    plain = History([r._replace(score=math.nan) for r in records])
    assert [axes.get_ylabel() for axes in plain.plot().axes] == ["loss"]
    with pytest.raises(ValueError, match="against: expected 'seconds', 'step' or 'epoch', got 'x'"):
        history.plot("x")
    monkeypatch.setattr("fastlstm.training._history._can_draw", lambda: False)
    assert "<td>loss</td><td>score</td>" in str(history._repr_html_())
    assert "<td>1.6</td><td>0.8</td>" in str(history._repr_html_())
