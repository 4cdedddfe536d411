"""Our files: .safetensors, with the kind of object and its configuration in the metadata."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._io.atomic import StrPath, replacing

Array = NDArray[Any]

_DTYPES = ("I8", "F16", "BF16", "F32", "F64")  # as the format calls them


def write(
    path: StrPath, kind: str, tensors: Mapping[str, Array], config: Mapping[str, Any]
) -> None:
    """Write tensors; a file that exists is replaced only when the new one is complete.

    The same tensors and configuration make the same bytes.  Arrays of uint16 are the bits
    of bfloat16, which NumPy has not.
    """
    import json

    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
                {"format": f"fastlstm.{kind}", "config": json.dumps(dict(config))})  # fmt: skip
    with replacing(path) as file:
        file.writelines(_renamed(data, "U16", "BF16"))


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

    from safetensors.numpy import load

    with _opened(path) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != f"fastlstm.{kind}":
            raise ValueError(f"{path}: a safetensors file, but not of a fastlstm.{kind}")
        names = list(file.keys())
        for name in names:
            dtype = file.get_slice(name).get_dtype()
            if dtype not in _DTYPES:
                expected = ", ".join(_DTYPES)
                raise ValueError(f"{path}: {name}: expected one of {expected}, got {dtype}")
        if all(file.get_slice(name).get_dtype() != "BF16" for name in names):
            tensors = {name: file.get_tensor(name) for name in names}
        else:
            with open(path, "rb") as whole:
                tensors = load(b"".join(_renamed(whole.read(), "BF16", "U16")))
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
    with _opened(path) as file:
        home, _, kind = (file.metadata() or {}).get("format", "").partition(".")
    if home != "fastlstm":
        raise ValueError(f"{path}: a safetensors file, but none that fastlstm saved")
    return str(kind)


@contextlib.contextmanager
def _opened(path: StrPath) -> Iterator[Any]:
    """Open a safetensors file; what is wrong with it is an error that names it."""
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):
        pass  # safe_open has less to say about a file that cannot be opened
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or not all of one ({error})") from None


def _renamed(data: bytes, dtype: str, new: str) -> tuple[bytes, bytes, memoryview]:
    """The parts of a file in which tensors of one type are said to be of another."""
    import json

    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    for tensor in header.values():
        if tensor.get("dtype") == dtype:
            tensor["dtype"] = new
    text = json.dumps(header, sort_keys=True).encode()  # safetensors puts metadata in any order
    text += b" " * (-len(text) % 8)  # tensors begin at a whole word
    return len(text).to_bytes(8, "little"), text, memoryview(data)[8 + size :]


def damaged(path: StrPath, what: str) -> ValueError:
    """Return the error of a file whose configuration cannot be used."""
    return ValueError(f"{path}: the configuration in the file is damaged: {what}")
