"""Score with Spark: a column of sequences, batch by batch in the executors.

    pip install 'pyspark[sql]'
    python examples/spark_predict.py

``predict_batch_udf`` loads the model once for each Python worker and hands it arrays; the model is
broadcast, so it goes to a machine once.  Spark sets ``OMP_NUM_THREADS`` to ``spark.task.cpus`` in
its workers, which fastlstm obeys.  Needs Java.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from fastlstm.sklearn import LSTMRegressor

STEPS, FEATURES = 20, 3


def main() -> None:
    """Train here, score there, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    try:
        import pyarrow  # noqa: F401
        from pyspark.ml.functions import predict_batch_udf
        from pyspark.sql import SparkSession
        from pyspark.sql.types import DoubleType
    except ImportError:
        print("skipped: PySpark or PyArrow is not installed (pip install 'pyspark[sql]')")
        return
    X = np.random.default_rng(0).normal(size=(2000, STEPS, FEATURES))
    model = LSTMRegressor(16, max_iter=2, random_state=0).fit(X, X[:, -5:, 0].sum(axis=1))

    spark = SparkSession.builder.master(f"local[{args.workers}]").getOrCreate()
    sent = spark.sparkContext.broadcast(model)

    def make() -> Callable[[Any], Any]:
        return lambda x: sent.value.predict(np.asarray(x, np.float64))

    score = predict_batch_udf(
        make, return_type=DoubleType(), batch_size=500, input_tensor_shapes=[[STEPS, FEATURES]]
    )
    rows = [(n, sequence.ravel().tolist()) for n, sequence in enumerate(X)]
    frame = spark.createDataFrame(rows, "n long, x array<double>").repartition(2 * args.workers)
    scored = frame.select("n", score("x").alias("y")).orderBy("n").toPandas()
    same = np.array_equal(scored["y"], model.predict(X))
    print(f"{len(X)} sequences, {'the same bits' if same else 'OTHER BITS'} as here")
    spark.stop()


if __name__ == "__main__":
    main()
