"""The format safetensors: a length of 8 bytes, a header of JSON, the bytes of the tensors.

Read and written with NumPy alone, as https://github.com/huggingface/safetensors has it: the tensors
follow each other without gaps, and the header says of each its type, its shape, and where it begins
and ends.  What is read is checked before memory is taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from io import BufferedReader
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The types of our files, as the format calls them; NumPy has no bfloat16, of which these are bits.
DTYPES = {"I8": "i1", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}

_METADATA = "__metadata__"
_MOST_HEADER = 100_000_000  # bytes, as others have it


class Entry(NamedTuple):
    """What the header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """In bytes after the header."""
    end: int


class Header(NamedTuple):
    """What is in a file."""

    metadata: dict[str, str]
    entries: dict[str, Entry]
    """In the order of their bytes."""
    size: int
    """Bytes before the tensors."""


class FormatError(ValueError):
    """A file is not in this format, or not whole."""


def pack(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The parts of a file; the same tensors and metadata make the same bytes.

    Tensors of uint16 are those of bfloat16.  The largest elements come first, so that all begin at
    a multiple of their size.
    """
    import json

    header: dict[str, Any] = {_METADATA: dict(metadata)}
    names = {np.dtype(code).newbyteorder("="): name for name, code in DTYPES.items()}
    parts: list[bytes | memoryview] = []
    end = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        tensor, dtype = tensors[name], names[tensors[name].dtype]
        data = np.ascontiguousarray(tensor, DTYPES[dtype])
        begin, end = end, end + data.nbytes
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
        parts.append(_bytes_of(data) if data.size else b"")
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a whole word
    return [len(text).to_bytes(8, "little"), text, *parts]


def read_header(file: BufferedReader) -> Header:
    """Read up to the tensors, and check all that can be known of them.

    Raises
    ------
    FormatError
        The file is in another format, or not whole.
    """
    whole = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if whole < 8 or length > min(whole - 8, _MOST_HEADER):
        raise FormatError("its header is not there")
    header = _parsed(file.read(length))
    metadata = header.pop(_METADATA, None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"{_METADATA}: expected texts")
    try:
        "".join([*header, *metadata, *metadata.values()]).encode()
    except UnicodeEncodeError as error:  # half of a pair, escaped
        raise FormatError(f"its header is damaged: {error}") from None
    found = {name: _entry(name, value) for name, value in header.items()}
    entries = dict(sorted(found.items(), key=lambda item: item[1][2:]))
    at = 0
    for name, entry in entries.items():
        if entry.begin != at:
            raise FormatError(f"{name}: expected to begin at byte {at}, got {entry.begin}")
        at = entry.end
    if at != whole - 8 - length:
        raise FormatError(f"expected {at} bytes of tensors, got {whole - 8 - length}")
    return Header(metadata, entries, 8 + length)


def read_tensors(file: BufferedReader, header: Header) -> dict[str, Array]:
    """The tensors of a file whose types are among `DTYPES`; those of bfloat16 as uint16.

    Raises
    ------
    FormatError
        The file has become shorter.
    """
    file.seek(header.size)
    tensors = {}
    for name, entry in header.entries.items():
        dtype = np.dtype(DTYPES[entry.dtype])
        try:
            data = np.empty(entry.shape, dtype)
        except ValueError as error:  # too many axes, or one of them too long beside one of length 0
            raise FormatError(f"{name}: {error}") from None
        if data.size and file.readinto(_bytes_of(data)) != data.nbytes:
            raise FormatError(f"{name}: not all of it is there")
        tensors[name] = data.astype(dtype.newbyteorder("="), copy=False)
    return tensors


def _bytes_of(array: Array) -> memoryview:
    """The memory of a contiguous array that is not empty."""
    flat: Any = array.reshape(-1)
    return memoryview(flat).cast("B")


def _parsed(text: bytes) -> dict[str, Any]:
    """The header as an object of JSON."""
    import json

    try:
        if text[:1] != b"{":  # so others can know the format by its ninth byte
            raise ValueError("it does not begin with {")
        header = json.loads(
            text.decode(), object_pairs_hook=_object, parse_constant=_refuse, parse_float=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its header is damaged: {error}") from None
    if not isinstance(header, dict):
        raise FormatError("its header is no object of JSON")
    return header


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"unexpected {text}")


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _entry(name: str, value: Any) -> Entry:
    """What the header says of a tensor, if it can be."""
    try:
        dtype, shape, offsets = (value[key] for key in ("dtype", "shape", "data_offsets"))
        begin, end = offsets
        good = isinstance(dtype, str)
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError):
        good = False
    if not (good and isinstance(shape, list) and all(map(_is_size, numbers)) and begin <= end):
        raise FormatError(f"{name}: expected dtype, shape and data_offsets, got {value!r:.80}")
    entry = Entry(dtype, tuple(shape), begin, end)
    if dtype in DTYPES and math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize != end - begin:
        raise FormatError(f"{name}: {end - begin} bytes are not those of {shape} {dtype}")
    return entry


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
