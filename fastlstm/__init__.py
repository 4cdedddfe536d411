"""fastlstm: LSTM layers for CPUs, fast, small, and with the same bits everywhere."""

from typing import TYPE_CHECKING, Any

from fastlstm import optim
from fastlstm._cells import GRU, LSTM, RNN
from fastlstm._config import __version__, get_num_threads, isas, set_num_threads, show_config
from fastlstm._pool import StreamPool

if TYPE_CHECKING:
    from fastlstm import reference

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "StreamPool",
    "__version__",
    "get_num_threads",
    "isas",
    "optim",
    "reference",
    "set_num_threads",
    "show_config",
]


def __getattr__(name: str) -> Any:
    if name == "reference":  # imported when it is used
        import importlib

        return importlib.import_module("fastlstm.reference")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
