"""All that is in and below a folder on one of pyarrow's file systems."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["Folder", "list_tree"]

_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Folder:
    """What is in a folder. An object store may have a file and a folder of the same name.

    Attributes:
        files: their names and sizes in bytes.
        folders: by name; where links lead to the same folder, the same.
    """

    files: dict[str, int] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)

    def find(self, names: tuple[str, ...]) -> Folder | None:
        """A folder below this one, or this one, or None if there is none."""
        folder: Folder | None = self
        for name in names:
            folder = folder and folder.folders.get(name)
        return folder


def list_tree(system: FileSystem, path: str) -> Folder:
    """Lists a folder and all that is below it; links are followed.

    Object stores have no folders but in the names of files: those count, whether they are listed
    or not. What has an empty name, as in ``a//b``, pyarrow cannot open: it is left out, with a
    warning.

    Raises:
        Exception: whatever the file system raises.
    """
    from pyarrow.fs import FileSelector, FileType, LocalFileSystem

    if isinstance(system, LocalFileSystem):
        return _list_local(system, path)
    root = Folder()
    unnamed = []
    start = len(path.rstrip("/")) + 1
    for info in system.get_file_info(FileSelector(path, recursive=True)):
        *above, name = info.path[start:].rstrip("/").split("/")
        if info.type not in (FileType.File, FileType.Directory) or not name:
            continue
        if not all(above):
            unnamed.append(info.path)
            continue
        folder = root
        for part in above:
            folder = folder.folders.setdefault(part, Folder())
        if info.type == FileType.Directory:
            folder.folders.setdefault(name, Folder())
        else:
            folder.files[name] = info.size or 0
    if unnamed:
        _logger.warning(
            "%s has %d files in folders without a name, which cannot be read, such as %r",
            path,
            len(unnamed),
            unnamed[0],
        )
    return root


def _list_local(system: FileSystem, path: str) -> Folder:
    """The same where links may lead from a folder back to those above it."""
    from pyarrow.fs import FileSelector, FileType

    root = Folder()
    known = {_identity(path): root}
    left = [(path, root)]
    while left:
        above, folder = left.pop()
        for info in system.get_file_info(FileSelector(above)):
            if info.type == FileType.File:
                folder.files[info.base_name] = info.size
            elif info.type == FileType.Directory:
                identity = _identity(info.path)
                if identity not in known:
                    known[identity] = Folder()
                    left.append((info.path, known[identity]))
                folder.folders[info.base_name] = known[identity]
    return root


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
