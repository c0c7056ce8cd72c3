"""Reading what is compressed by gzip."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import pytest

from adder_onnx.errors import DataError
from adder_onnx.evaluation.inflating import Inflating


def _read(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    with path.open("rb") as file:
        return io.BufferedReader(Inflating(file, path)).read()


_CONTENTS = {
    "nothing": b"",
    "little": b"a",
    "zeros": bytes(3_000_000),
    "noise": random.Random(0).randbytes(300_000),
    "repeated": b"abcd" * 100_000,
}


@pytest.mark.parametrize("what", _CONTENTS)
def test_contents(tmp_path: Path, what: str) -> None:
    data = _CONTENTS[what]
    packed = gzip.compress(data)
    assert _read(tmp_path / "a.gz", packed) == data
    assert _read(tmp_path / "a.gz", packed + bytes(100_000)) == data
    assert _read(tmp_path / "a.gz", packed + gzip.compress(b"more")) == data + b"more"


@pytest.mark.parametrize("what", _CONTENTS)
def test_truncated_or_damaged(tmp_path: Path, what: str) -> None:
    packed = gzip.compress(_CONTENTS[what])
    damaged = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]  # the checksum
    for data in (packed[:-1], packed[:11], b"", damaged, packed + b"more", b"no gzip"):
        with pytest.raises(DataError, match="a\\.gz is not a gzip file, or is truncated"):
            _read(tmp_path / "a.gz", data)


def test_zeros_that_fill_the_memory(tmp_path: Path) -> None:
    data = gzip.compress(bytes(256 << 20), 9)
    with pytest.raises(DataError, match="more than 50 times its size"):
        _read(tmp_path / "a.gz", data)


def test_many_files_in_one(tmp_path: Path) -> None:
    assert _read(tmp_path / "a.gz", gzip.compress(b"a") * 1000) == b"a" * 1000
    with pytest.raises(DataError, match="more than 1000 files"):
        _read(tmp_path / "a.gz", gzip.compress(b"") * 1001)
