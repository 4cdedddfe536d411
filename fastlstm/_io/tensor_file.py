"""Our files: .safetensors, with the kind of object and its configuration in the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._io.atomic import StrPath, replacing

Array = NDArray[Any]

_DTYPES = ("F16", "F32", "F64")  # as the format calls them; NumPy has not all of the others


def write(
    path: StrPath, kind: str, tensors: Mapping[str, Array], config: Mapping[str, Any]
) -> None:
    """Write tensors; a file that exists is replaced only when the new one is complete."""
    import json

    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
                {"format": f"fastlstm.{kind}", "config": json.dumps(dict(config))})  # fmt: skip
    with replacing(path) as file:
        file.write(data)


def read(path: StrPath, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read the tensors and the configuration of an object of this kind.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is another kind of file, or incomplete, or has tensors of another type.
    """
    import json

    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):
        pass  # safe_open has less to say about a file that cannot be opened
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != f"fastlstm.{kind}":
                raise ValueError(f"{path}: a safetensors file, but not of a fastlstm.{kind}")
            names = list(file.keys())
            for name in names:
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _DTYPES:
                    expected = ", ".join(_DTYPES)
                    raise ValueError(f"{path}: {name}: expected one of {expected}, got {dtype}")
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or not all of one ({error})") from None
    if "config" not in metadata:
        raise damaged(path, "there is none")
    try:
        config = json.loads(metadata["config"])
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON: {error}") from None
    if not isinstance(config, dict):
        raise damaged(path, f"expected an object of JSON, got {type(config).__name__}")
    return tensors, config


def damaged(path: StrPath, what: str) -> ValueError:
    """Return the error of a file whose configuration cannot be used."""
    return ValueError(f"{path}: the configuration in the file is damaged: {what}")
