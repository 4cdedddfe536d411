"""A model of Keras, with its recurrent layers taken over: the same predictions, in less time.

    KERAS_BACKEND=jax python examples/keras_weights.py

The model counts: it says after each step whether more ones than minus ones have come so far.  It is
trained with Keras; then its two LSTM layers become one layer here, with the same weights, and the
weights go back into an untrained copy of the model, which then predicts what the trained one does.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")

FEATURES, HIDDEN, LENGTH, BATCH = 3, 32, 50, 64


def model_of(keras: Any) -> Any:
    """Two LSTM layers and a probability for each step."""
    return keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            keras.layers.LSTM(HIDDEN, return_sequences=True),
            keras.layers.LSTM(HIDDEN, return_sequences=True),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def sequences(rng: np.random.Generator, rows: int) -> tuple[Any, Any]:
    """x (rows, LENGTH, 3), whose first feature counts, and answers (rows, LENGTH, 1)."""
    x = rng.choice([-1.0, 0.0, 1.0], size=(rows, LENGTH, FEATURES)).astype(np.float32)
    return x, (x[:, :, :1].cumsum(axis=1) > 0).astype(np.float32)


def best_time(call: Callable[[], Any], calls: int) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    times = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        np.asarray(call())  # waits for results that are computed later
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    """Train, carry over, compare predictions and times, carry back."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300, help="updates in training")
    parser.add_argument("--calls", type=int, default=20, help="calls that are timed")
    args = parser.parse_args()

    import keras  # --help should not wait for it

    from fastlstm.keras import from_keras, to_keras_weights

    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = model_of(keras)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy")
    model.fit(*sequences(rng, args.steps * BATCH), batch_size=BATCH, verbose=0)

    *recurrent, dense = model.layers
    lstm = from_keras(recurrent)
    weight, bias = dense.get_weights()

    def predict(x: Any) -> Any:
        y, _ = lstm(x)
        return 1 / (1 + np.exp(-(y @ weight + bias)))

    x, answers = sequences(rng, 500)
    theirs, ours = model.predict(x, verbose=0), predict(x)
    print(f"{lstm} of {len(recurrent)} layers of Keras ({keras.backend.backend()})")
    print(f"right answers: {np.mean((ours > 0.5) == answers):.1%}")
    print(f"largest difference of two predictions: {np.abs(theirs - ours).max():.1e}")

    copy = model_of(keras)
    copy.set_weights([w for layer in to_keras_weights(lstm) for w in layer] + [weight, bias])
    same = np.array_equal(copy.predict(x, verbose=0), theirs)
    print(f"weights carried back: {'the same' if same else 'other'} predictions of Keras")

    print("microseconds for each step of a sequence:")
    for rows in (1, BATCH):
        few = x[:rows]
        calls = {
            "Keras predict_on_batch": partial(model.predict_on_batch, few),
            "fastlstm": partial(predict, few),
        }
        for name, call in calls.items():
            seconds = best_time(call, args.calls)
            print(f"  batch of {rows:2}  {name:22} {1e6 * seconds / LENGTH:9.2f}")


if __name__ == "__main__":
    main()
