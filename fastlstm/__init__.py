"""fastlstm: LSTM layers for CPUs, fast, small, and with the same bits everywhere."""

from typing import TYPE_CHECKING, Any

from fastlstm import optim
from fastlstm._config import __version__, show_config
from fastlstm._core.memory import release_memory
from fastlstm._core.stream_pool import StreamPool
from fastlstm._core.threads import get_num_threads, isas, set_num_threads
from fastlstm._layers.gru import GRU
from fastlstm._layers.lstm import LSTM
from fastlstm._layers.rnn import RNN
from fastlstm._layers.slstm import SLSTM
from fastlstm._parameters import Parameters

if TYPE_CHECKING:
    from fastlstm import distributed, heads, reference

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SLSTM",
    "Parameters",
    "StreamPool",
    "__version__",
    "distributed",
    "get_num_threads",
    "heads",
    "isas",
    "look",
    "models",
    "optim",
    "reference",
    "release_memory",
    "set_num_threads",
    "show_config",
    "training",
]


def __getattr__(name: str) -> Any:
    import importlib  # of what is imported when it is used

    if name in ("distributed", "heads", "models", "reference", "training"):
        return importlib.import_module(f"fastlstm.{name}")
    if name == "look":
        return importlib.import_module("fastlstm.viewer").look
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
