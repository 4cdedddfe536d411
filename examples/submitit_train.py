"""Train on a cluster with Slurm: the job that is cut off is queued again, and goes on.

    pip install submitit torch
    python examples/submitit_train.py --cluster slurm --processes 4 --minutes 60

submitit starts the processes, torch.distributed (gloo) moves their bytes, and a checkpoint that
process 0 writes is where the next job begins; it may have another number of processes.  The model
is the same in every byte, whether the training was cut off or not, and for any number of them.
``--cluster local`` tries it on this machine.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastlstm import distributed
from fastlstm.models import LanguageModel


@dataclass
class Training:
    """What each process runs; submitit pickles it, and queues it again after a time limit."""

    text: str
    folder: Path
    steps: int

    def __call__(self) -> float:
        """Train, or go on; process 0 saves the model.  The last loss."""
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export()
        group = distributed.torch()
        model = LanguageModel(self.text, hidden_size=64, seed=0)
        history = model.fit(
            self.text,
            steps=self.steps,
            batch_size=16,
            shards=8,
            group=group,
            checkpoint=self.folder / "run.ckpt",
            checkpoint_every=20,
            resume="auto",
        )
        if group.rank == 0:
            model.save(self.folder / "model.safetensors")
        return history.records[-1].loss

    def checkpoint(self) -> Any:
        """What submitit calls when the time of the job is over."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def main() -> None:
    """Submit the training and wait for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="?", type=Path, default=Path(__file__), help="a file")
    parser.add_argument("--folder", type=Path, default=Path("submitit_train"), help="all can see")
    parser.add_argument("--cluster", choices=["local", "slurm"], default="local")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=int, default=10, help="until the job is queued again")
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    try:
        import submitit
        import torch.distributed  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error.name} is not installed (pip install submitit torch)")
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.AutoExecutor(args.folder / "logs", cluster=args.cluster)
    executor.update_parameters(tasks_per_node=args.processes, timeout_min=args.minutes)
    training = Training(args.text.read_text(), args.folder.resolve(), args.steps)
    losses = executor.submit(training).results()
    print(f"loss {losses[0]:.3f}, the same in all {len(losses)} processes: {len(set(losses)) == 1}")


if __name__ == "__main__":
    main()
