"""Files of a data set, in a folder or in a tar archive that is read where it lies."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adder_onnx.errors import DataError

__all__ = ["Archive", "Folder", "is_archive"]

_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_LARGEST = 1 << 30  # far above the largest file of the data sets that come in archives
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Folder:
    """A folder's files; names are relative to it, with ``/``."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return (self.path / name).is_file()

    def read(self, names: Collection[str]) -> dict[str, bytes]:
        """Their contents.

        Raises:
            DataError: one cannot be read.
        """
        return {name: _read(self.path / name) for name in names}

    def name_of(self, name: str) -> str:
        """What messages call the file."""
        return str(self.path / name)


class Archive:
    """The files in a tar archive, which may be compressed by gzip. Nothing is written to disk.

    Args:
        path: the archive.

    Raises:
        DataError: it cannot be read, is truncated, or holds what an archive of images has no need
            of: a link, a device, an absolute path or one with ``..``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _members(path) as members:
            self._names = frozenset(
                _normal(member.name) for member, _ in members if member.isfile()
            )

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self._names

    def read(self, names: Collection[str]) -> dict[str, bytes]:
        """Their contents, in one pass over the archive.

        Raises:
            DataError: the archive cannot be read.
        """
        contents = {}
        with _members(self.path) as members:
            for member, archive in members:
                name = _normal(member.name)
                file = archive.extractfile(member) if name in names else None
                if file is not None:
                    contents[name] = file.read()
        return contents

    def name_of(self, name: str) -> str:
        """What messages call the file."""
        return f"{self.path}/{name}"


def is_archive(path: Path) -> bool:
    """Whether a path is a file that is called like a tar archive."""
    return path.name.lower().endswith(_SUFFIXES) and path.is_file()


@contextmanager
def _members(path: Path) -> Iterator[Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]]:
    try:
        with path.open("rb") as file:
            compressed = file.read(len(_GZIP)) == _GZIP
        with tarfile.open(path, "r:gz" if compressed else "r:") as archive:
            yield _checked(path, archive)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is not a tar archive, or is truncated; fetch it again ({error})"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _checked(
    path: Path, archive: tarfile.TarFile
) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    for member in archive:
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts:
            raise DataError(
                f"{path} holds {member.name!r}, which is outside the archive's own folder; such an "
                "archive is not read"
            )
        if not (member.isfile() or member.isdir()):
            raise DataError(
                f"{path} holds {member.name!r}, which is a link or a device; such an archive is "
                "not read"
            )
        if member.issparse() or member.size > _LARGEST:
            raise DataError(
                f"{path} holds {member.name!r} of {member.size} bytes, more than any file of the "
                "data sets that come in archives"
            )
        yield member, archive
    while archive.fileobj is not None and archive.fileobj.read(_CHUNK):
        continue  # gzip compares its checksum at the very end


def _normal(name: str) -> str:
    return str(PurePosixPath(name))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
