"""What is compressed by gzip, inflated as far as it is credible."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import IO

from adder_onnx.errors import DataError

__all__ = ["Inflating", "is_gzip"]

_MAGIC = b"\x1f\x8b"
_GZIP = 31  # what zlib calls a window of 32 KiB in a gzip file
_RATIO = 50
"""Images and labels become some tenfold; only zeros become more."""

_FREE = 64 << 20
_MOST_MEMBERS = 1000
_CHUNK = 1 << 16


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip's do."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class Inflating(io.RawIOBase):
    """The contents of a gzip file, to be read once.

    It ends in an error after 64 MiB and 50 times the file's size, as no data do, and after 1000
    compressed files in one. The checksums are compared.

    Args:
        file: what is compressed.
        path: of it, for messages.

    Raises:
        DataError: when read, that it is no such file, is truncated, or becomes too large.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._left = _FREE + _RATIO * os.fstat(file.fileno()).st_size
        self._members = 0
        self._inflater = zlib.decompressobj(_GZIP)
        self._input = b""
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        try:
            data = self._next(len(buffer))
        except zlib.error as error:
            raise self._damaged(str(error)) from error
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"{self._path} becomes more than {_RATIO} times its size when it is unpacked, as "
                "no images do: it is not read"
            )
        buffer[: len(data)] = data
        return len(data)

    def _next(self, count: int) -> bytes:
        """At most so many bytes, none only at the end."""
        while True:
            self._input = self._input or self._file.read(_CHUNK)
            ended = not self._input
            if not self._begun:
                if self._members:  # zeros may fill up the file
                    self._input = self._input.lstrip(b"\0")
                    if ended:
                        return b""
                    if not self._input:
                        continue
                self._begin()
            data = self._inflater.decompress(self._input, count)
            self._input = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._input = self._inflater.unused_data
                self._begun = False
            elif ended and not data:
                raise self._damaged("it ends too early")
            if data:
                return data

    def _begin(self) -> None:
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise self._damaged(f"it is more than {_MOST_MEMBERS} files")
        self._inflater = zlib.decompressobj(_GZIP)
        self._begun = True

    def _damaged(self, why: str) -> DataError:
        return DataError(
            f"{self._path} is not a gzip file, or is truncated; fetch it again ({why})"
        )
