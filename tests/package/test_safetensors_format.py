"""Our reader and writer of the format safetensors, beside the package of that name."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from fastlstm._io.safetensors_format import DTYPES, FormatError, pack, read_header, read_tensors

Array = np.ndarray[Any, Any]

TENSORS: dict[str, Array] = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2.0, 65504.0], np.float16),
    "wide": np.array(np.pi),
    "bytes": np.arange(-3, 2, dtype=np.int8),
    "none": np.zeros((0, 4), np.float32),
    'a "name" é\n': np.ones((1, 1, 1)),
}
METADATA = {"format": "fastlstm.LSTM", "config": '{"hidden_size": 8}', "z": "é\0\\"}


def written(tensors: dict[str, Array], metadata: dict[str, str]) -> bytes:
    return b"".join(pack(tensors, metadata))


def read(data: bytes) -> tuple[dict[str, str], dict[str, Array]]:
    file: Any = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]
    header = read_header(file)
    return header.metadata, read_tensors(file, header)


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    data = written(TENSORS, METADATA)
    assert_same(load(data), TENSORS)
    (tmp_path / "x").write_bytes(data)
    with safe_open(tmp_path / "x", "numpy") as file:
        assert file.metadata() == METADATA
        assert set(file.keys()) == set(TENSORS)


def test_we_read_what_the_package_writes() -> None:
    metadata, tensors = read(save(TENSORS, METADATA))
    assert metadata == METADATA
    assert_same(tensors, TENSORS)


def test_round_trip() -> None:
    metadata, tensors = read(written(TENSORS, METADATA))
    assert metadata == METADATA
    assert_same(tensors, TENSORS)
    assert all(array.flags.writeable and array.flags.aligned for array in tensors.values())
    strided = {name: array.T for name, array in TENSORS.items()}
    assert_same(read(written(strided, {}))[1], strided)
    assert read(written({}, {})) == ({}, {})


def test_bytes_depend_on_no_order() -> None:
    again = dict(reversed(TENSORS.items())), dict(reversed(METADATA.items()))
    assert written(*again) == written(TENSORS, METADATA)


def test_bfloat16_is_bits(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC000], np.uint16)
    (tmp_path / "x").write_bytes(written({"w": bits}, {}))
    with safe_open(tmp_path / "x", "numpy") as file:
        assert file.get_slice("w").get_dtype() == "BF16"
    assert_same(read((tmp_path / "x").read_bytes())[1], {"w": bits})


PIECES = [b"0", b"1", b"-1", b"9", b"1e2", b"1.0", b"null", b"true", b"[]", b"{}", b'"', b",", b":",
          b"[", b"]", b"{", b"}", b" ", b"\n", b"\0", b"NaN", b'"F32"', b'"BF16"', b'"U8"', b"00",
          b"\\ud800", b"\xff", b"9223372036854775808", b"18446744073709551616", b'"data_offsets"',
          b'"__metadata__"', b"\xef\xbb\xbf"]  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file with something else in its header, its length, or behind its end."""
    size = int.from_bytes(data[:8], "little")
    header, rest = bytearray(data[8 : 8 + size]), data[8 + size :]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at, other = sorted(rng.randrange(len(header) + 1) for _ in range(2))
        how = rng.choice(["piece", "piece", "gap", "twice", "end"])
        if how == "piece":
            header[at : at + rng.choice([0, 1, 1, 3])] = rng.choice(PIECES)
        elif how == "gap":
            del header[at : at + rng.choice([1, 2, 5])]
        elif how == "twice":
            header[other:other] = header[at:other][:60]
        else:
            rest = rest[: rng.randrange(len(rest) + 1)] if rng.random() < 0.5 else rest + b"x"
    size = rng.choice([0, len(header) + 1, 1 << 63]) if rng.random() < 0.05 else len(header)
    return size.to_bytes(8, "little") + bytes(header) + rest


def said_by_the_package(path: Path) -> dict[str, str] | None:
    """The types of the tensors in a file; None if it refuses it."""
    try:
        with safe_open(path, "numpy") as file:
            return {name: file.get_slice(name).get_dtype() for name in list(file.keys())}
    except SafetensorError:
        return None


def said_by_us(path: Path) -> dict[str, str] | str:
    """Likewise; what is wrong, if we refuse it."""
    try:
        with path.open("rb") as file:
            header = read_header(file)
            types = {name: entry.dtype for name, entry in header.entries.items()}
            if set(types.values()) <= set(DTYPES):
                assert set(read_tensors(file, header)) == set(types)
            return types
    except FormatError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_what_the_package_says(seed: int, tmp_path: Path) -> None:
    """We read none that it does not read, and all that it reads but for what is noted here."""
    rng, path = random.Random(seed), tmp_path / "x"
    whole = [save(TENSORS, METADATA), save({"é": np.zeros((2, 2))}), save({}), save({}, {"a": "b"})]
    read_by_both = 0
    for _ in range(1000):
        path.write_bytes(damaged(rng.choice(whole), rng))
        theirs, ours = said_by_the_package(path), said_by_us(path)
        if isinstance(ours, str) and theirs is not None:
            # It skips white space before the header, and takes the last one of two equal names.
            assert re.search("does not begin with {|is there twice", ours), ours
        elif isinstance(ours, str):
            continue
        elif theirs is None:  # of a type that nobody knows, which is refused a little later
            assert not set(ours.values()) <= set(DTYPES)
        else:
            assert ours == theirs
            read_by_both += 1
    assert 50 < read_by_both < 950


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape: Any = (1,), dtype: Any = "F32", offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "its header is not there"),
        (b"\0" * 7, "its header is not there"),
        ((100).to_bytes(8, "little") + b"{}", "its header is not there"),
        (file_of(b" {}"), "its header is damaged: it does not begin with {"),
        (file_of(b'{"a"'), "its header is damaged: "),
        (file_of(b'{"a": NaN}'), "its header is damaged: unexpected NaN"),
        (file_of(b'{"a": ' + b"[" * 100_000), "its header is damaged: "),
        (file_of(b'{"\\ud800": {}}'), "its header is damaged: "),
        (file_of({"__metadata__": {"a": 1}}), "__metadata__: expected texts"),
        (file_of({"__metadata__": []}), "__metadata__: expected texts"),
        (file_of({"w": 3}), "w: expected dtype, shape and data_offsets, got 3"),
        (file_of({"w": tensor(offsets=[0])}, bytes(4)), "w: expected dtype, shape and data_off"),
        (file_of({"w": tensor(offsets=[4, 0])}, bytes(4)), "w: expected dtype, shape and data_"),
        (file_of({"w": tensor(shape=[True])}, bytes(4)), "w: expected dtype, shape and data_off"),
        (file_of({"w": tensor(shape=[-1])}, bytes(4)), "w: expected dtype, shape and data_offse"),
        (file_of({"w": tensor(shape=3)}, bytes(4)), "w: expected dtype, shape and data_offsets"),
        (file_of({"w": tensor(dtype=3)}, bytes(4)), "w: expected dtype, shape and data_offsets"),
        (file_of({"w": tensor(shape=[2])}, bytes(4)), r"w: 4 bytes are not those of \[2\] F32"),
        (file_of({"w": tensor([1 << 62, 4])}, bytes(4)), "w: 4 bytes are not those of"),
        (file_of({"w": tensor(offsets=[4, 8])}, bytes(8)), "w: expected to begin at byte 0, got 4"),
        (file_of({"w": tensor()}, bytes(3)), "expected 4 bytes of tensors, got 3"),
        (file_of({"w": tensor()}, bytes(5)), "expected 4 bytes of tensors, got 5"),
        (file_of({"w": tensor([1] * 65)}, bytes(4)), "w: maximum supported dimension"),
        (
            file_of({"v": tensor(), "w": tensor()}, bytes(4)),
            "w: expected to begin at byte 4, got 0",
        ),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=f"^{message}"):
        read(data)


def test_a_file_that_becomes_shorter() -> None:
    whole = io.BytesIO(written(TENSORS, METADATA))
    file: Any = io.BufferedReader(whole)  # type: ignore[arg-type]
    header = read_header(file)
    whole.truncate(header.size + 10)
    with pytest.raises(FormatError, match="not all of it is there"):
        read_tensors(io.BufferedReader(whole), header)  # type: ignore[arg-type]
