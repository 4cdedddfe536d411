"""fastlstm: LSTM layers for CPUs, fast, small, and with the same bits everywhere."""

from fastlstm import optim, reference
from fastlstm._cells import GRU, LSTM, RNN
from fastlstm._config import __version__, get_num_threads, isas, set_num_threads, show_config
from fastlstm._pool import StreamPool

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
