"""The binding: what Python sees of the C core."""

# First: OpenMP, when it is loaded, may bind this thread to one of the processors (OMP_PROC_BIND).
from fastlstm._core import processors as _processors  # noqa: F401
