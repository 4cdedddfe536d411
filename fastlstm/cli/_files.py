"""Files that commands read and write: texts, and which two are one."""

from __future__ import annotations

import os


def read_text(path: str) -> str:
    """The text of a file, or of standard input; a mark of byte order is no part of it.

    Raises
    ------
    ValueError
        It is not text in UTF-8.
    """
    try:
        with open(0 if path == "-" else path, encoding="utf-8-sig", closefd=path != "-") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source_name(path)}: not text in UTF-8 (at byte {error.start + 1})"
        ) from None


def source_name(path: str) -> str:
    """As messages call what is read."""
    return "standard input" if path == "-" else path


def check_not_read(output: str, path: str, what: str) -> None:
    """Refuse to write the file that is read, "-" being standard input."""
    if same_file(0 if path == "-" else path, output):
        raise ValueError(f"-o: expected another file than that of {what}, got {output}")


def same_file(one: str | int, other: str | int) -> bool:
    """Whether two paths or descriptors are of one file, be it there or not."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        paths = [os.path.realpath(path) for path in (one, other) if isinstance(path, str)]
        return len(paths) == 2 and paths[0] == paths[1]
