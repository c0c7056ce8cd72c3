"""Whether files can be read, and writing them whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adder_onnx.errors import AdderError

__all__ = [
    "check_readable",
    "check_writable",
    "open_atomically",
    "open_scratch",
    "replaces",
    "same_file",
    "usual_mode",
    "write_atomically",
]


_LONGEST_NAME = 200
"""Bytes of a file's name in that of its temporary one, of which file systems take 255 in all."""


def check_readable(path: Path, error: type[AdderError], *, folder: bool = False) -> int:
    """Checks that a path is that of a file: no folder, pipe or device, which may never end.

    Args:
        path: what the user or a file has named.
        error: the class of the error.
        folder: whether it may be a folder, too.

    Returns:
        The file's size in bytes, 0 for a folder.

    Raises:
        AdderError: it is something else, is not there, or cannot be looked at.
    """
    try:
        status = os.stat(path)
    except OSError as reason:
        raise error(f"cannot read {path}: {reason.strerror or reason}") from reason
    except ValueError as reason:  # of a name with a zero in it
        raise error(f"cannot read {str(path)!r}: {reason}") from reason
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    if not stat.S_ISDIR(status.st_mode):
        raise error(f"cannot read {path}: it is not a file but a pipe, a socket or a device")
    if not folder:
        raise error(f"cannot read {path}: it is not a file but a folder (Is a directory)")
    return 0


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same place, or would once there is something."""
    try:
        return os.path.realpath(one) == os.path.realpath(other) or os.path.samefile(one, other)
    except (OSError, ValueError):  # one is not there, or cannot be
        return False


def replaces(path: Path, other: Path) -> bool:
    """Whether writing to ``path`` takes away what is, or will be, in ``other``.

    A device or a pipe takes what is written and replaces nothing.
    """
    return not _is_special(path) and same_file(path, other)


def check_writable(path: Path) -> None:
    """Finds out early whether a file can be written.

    Raises:
        AdderError: the folder does not exist or cannot be written to, or ``path`` is a folder.
    """
    if "\0" in str(path):
        raise AdderError(f"cannot write {str(path)!r}: a name has no zeros in it")
    if os.path.isdir(path):
        raise AdderError(f"cannot write {path}: it is a folder")
    if _is_special(path):
        return
    folder = Path(os.path.realpath(path)).parent
    if not os.path.isdir(folder):
        raise AdderError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AdderError(f"cannot write {path}: no permission to write in {folder}")
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except OSError as error:  # the name is too long
        raise AdderError(f"cannot write {path}: {error.strerror or error}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, see `open_atomically`.

    Raises:
        AdderError: the file cannot be written; nothing is left behind.
    """
    with open_atomically(path) as file:
        file.write(data)


@contextmanager
def open_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file to write under a temporary name beside ``path``, which is renamed at the end.

    A symbolic link stays one: the file it points to is replaced. Devices and pipes, such as
    /dev/stdout, are written to as they are.

    Raises:
        AdderError: the file cannot be written, or what is written cannot be read from another one;
            nothing is left behind.
    """
    check_writable(path)
    try:
        if _is_special(path):
            with path.open("wb") as file:
                yield file
        else:
            with _replacing(Path(os.path.realpath(path))) as file:
                yield file
    except OSError as error:
        raise AdderError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    # Its name is known before the file is there: a signal may come at any time.
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])
    temporary = path.with_name(f".{name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # an interrupt leaves nothing behind either
        temporary.unlink(missing_ok=True)
        raise


def open_scratch(path: Path) -> IO[bytes]:
    """A file beside ``path`` that has no name, for what becomes that file in the end.

    It is gone once it is closed or the process has ended, however that was.

    Raises:
        AdderError: it cannot be made.
    """
    folder = None if _is_special(path) else Path(os.path.realpath(path)).parent
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise AdderError(f"cannot write {path}: {error.strerror or error}") from error


def _is_special(path: Path) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)


def usual_mode() -> int:
    """The permissions that a new file gets."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
