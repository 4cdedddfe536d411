"""Replacing a file only when the new one is complete."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import zlib
from collections.abc import Iterator
from typing import BinaryIO

StrPath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place at the end of the block.

    After an error in the block, `path` is what it was and the temporary file is gone.  Once the
    block has ended, the new file is there even if the machine loses its power.

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
    temporary = f"{_beginning_of_temporary(target)}{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        with _naming(path), open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _naming(path):
            if os.path.exists(target):
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            os.replace(temporary, target)
            _sync_folder(folder)
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


def remove_leftovers(path: StrPath) -> None:
    """Remove the temporary files of processes that were killed while they replaced `path`.

    Nobody may be writing it.
    """
    beginning = _beginning_of_temporary(os.path.realpath(path))
    for leftover in glob.glob(f"{glob.escape(beginning)}*.tmp"):
        with contextlib.suppress(OSError):
            os.unlink(leftover)


def _beginning_of_temporary(target: str) -> str:
    """How the paths begin of temporary files that take the place of `target`."""
    folder, name = os.path.split(target)
    # A name may be as long as names can be: a number stands for it.
    return os.path.join(folder, f".fastlstm-{zlib.crc32(os.fsencode(name)):08x}-")


def _sync_folder(folder: str) -> None:
    """Make the names in a folder survive a loss of power, as ``fsync`` does the bytes of a file."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # on Windows, and where a folder may be written but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system knows it
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _naming(path: StrPath) -> Iterator[None]:
    """Name the file the user knows instead of the temporary one."""
    try:
        yield
    except OSError as error:
        raise type(error)(f"{path}: {error.strerror or error}") from error
