"""Replacing a file only when the new one is complete."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

StrPath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place at the end of the block.

    After an error in the block, `path` is what it was and the temporary file is gone.

    Raises
    ------
    OSError
        The folder is missing or not writable, or `path` is something that must not be
        replaced: a folder, a device, a file without write permission.
    """
    target = os.path.realpath(path)  # a symbolic link stays, the file behind it is replaced
    if os.path.isdir(target):
        raise IsADirectoryError(f"{path}: is a directory")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(f"{path}: is not a regular file")
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise PermissionError(f"{path}: no permission to write")
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path}: there is no directory {folder}")
    temporary = os.path.join(folder, f".fastlstm-{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        with _naming(path), open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _naming(path):
            if os.path.exists(target):
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def check_replaceable(path: StrPath) -> None:
    """Raise the ``OSError`` that `replacing` would raise, and leave no trace."""

    class Tried(Exception):
        pass

    with contextlib.suppress(Tried), replacing(path):
        raise Tried


@contextlib.contextmanager
def _naming(path: StrPath) -> Iterator[None]:
    """Name the file the user knows instead of the temporary one."""
    try:
        yield
    except OSError as error:
        raise type(error)(f"{path}: {error.strerror or error}") from error
