"""Files on any of pyarrow's file systems, by a path or a URI."""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adder_onnx.errors import DataError
from adder_onnx.evaluation.file_systems import Storage, explained, open_storage
from adder_onnx.evaluation.folder_uri import parse_folder_uri
from adder_onnx.evaluation.folders import files_below

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["Place", "is_uri", "place_of"]

_OBJECT_STORES = frozenset(("abfs", "gcs", "s3"))
"""What pyarrow calls file systems whose files appear when they are closed, and which rename
nothing."""


class Place(NamedTuple):
    """A file or a folder.

    Attributes:
        file_system: where it is.
        path: on that file system.
        shown: an absolute path or a URI, which any machine understands.
    """

    file_system: FileSystem
    path: str
    shown: str

    def below(self, name: str) -> Place:
        """A file or folder in this folder, at a path with slashes."""
        return self._at(f"{self.path.rstrip('/')}/{name}", lambda names: (*names, *name.split("/")))

    def beside(self, name: str) -> Place:
        """A file or folder beside this one."""
        folder = self.path.rstrip("/").rpartition("/")[0]
        return self._at(f"{folder}/{name}", lambda names: (*names[:-1], name))

    def _at(self, path: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Place:
        if not is_uri(self.shown):
            return Place(self.file_system, path, path)
        uri = parse_folder_uri(self.shown)
        return Place(self.file_system, path, uri.at(change(uri.names)))

    @property
    def name(self) -> str:
        """Its last part."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def renames(self) -> bool:
        """Whether its file system renames files and folders, at once and whole."""
        return self.file_system.type_name not in _OBJECT_STORES

    def exists(self) -> bool:
        """Whether there is anything.

        Raises:
            DataError: that cannot be found out.
        """
        from pyarrow.fs import FileType

        with explained(self.shown, "read"):
            found = self.file_system.get_file_info(self.path).type
        return bool(found != FileType.NotFound)

    def files(self) -> dict[str, int]:
        """The names of the files in this folder, sorted, and their sizes in bytes.

        There are none where there is no such folder.

        Raises:
            DataError: it cannot be read.
        """
        from pyarrow.fs import FileSelector, FileType

        with explained(self.shown, "read"):
            found = self.file_system.get_file_info(
                FileSelector(self.path, allow_not_found=True, recursive=False)
            )
        return {
            info.base_name: info.size
            for info in sorted(found, key=lambda info: str(info.path))
            if info.type == FileType.File
        }

    def tree(self) -> list[str]:
        """Paths of all files in this folder and those below, from it on; of a file only "".

        Hidden ones on this machine are left out.

        Raises:
            DataError: there is nothing, or it cannot be read.
        """
        from pyarrow.fs import FileSelector, FileType

        with explained(self.shown, "read"):
            found = self.file_system.get_file_info(self.path)
            if found.type == FileType.NotFound:
                raise DataError(f"{self.shown} does not exist; --data takes a folder or a file")
            if found.type == FileType.File:
                return [""]
            if not is_uri(self.shown):  # where names need not be Unicode, as pyarrow has it
                return [
                    os.path.relpath(str(file), self.path) for file in files_below(Path(self.path))
                ]
            selector = FileSelector(self.path, recursive=True)
            below = len(self.path.rstrip("/")) + 1
            listed = self.file_system.get_file_info(selector)
            return [one.path[below:] for one in listed if one.type == FileType.File]

    def read(self) -> bytes:
        """All of this file.

        Raises:
            DataError: it cannot be read.
        """
        with (
            explained(self.shown, "read"),
            self.file_system.open_input_stream(self.path, compression=None) as file,
        ):
            return bytes(file.read())

    def write(self, data: bytes) -> None:
        """Writes this file, whole or not at all, in the place of any other.

        Raises:
            AdderError: it cannot be written.
        """
        with explained(self.shown, "write"):
            if not self.renames:
                self._put(self.path, data)
                return
            temporary = self.beside(f".{self.name}.{secrets.token_hex(8)}").path
            try:
                self._put(temporary, data)
                self.file_system.move(temporary, self.path)
            except BaseException:
                if self.file_system.get_file_info(temporary).is_file:
                    self.file_system.delete_file(temporary)
                raise

    def _put(self, path: str, data: bytes) -> None:
        with self.file_system.open_output_stream(path, compression=None) as file:
            file.write(data)


def is_uri(text: str) -> bool:
    """Whether it is a URI, such as ``s3://bucket/folder``, rather than a path."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.isascii() and scheme.isalnum()


def place_of(where: str) -> Place:
    """The file or folder at a path or a URI.

    Raises:
        DataError: pyarrow has no such file system, or does not take such a path.
    """
    from pyarrow.fs import LocalFileSystem

    if not is_uri(where):
        path = os.path.abspath(where)
        if "\0" in path or not _is_unicode(path):
            raise DataError(f"{path!r} is not a path of Unicode, as pyarrow needs it: rename it")
        return Place(LocalFileSystem(), path, path)
    uri = parse_folder_uri(where)
    storage = _storage(uri.at(()))
    return Place(storage.system, storage.path_of(uri.names), str(uri))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@functools.lru_cache(maxsize=16)
def _storage(root: str) -> Storage:
    """A file system, of which each file is a part; to make one may take a while."""
    return open_storage(parse_folder_uri(root))
