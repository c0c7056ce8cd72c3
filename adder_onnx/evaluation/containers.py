"""Files of a data set, in a folder or in a tar archive that is read where it lies."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adder_onnx import memory
from adder_onnx.archives.tars import open_tar
from adder_onnx.errors import AdderError, DataError
from adder_onnx.evaluation.inflating import Inflating, is_gzip
from adder_onnx.files import check_readable

__all__ = ["Archive", "Folder", "is_archive"]

_SHARE = 3
"""A batch takes its own size as a file, as arrays, and among the others of its split."""

_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_LARGEST = 1 << 30  # far above the largest file of the data sets that come in archives
_LARGEST_ARCHIVE = 4 << 30
_MOST_MEMBERS = 10_000
_CHUNK = 1 << 20


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
            DataError: one cannot be read, or they are larger than the memory.
        """
        sizes = [check_readable(self.path / name, DataError) for name in names]
        memory.require(_SHARE * sum(sizes), str(self.path), DataError)
        return {name: _read(self.path / name) for name in names}

    def name_of(self, name: str) -> str:
        """What messages call the file."""
        return str(self.path / name)


class Archive:
    """The files in a tar archive, which may be compressed by gzip. Nothing is written to disk.

    Args:
        path: the archive.

    Raises:
        DataError: it cannot be read, is truncated, larger than archives of images are, or holds
            what they have no need of: a link, a device, an absolute path or one with ``..``.
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
        total = 0
        with _members(self.path) as members:
            for member, archive in members:
                name = _normal(member.name)
                file = archive.extractfile(member) if name in names else None
                if file is not None:
                    total += member.size
                    memory.require(_SHARE * total, str(self.path), DataError)
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
    size = check_readable(path, DataError)
    if size > _LARGEST_ARCHIVE:
        raise DataError(f"{path} has {size} bytes, more than any data set that comes in an archive")
    try:
        with path.open("rb") as file:
            stream = io.BufferedReader(Inflating(file, path), _CHUNK) if is_gzip(path) else file
            with open_tar(stream) as archive:
                yield _checked(path, archive)
            while stream is not file and stream.read(_CHUNK):
                continue  # gzip compares its checksum at the very end
    except AdderError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged archive makes the reader fail in any way
        raise DataError(
            f"{path} is not a tar archive, or is truncated; fetch it again ({error})"
        ) from error


def _checked(
    path: Path, archive: tarfile.TarFile
) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    for count, member in enumerate(archive, 1):
        if count > _MOST_MEMBERS:
            raise DataError(f"{path} holds more than {_MOST_MEMBERS} files; it is not read")
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


def _normal(name: str) -> str:
    return str(PurePosixPath(name))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
