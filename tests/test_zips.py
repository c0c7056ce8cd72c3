"""Zip archives of strangers."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path

import pytest

from adder_onnx.archives.zips import check_inflated, open_zip
from adder_onnx.errors import DataError


def _zip(entries: list[tuple[str, bytes]], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()


def _names(path: Path, data: bytes) -> list[str]:
    path.write_bytes(data)
    with open_zip(path, DataError, "an archive") as archive:
        return archive.namelist()


def test_usual_ones(tmp_path: Path) -> None:
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = _zip([("a", b"abc"), ("b", b"")], how)
        assert _names(tmp_path / "a.zip", data) == ["a", "b"]
        with_comment = data[:-2] + struct.pack("<H", 5) + b"hello"
        assert _names(tmp_path / "a.zip", with_comment) == ["a", "b"]
    assert _names(tmp_path / "a.zip", _zip([])) == []


def _with(data: bytes, mark: bytes, at: int, form: str, value: int) -> bytes:
    place = data.index(mark) + at
    return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]


_TWO = _zip([("a", b"abc" * 50), ("b", b"d")])
_WRONG = {
    "none": (b"abc", "no directory"),
    "a name twice": (_zip([("a", b""), ("a", b"")]), "'a' twice"),
    "encrypted": (_with(_TWO, b"PK\x01\x02", 8, "<H", 1), "'a' is encrypted"),
    "two sizes": (_with(_TWO, b"PK\x01\x02", 24, "<I", 1 << 31), "'a' has two sizes"),
    "a large directory": (_with(_TWO, b"PK\x05\x06", 12, "<I", 1 << 31), "directory has"),
    "entries in one another": (
        _with(_with(_TWO, b"PK\x01\x02", 20, "<I", 999), b"PK\x01\x02", 24, "<I", 999),
        "lie in one another",
    ),
}


@pytest.mark.parametrize("what", _WRONG)
def test_wrong_ones(tmp_path: Path, what: str) -> None:
    data, words = _WRONG[what]
    with pytest.raises(DataError, match=f"a\\.zip is not an archive, or is damaged: .*{words}"):
        _names(tmp_path / "a.zip", data)


def test_entries_that_become_large(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(_zip([("a", bytes(1 << 20))], zipfile.ZIP_DEFLATED))
    with open_zip(tmp_path / "a.zip", DataError, "an archive") as archive:
        check_inflated(archive.infolist(), 1 << 20)
        with pytest.raises(zipfile.BadZipFile, match="more than 50 times its size"):
            check_inflated(archive.infolist(), 1 << 19)


def test_a_directory_of_very_many_entries(tmp_path: Path) -> None:
    data = _zip([("a" * 60_000 + str(i), b"") for i in range(150)])
    with pytest.raises(DataError, match="its directory has"):
        _names(tmp_path / "a.zip", data)
