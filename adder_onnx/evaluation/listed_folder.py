"""Folders on any of pyarrow's file systems, as a `Path` is one on the machine's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adder_onnx import memory
from adder_onnx.errors import DataError
from adder_onnx.evaluation.file_systems import Storage, open_storage
from adder_onnx.evaluation.folder_tree import Folder
from adder_onnx.evaluation.folder_uri import parse_folder_uri

__all__ = ["AnyPath", "ListedPath", "list_folder"]


@dataclass(frozen=True, eq=False)
class _Listing:
    storage: Storage
    root: Folder

    def covers(self, names: tuple[str, ...]) -> bool:
        """Whether it would have what is there."""
        own = self.storage.uri.names
        return names[: len(own)] == own

    def folder(self, names: tuple[str, ...]) -> Folder | None:
        """What is in a folder, if it is one that was listed."""
        own = self.storage.uri.names
        return self.root.find(names[len(own) :]) if self.covers(names) else None


@dataclass(frozen=True, slots=True)
class ListedPath:
    """A file or a folder in or near one that was listed; its attributes are those of a `Path`.

    What is outside can be read, and asked whether it is a file, and is no folder. `str` gives the
    URI, by which any other machine finds it.

    Attributes:
        parts: what the file system is called in a URI, the folders, the name.
    """

    _listing: _Listing = field(repr=False)
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.parts[-1] if len(self.parts) > 1 else ""

    @property
    def stem(self) -> str:
        return os.path.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.name)[1]

    @property
    def parents(self) -> Sequence[ListedPath]:
        return [ListedPath(self._listing, self.parts[:i]) for i in range(len(self.parts))[:0:-1]]

    @property
    def parent(self) -> ListedPath:
        return ListedPath(self._listing, self.parts[:-1]) if len(self.parts) > 1 else self

    def absolute(self) -> ListedPath:
        return self

    def __truediv__(self, other: str) -> ListedPath:
        names = tuple(name for name in other.split("/") if name)
        return ListedPath(self._listing, self.parts + names)

    def __str__(self) -> str:
        return self._listing.storage.uri.at(self._names)

    @property
    def identity(self) -> int:
        """The same for paths of which links lead to the same folder, and for no others."""
        return id(self._listing.folder(self._names))

    def is_dir(self) -> bool:
        return self._listing.folder(self._names) is not None

    def is_file(self) -> bool:
        if self._listing.covers(self._names):
            return self._size is not None
        return self._listing.storage.is_file(self._names)

    def iterdir(self) -> Iterator[ListedPath]:
        """What is in the folder; nothing if it is none."""
        folder = self._folder
        return self._all({**folder.files, **folder.folders})

    def files(self) -> Iterator[ListedPath]:
        """The files in the folder."""
        return self._all(self._folder.files)

    def folders(self) -> Iterator[ListedPath]:
        """The folders in the folder."""
        return self._all(self._folder.folders)

    def read(self, most: int | None = None) -> bytes:
        """The bytes of the file, or the first of them.

        Raises:
            DataError: it cannot be read, or is larger than the memory that may be taken.
        """
        if most is None:
            memory.require(self._size or 0, str(self), DataError)
        return self._listing.storage.read(self._names, most)

    def _all(self, names: Iterable[str]) -> Iterator[ListedPath]:
        return (ListedPath(self._listing, (*self.parts, name)) for name in names)

    @property
    def _folder(self) -> Folder:
        return self._listing.folder(self._names) or Folder()

    @property
    def _names(self) -> tuple[str, ...]:
        return self.parts[1:]

    @property
    def _size(self) -> int | None:
        folder = self._listing.folder(self._names[:-1]) if self._names else None
        return folder.files.get(self.name) if folder else None


AnyPath = Path | ListedPath
"""A file or a folder, of this machine or listed."""


def list_folder(uri: str) -> ListedPath:
    """Lists a folder such as ``s3://bucket/folder``, and all that is below it.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        DataError: it is no URI of a folder, or one that cannot be read.
    """
    where = parse_folder_uri(uri)
    storage = open_storage(where)
    return ListedPath(_Listing(storage, storage.list()), (where.anchor, *where.names))
