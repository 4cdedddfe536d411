"""What is measured: the sizes, by name or from the command line, and the data they run on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastlstm

Array = NDArray[np.float32]

WORKS = {
    "step": "one step, state carried on",
    "block": "a block of steps, state carried on",
    "infer": "a sequence from a zero state",
    "train": "forward, backward, gradients of input and all parameters",
}

WEIGHTS = ("float32", "int8", "bfloat16", "float16")


@dataclass(frozen=True)
class Case:
    """A kind of work, its sizes (layers, input, hidden units, batch rows, time steps), weights."""

    work: str
    layers: int
    input: int
    hidden: int
    batch: int
    steps: int
    weights_dtype: str = "float32"  # one of WEIGHTS

    @property
    def sizes(self) -> str:
        """L,I,H,B,T."""
        return f"{self.layers},{self.input},{self.hidden},{self.batch},{self.steps}"

    @property
    def carries_state(self) -> bool:
        """Whether a call goes on from the state that the call before it left."""
        return self.work in ("step", "block")

    @property
    def operations(self) -> int:
        """Multiplications and additions of the matrix products, in floating-point operations.

        8 H (I + H) for each layer, step and row; training is three times that: forward, the
        gradients of x and h, and those of the weights.
        """
        per_row = sum(8 * self.hidden * (inputs + self.hidden) for inputs in self.inputs)
        return per_row * self.batch * self.steps * (3 if self.work == "train" else 1)

    @property
    def inputs(self) -> list[int]:
        """Input size of each layer."""
        return [self.input] + [self.hidden] * (self.layers - 1)

    def layer(self) -> fastlstm.LSTM:
        """The layer, with the same weights in every process."""
        lstm = fastlstm.LSTM(self.input, self.hidden, self.layers, seed=0)
        return lstm if self.weights_dtype == "float32" else lstm.quantize(self.weights_dtype)

    def weights(self) -> dict[str, Array]:
        """Its parameters in float32, named and shaped as torch has them."""
        lstm = replace(self, weights_dtype="float32").layer()
        return {name: np.array(value) for name, value in lstm.parameters.items()}

    def sequence(self, width: int, seed: int) -> Array:
        """Normally distributed (T, B, `width`)."""
        shape = (self.steps, self.batch, width)
        return np.random.default_rng(seed).standard_normal(shape, np.float32)

    def x(self) -> Array:
        """The input, (T, B, I)."""
        return self.sequence(self.input, 1)

    def dy(self) -> Array:
        """The gradient of the loss with respect to y, (T, B, H)."""
        return self.sequence(self.hidden, 2)


def _square(work: str, layers: int, sizes: list[int], batch: int, steps: int) -> list[Case]:
    return [Case(work, layers, size, size, batch, steps) for size in sizes]


_STAC = [Case("step", 2, 128, 128, 1, 1), Case("step", 3, 256, 256, 1, 1)]
_STEP = [Case("step", 1, 32, 32, 1, 1), *_STAC, *_square("step", 3, [480, 960], 1, 1)]
_POWERS = [16, 32, 64, 128, 256, 512, 1024]

SETS: dict[str, list[Case]] = {
    "step": _STEP,
    "sequence": _square("infer", 1, [32, 64, 128, 256, 512, 1024], 1, 100),
    "batch": [
        *_square("infer", 1, [64, 128, 256, 512], 32, 100),
        Case("infer", 1, 1024, 1024, 32, 50),
        Case("infer", 2, 128, 128, 8, 100),
        Case("infer", 2, 256, 256, 128, 50),
    ],
    "train": [
        Case("train", 1, 32, 64, 32, 100),
        Case("train", 1, 64, 128, 32, 100),
        Case("train", 1, 256, 256, 32, 100),
        Case("train", 1, 512, 512, 64, 50),
        Case("train", 2, 650, 650, 20, 35),
        Case("train", 1, 16, 32, 16, 200),
    ],
    "audio": [Case("block", 1, 1, h, 1, t) for h in (16, 24, 32, 40) for t in (64, 512)],
    "stac": _STAC,
    "hidden": [
        *_square("step", 1, _POWERS, 1, 1),
        *_square("infer", 1, _POWERS, 1, 100),
        *_square("infer", 1, _POWERS, 32, 50),
        *_square("train", 1, _POWERS, 32, 50),
    ],
}

SET_TEXTS = {
    "step": "single steps: latency",
    "sequence": "100 steps of one row",
    "batch": "inference on batches",
    "train": "training steps",
    "audio": "one channel in, blocks of 64 and 512 samples",
    "stac": "the shapes of STAC-ML: steps of 2x128 and 3x256",
    "hidden": "16 to 1024 hidden units: what --plot is for",
    "all": "step, sequence, batch, train and audio",
}


def of_sets(names: list[str]) -> list[Case]:
    """The cases of named sets, each once."""
    cases: list[Case] = []
    for name in names:
        if name not in SET_TEXTS:
            raise ValueError(f"--set: expected some of {', '.join(SET_TEXTS)}, got {name!r}")
        parts = ["step", "sequence", "batch", "train", "audio"] if name == "all" else [name]
        cases += [case for part in parts for case in SETS[part]]
    return list(dict.fromkeys(cases))


def of_size(text: str) -> Case:
    """The case that ``[WORK:]L,I,H,B,T`` describes."""
    work, _, sizes = text.rpartition(":")
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in sizes.split(",")]
    if len(numbers) != 5 or min(numbers) < 1 or (work and work not in WORKS):
        raise ValueError(
            f"--size: expected [WORK:]L,I,H,B,T, five numbers of at least 1 and WORK one of "
            f"{', '.join(WORKS)}, got {text!r}"
        )
    if work == "step" and numbers[4] != 1:
        raise ValueError(f"--size: expected T = 1 for a step, got {text!r}")
    layers, inputs, hidden, batch, steps = numbers
    work = work or ("step" if steps == 1 else "infer")
    return Case(work, layers, inputs, hidden, batch, steps)


def of_row(row: dict[str, Any]) -> Case:
    """The case of a row of a results file."""
    return Case(
        row["work"], *(row[name] for name in ("layers", "input", "hidden", "batch", "steps"))
    )
