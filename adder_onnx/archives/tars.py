"""Tar archives that somebody else has made."""

from __future__ import annotations

import tarfile
from typing import IO, Any

__all__ = ["open_tar"]

_LONGEST_HEADER = 1 << 14
_EXTENDED = frozenset((b"L", b"K", b"x", b"g", b"X"))


def open_tar(file: IO[bytes]) -> tarfile.TarFile:
    """An archive that is read once, from its beginning to its end; nothing is compressed.

    Headers that go on in others, as those of long names do, may have 16 KiB, and files with holes
    are not read: of both `tarfile` reads as much as they say, in quadratic time.

    Raises:
        tarfile.TarError: it is no such archive; or later, for a header that is not taken.
    """
    return tarfile.open(fileobj=file, mode="r|", tarinfo=_Member)


class _Member(tarfile.TarInfo):
    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _EXTENDED and self.size > _LONGEST_HEADER:
            raise tarfile.HeaderError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _refuse(self, *_: Any) -> Any:
        raise tarfile.HeaderError("a file with holes")

    _proc_sparse = _refuse
    _proc_gnusparse_00 = _refuse
    _proc_gnusparse_01 = _refuse
    _proc_gnusparse_10 = _refuse
