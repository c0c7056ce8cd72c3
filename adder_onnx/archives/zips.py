"""Zip archives that somebody else has made."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adder_onnx.errors import AdderError

__all__ = ["check_inflated", "open_zip"]

_MOST_DIRECTORY = 8 << 20
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = 20
_LONGEST_COMMENT = 1 << 16
_ENCRYPTED = 1
_RATIO = 50
"""Weights and images become a few times as large; only zeros become more."""


@contextmanager
def open_zip(path: Path, error: type[AdderError], what: str) -> Iterator[zipfile.ZipFile]:
    """An archive whose directory was checked; what goes wrong within the context is its fault.

    1. The directory has at most 8 MiB, which is more than a hundred thousand entries.
    2. No two entries have one name, and none is encrypted.
    3. All entries together have no more compressed bytes than the file, so that they do not lie in
       one another; one that is stored has as many bytes as it says.

    How much an entry becomes when it is read, ``file_size``, is for the reader to bound; it never
    becomes more.

    Args:
        path: the file.
        error: the class of the errors.
        what: what the file should be, for messages: ``an .npz file``.

    Raises:
        AdderError: it is no such archive, or is damaged.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            _check_directory(file, size)
            with zipfile.ZipFile(file) as archive:
                _check_entries(archive.infolist(), size)
                yield archive
    except AdderError:
        raise
    except MemoryError as reason:
        raise error(f"{path}: there is not enough memory to read it") from reason
    except OSError as reason:
        raise error(f"cannot read {path}: {reason.strerror or reason}") from reason
    except Exception as reason:  # a damaged archive makes the reader fail in any way
        raise error(f"{path} is not {what}, or is damaged: {reason}") from reason


def check_inflated(entries: Sequence[zipfile.ZipInfo], free: int) -> None:
    """Refuses entries that become more than ``free`` bytes and 50 times their size.

    Raises:
        zipfile.BadZipFile: they do.
    """
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    size = sum(entry.file_size for entry in packed)
    if size > free + _RATIO * sum(entry.compress_size for entry in packed):
        raise zipfile.BadZipFile(
            f"what is compressed in it becomes {size} bytes, more than {_RATIO} times its size"
        )


def _check_directory(file: IO[bytes], size: int) -> None:
    file.seek(max(0, size - _END.size - _LONGEST_COMMENT))
    tail = file.read()
    end = len(tail) - _END.size
    if not (tail[end:].startswith(b"PK\x05\x06") and tail.endswith(b"\0\0")):
        end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + _END.size > len(tail):
        raise zipfile.BadZipFile("it has no directory")
    directory = _END.unpack_from(tail, end)[5]
    before = end - _LOCATOR - _END64.size
    if before >= 0 and tail[before:].startswith(b"PK\x06\x06"):
        directory = max(_END64.unpack_from(tail, before)[8], 0)
    if directory > min(size, _MOST_DIRECTORY):
        raise zipfile.BadZipFile(f"its directory has {directory} bytes")


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    names = set()
    compressed = 0
    for entry in entries:
        if entry.filename in names:
            raise zipfile.BadZipFile(f"it has {entry.filename!r} twice")
        names.add(entry.filename)
        if entry.flag_bits & _ENCRYPTED:
            raise zipfile.BadZipFile(f"{entry.filename!r} is encrypted")
        stored = entry.compress_type == zipfile.ZIP_STORED
        if stored and entry.compress_size != entry.file_size:
            raise zipfile.BadZipFile(f"{entry.filename!r} has two sizes")
        compressed += entry.compress_size
    if compressed > size:
        raise zipfile.BadZipFile("its entries lie in one another")
