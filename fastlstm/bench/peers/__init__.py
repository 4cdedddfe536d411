"""What can be measured: fastlstm and its peers, each imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

from fastlstm.bench.cases import WEIGHTS, Array, Case

OURS = "fastlstm"
OURS_FLOAT32 = "fastlstm float32"  # beside weights of fewer bits
INFERENCE = ("step", "block", "infer")


class Work(NamedTuple):
    """A case that is ready to run: weights packed, input in the engine's own form.

    Attributes
    ----------
    call : callable
        What is timed.
    arrays : callable
        Turns what `call` returned into y and, of training, dx and the gradients in the order of
        the parameters.
    mode : callable
        Makes the context that calls run in; entering it is not timed.
    """

    call: Callable[[], Any]
    arrays: Callable[[Any], list[Array]]
    mode: Callable[[], AbstractContextManager[Any]] = nullcontext


class Engine(Protocol):
    """Runs cases with a fixed number of threads."""

    def __init__(self, threads: int) -> None: ...

    def prepare(self, case: Case) -> Work:
        """Set a case up; a call of its work that carries state starts from zero."""


@dataclass(frozen=True)
class Description:
    """What can be said of an engine before it is imported."""

    label: str
    place: str  # module and class in this folder
    packages: tuple[str, ...]  # the first one is the engine itself
    works: tuple[str, ...] = (*INFERENCE, "train")
    weights: tuple[str, ...] = ("float32",)  # the types that it has


ENGINES = {
    OURS: Description("fastlstm", "fastlstm.FastLSTM", ("fastlstm",), weights=WEIGHTS),
    OURS_FLOAT32: Description("fastlstm", "fastlstm.FastLSTM", ("fastlstm",)),
    "torch": Description(
        "torch", "torch.Torch", ("torch",), weights=("float32", "int8", "float16")
    ),
    "onnxruntime": Description(
        "ORT", "onnx.OnnxRuntime", ("onnxruntime", "onnx"), INFERENCE, ("float32", "int8")
    ),
    "openvino": Description("OpenVINO", "onnx.OpenVino", ("openvino", "onnx"), INFERENCE),
    "jax": Description("JAX", "jax.Jax", ("jax",)),
}
PEERS = tuple(name for name in ENGINES if name not in (OURS, OURS_FLOAT32))


def check(names: list[str]) -> None:
    """Raise unless every name is a peer whose packages are installed."""
    for name in names:
        if name not in PEERS:
            raise ValueError(f"--against: expected some of {', '.join(PEERS)}, got {name!r}")
        missing = [p for p in ENGINES[name].packages if importlib.util.find_spec(p) is None]
        if missing:
            raise ModuleNotFoundError(
                f"--against {name}: not installed: {', '.join(missing)} "
                f"(pip install {' '.join(missing)})"
            )


def as_run(name: str, case: Case) -> Case:
    """A case with the weights that the engine has for it."""
    has = case.weights_dtype in ENGINES[name].weights
    return case if has else replace(case, weights_dtype="float32")


def label(name: str, weights: str) -> str:
    """The engine in tables and plots of a run with these weights, and its own if several are."""
    if weights == "float32":
        return ENGINES[name].label
    return f"{ENGINES[name].label} {weights if weights in ENGINES[name].weights else 'float32'}"


def start(name: str, threads: int) -> Engine:
    """Import an engine and set its threads."""
    module, _, kind = ENGINES[name].place.partition(".")
    found = importlib.import_module(f"fastlstm.bench.peers.{module}")
    engine: Engine = getattr(found, kind)(threads)
    return engine


def versions(names: list[str]) -> dict[str, str]:
    """Versions of the packages of engines."""
    return {package: version(package) for name in names for package in ENGINES[name].packages}
