"""How long fastlstm and torch take to the same quality: the model of `fastlstm train` in both.

    python benchmarks/time_to_quality.py --plot benchmarks/time_to_quality.svg

Both start from the same weights and see the same batches in the same order, with the same Adam,
clipping and learning rates, each in a process of its own; they train in turns, a part of the steps
at a time, so that neither has a better machine.  Held-out bits per character are measured between
turns, for both by fastlstm, and do not count as time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import fastlstm
from fastlstm import optim
from fastlstm._io.atomic import replacing
from fastlstm.bench import plot
from fastlstm.cli import _demo_text
from fastlstm.models import LanguageModel
from fastlstm.training._batches import TrainingRows

BATCH, CHUNK, LR, CLIP = 32, 64, 3e-3, 1.0  # those of LanguageModel.fit


class Fastlstm:
    """The model itself."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.state = model, None
        self.optimizer = optim.Adam(model.trainable, LR)

    def step(self, inputs: Any, targets: Any, lr: float) -> None:
        """Train on a chunk."""
        self.optimizer.lr = lr
        _, grads, self.state = self.model.gradients(inputs, targets, self.state)
        optim.clip_grad_norm(grads, CLIP)
        self.optimizer.step(grads)

    def update(self) -> None:
        """Bring the model up to date."""


class Torch:
    """The same model in torch."""

    def __init__(self, model: LanguageModel) -> None:
        import torch

        torch.set_num_threads(fastlstm.get_num_threads())
        self.torch, self.model, self.state = torch, model, None
        count, size = model.parameters["embedding.weight"].shape
        lstm = model.lstm
        self.modules = torch.nn.ModuleDict(
            {
                "embedding": torch.nn.Embedding(count, size),
                "lstm": torch.nn.LSTM(size, lstm.hidden_size, lstm.num_layers),
                "linear": torch.nn.Linear(lstm.hidden_size, count),
            }
        )
        named = {f"lstm.{name}": array for name, array in lstm.parameters.items()}
        named |= dict(model.parameters.items())
        self.modules.load_state_dict({name: torch.tensor(array) for name, array in named.items()})
        self.optimizer = torch.optim.Adam(self.modules.parameters(), LR)

    def step(self, inputs: Any, targets: Any, lr: float) -> None:
        """Train on a chunk."""
        torch, modules = self.torch, self.modules
        self.optimizer.param_groups[0]["lr"] = lr
        y, state = modules["lstm"](modules["embedding"](torch.from_numpy(inputs)), self.state)
        self.state = tuple(part.detach() for part in state)
        logits = modules["linear"](y.flatten(0, 1))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets).flatten())
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), CLIP)
        self.optimizer.step()

    def update(self) -> None:
        """Bring the model up to date."""
        named = {name: tensor.numpy() for name, tensor in self.modules.state_dict().items()}
        for name in self.model.parameters:
            self.model.parameters[name] = named.pop(name)
        self.model.lstm.load_state_dict({n.removeprefix("lstm."): a for n, a in named.items()})


ENGINES = {"fastlstm": Fastlstm, "torch": Torch}


def work(engine: str, total: int) -> None:
    """Train in turns: numbers of steps from stdin; steps, seconds and bits so far to stdout."""
    corpus = _demo_text.load("topics")
    model = LanguageModel(corpus.text + corpus.held_out, seed=0)
    rows = TrainingRows(model._alphabet.encode(corpus.text), BATCH, CHUNK)
    trainer, done, seconds = ENGINES[engine](model), 0, 0.0
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            trainer.step(*rows.next(), LR * (1 - done / total))
            done += 1
        seconds += time.perf_counter() - start
        trainer.update()
        bits = model.bits_per_character(corpus.held_out, rows=BATCH)
        print(json.dumps({"steps": done, "seconds": seconds, "bits": bits}), flush=True)


def measure(total: int, turns: int) -> dict[str, list[dict[str, float]]]:
    """Let the engines train in turns; return where each stood after each of its turns."""
    command = [sys.executable, __file__, "--steps", str(total), "--engine"]
    workers = {
        name: subprocess.Popen(
            [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ENGINES
    }
    curves: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
    for turn in range(turns):
        steps = total * (turn + 1) // turns - total * turn // turns
        for name in list(ENGINES)[:: 1 if turn % 2 else -1]:
            worker = workers[name]
            assert worker.stdin
            assert worker.stdout
            print(steps, file=worker.stdin, flush=True)
            curves[name].append(json.loads(worker.stdout.readline()))
            time.sleep(0.1)  # until the threads of this engine sleep
        print(
            "  ".join(
                f"{name} {at[-1]['seconds']:6.1f} s {at[-1]['bits']:.3f} bits"
                for name, at in curves.items()
            ),
            flush=True,
        )
    for worker in workers.values():
        worker.communicate()
    return curves


def draw(curves: dict[str, list[dict[str, float]]], path: str) -> None:
    """Held-out bits per character against seconds of training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name, color, style in (("torch", "#e66100", "o--"), ("fastlstm", "#000000", "s-")):
        at = curves[name]
        seconds, bits = [p["seconds"] for p in at], [p["bits"] for p in at]
        label = f"{name}: {bits[-1]:.3f} bits after {seconds[-1]:.0f} s"
        axes.plot(seconds, bits, style, color=color, markersize=4, label=label)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("held-out bits per character")
    axes.set_xlim(left=0)
    axes.grid(linewidth=0.4)
    axes.legend()
    with replacing(path) as file:
        figure.savefig(file, format=path.rpartition(".")[2])


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2500, help="updates of the weights")
    parser.add_argument("--turns", type=int, default=20, help="in which each engine takes them")
    parser.add_argument("--plot", help="a name that ends in svg, png or pdf")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine:
        work(args.engine, args.steps)
        return
    if args.plot:
        plot.check(args.plot)
    curves = measure(args.steps, min(args.turns, args.steps))
    seconds = {name: at[-1]["seconds"] for name, at in curves.items()}
    for name, at in curves.items():
        speed = args.steps * BATCH * CHUNK / seconds[name]
        print(f"{name}: {at[-1]['bits']:.3f} bits, {seconds[name]:.1f} s, {speed:,.0f} chars/s")
    print(f"time of torch / time of fastlstm: {seconds['torch'] / seconds['fastlstm']:.2f}")
    if args.plot:
        draw(curves, args.plot)


if __name__ == "__main__":
    main()
