"""Score with Ray: an actor for each worker holds the model.

    pip install ray
    python examples/ray_predict.py

Ray Data does the same for data that no machine holds: ``dataset.map_batches(Scorer, ...)``.  Ray
gives each actor the number of processors that it asked for, and sets ``OMP_NUM_THREADS``
accordingly, which fastlstm obeys.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from fastlstm.sklearn import LSTMRegressor


class Scorer:
    """A model in an actor: it gets there once."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(self, X: Any) -> Any:
        """(n,) array."""
        return self.model.predict(X)


def main() -> None:
    """Train here, score there, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=500, help="for each task")
    args = parser.parse_args()
    try:
        import ray
        from ray.util import ActorPool
    except ImportError:
        print("skipped: Ray is not installed (pip install ray)")
        return
    X = np.random.default_rng(0).normal(size=(5000, 20, 3)).astype(np.float32)
    model = LSTMRegressor(16, max_iter=2, random_state=0).fit(X, X[:, -5:, 0].sum(axis=1))

    ray.init(num_cpus=args.workers, include_dashboard=False)
    sent = ray.put(model)
    actor = ray.remote(num_cpus=1)(Scorer)
    pool = ActorPool([actor.remote(sent) for _ in range(args.workers)])
    chunks = [X[start : start + args.rows] for start in range(0, len(X), args.rows)]
    parts = pool.map(lambda scorer, chunk: scorer.predict.remote(chunk), chunks)
    same = np.array_equal(np.concatenate(list(parts)), model.predict(X))
    print(f"{len(X)} sequences, {'the same bits' if same else 'OTHER BITS'} as here")
    ray.shutdown()


if __name__ == "__main__":
    main()
