"""Our files: .safetensors, with the kind of object and its configuration in the metadata."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import Any

from numpy.typing import NDArray

from fastlstm._io import safetensors_format
from fastlstm._io.atomic import StrPath, replacing
from fastlstm._io.safetensors_format import DTYPES, FormatError, Header

Array = NDArray[Any]


def write(
    path: StrPath, kind: str, tensors: Mapping[str, Array], config: Mapping[str, Any]
) -> None:
    """Write tensors; a file that exists is replaced only when the new one is complete.

    The same tensors and configuration make the same bytes.  Arrays of uint16 are the bits
    of bfloat16, which NumPy has not.
    """
    import json

    metadata = {"format": f"fastlstm.{kind}", "config": json.dumps(dict(config))}
    parts = safetensors_format.pack(tensors, metadata)
    with replacing(path) as file:
        file.writelines(parts)


def read(path: StrPath, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read the tensors and the configuration of an object of this kind; bfloat16 as for `write`.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is another kind of file, or incomplete, or has tensors of another type.
    """
    import json

    with _opened(path) as (file, header):
        metadata = header.metadata
        if metadata.get("format") != f"fastlstm.{kind}":
            raise ValueError(f"{path}: a safetensors file, but not of a fastlstm.{kind}")
        for name, entry in header.entries.items():
            if entry.dtype not in DTYPES:
                expected = ", ".join(DTYPES)
                raise ValueError(f"{path}: {name}: expected one of {expected}, got {entry.dtype}")
        tensors = safetensors_format.read_tensors(file, header)
    if "config" not in metadata:
        raise damaged(path, "there is none")
    try:
        config = json.loads(metadata["config"])
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON: {error}") from None
    if not isinstance(config, dict):
        raise damaged(path, f"expected an object of JSON, got {type(config).__name__}")
    return tensors, config


def kind_of(path: StrPath) -> str:
    """The kind of the object in a file that `write` wrote.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        Something else wrote it, or it is incomplete.
    """
    with _opened(path) as (_, header):
        home, _, kind = header.metadata.get("format", "").partition(".")
    if home != "fastlstm":
        raise ValueError(f"{path}: a safetensors file, but none that fastlstm saved")
    return str(kind)


@contextlib.contextmanager
def _opened(path: StrPath) -> Iterator[tuple[BufferedReader, Header]]:
    """Open a safetensors file; what is wrong with it is an error that names it."""
    with open(path, "rb") as file:
        try:
            yield file, safetensors_format.read_header(file)
        except FormatError as error:
            raise ValueError(
                f"{path}: not a safetensors file, or not all of one ({error})"
            ) from None


def damaged(path: StrPath, what: str) -> ValueError:
    """Return the error of a file whose configuration cannot be used."""
    return ValueError(f"{path}: the configuration in the file is damaged: {what}")
