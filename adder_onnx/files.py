"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from adder_onnx.errors import AdderError

__all__ = ["check_writable", "usual_mode", "write_atomically"]


def check_writable(path: Path) -> None:
    """Finds out early whether a file can be written.

    Raises:
        AdderError: the folder does not exist or cannot be written to, or ``path`` is a folder.
    """
    if os.path.isdir(path):
        raise AdderError(f"cannot write {path}: it is a folder")
    if _is_special(path):
        return
    folder = Path(os.path.realpath(path)).parent
    if not os.path.isdir(folder):
        raise AdderError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AdderError(f"cannot write {path}: no permission to write in {folder}")


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name beside it and renames that.

    A symbolic link stays one: the file it points to is replaced. Devices and pipes, such as
    /dev/stdout, are written to as they are.

    Raises:
        AdderError: the file cannot be written; nothing is left behind.
    """
    check_writable(path)
    try:
        if _is_special(path):
            path.write_bytes(data)
        else:
            _replace(Path(os.path.realpath(path)), data)
    except OSError as error:
        raise AdderError(f"cannot write {path}: {error.strerror or error}") from error


def _replace(path: Path, data: bytes) -> None:
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(usual_mode())
        temporary.replace(path)
    except BaseException:  # an interrupt leaves nothing behind either
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise


def _is_special(path: Path) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)


def usual_mode() -> int:
    """The permissions that a new file gets."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
