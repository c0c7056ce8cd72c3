"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from adder_onnx.errors import AdderError

__all__ = ["check_writable", "write_atomically"]


def check_writable(path: Path) -> None:
    """Finds out early whether a file can be written.

    Raises:
        AdderError: the folder does not exist or cannot be written to, or ``path`` is a folder.
    """
    folder = path.parent
    if path.is_dir():
        raise AdderError(f"cannot write {path}: it is a folder")
    if not folder.is_dir():
        raise AdderError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AdderError(f"cannot write {path}: no permission to write in {folder}")


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name beside it and renames that.

    Raises:
        AdderError: the file cannot be written; nothing is left behind.
    """
    check_writable(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise AdderError(f"cannot write {path}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
