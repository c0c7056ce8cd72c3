"""Files on any of pyarrow's file systems."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adder_onnx.dependencies import import_failure
from adder_onnx.errors import AdderError, DataError
from adder_onnx.evaluation.folder_tree import Folder, list_tree
from adder_onnx.evaluation.folder_uri import FolderUri
from adder_onnx.text import shorten

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["Storage", "explained", "open_storage"]

_LONGEST_REASON = 300
_REFUSALS = (
    "ACCESS_DENIED",
    "AuthenticationFailed",
    "AuthorizationFail",
    "INVALID_ACCESS_KEY_ID",
    "PERMISSION_DENIED",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNAUTHENTICATED",
    "credential",
)
"""What file systems say where credentials are wrong or there are none."""


@dataclass(frozen=True, eq=False)
class Storage:
    """A file system, and how what is on it is called.

    Attributes:
        uri: of a folder on it.
        system: itself.
        prefix: what its paths have before the names that a URI's path consists of.
    """

    uri: FolderUri
    system: FileSystem
    prefix: str

    def list(self) -> Folder:
        """All that is in and below the folder of `uri`.

        Raises:
            DataError: it is no folder, or cannot be read.
        """
        path = self.path_of(self.uri.names)
        with explained(str(self.uri)):
            try:
                return list_tree(self.system, path)
            except (FileNotFoundError, NotADirectoryError) as error:
                missing = isinstance(error, FileNotFoundError)
                if missing and not self.system.get_file_info(path).is_file:
                    raise
                raise DataError(
                    f"{self.uri} is not a folder; expected one folder of images per class"
                ) from error

    def is_file(self, names: tuple[str, ...]) -> bool:
        """Whether a file is there, and may be looked at."""
        try:
            return bool(self.system.get_file_info(self.path_of(names)).is_file)
        except Exception:  # file systems may raise anything
            return False

    def read(self, names: tuple[str, ...], most: int | None = None) -> bytes:
        """The bytes of a file, or the first of them.

        Raises:
            DataError: it cannot be read.
        """
        with (
            explained(self.uri.at(names)),
            self.system.open_input_stream(self.path_of(names), compression=None) as file,
        ):
            return bytes(file.read(most))

    def path_of(self, names: tuple[str, ...]) -> str:
        """What the file system calls the file or folder with these names."""
        return (self.prefix + "/".join(names)).rstrip("/") or "/"


def open_storage(uri: FolderUri) -> Storage:
    """The file system that a folder is on.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        DataError: pyarrow does not understand the URI, or cannot reach such file systems.
    """
    try:
        from pyarrow import fs  # noqa: F401
    except ImportError as error:
        title = "pyarrow, which reads data by their URI,"
        raise import_failure(error, "pyarrow", 'pip install "adder-onnx[ray]"', title) from error
    with explained(str(uri)):
        system, path = _from_uri(str(uri))
    below = "/".join(uri.names)
    if not path.endswith(below):
        raise DataError(f"cannot read {uri}: pyarrow takes its path for {path!r}")
    prefix = path.removesuffix(below)
    return Storage(uri, system, prefix if below else f"{prefix.rstrip('/')}/")


def _from_uri(uri: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem

    system, path = FileSystem.from_uri(uri)
    return system, path


@contextmanager
def explained(what: str, verb: str = "read") -> Iterator[None]:
    """Within it, whatever a file system raises is an error of one line.

    Args:
        what: the file or folder, by its path or URI.
        verb: what is done with it: ``read`` or ``write``.

    Raises:
        DataError: it cannot be read.
        AdderError: it cannot be written.
    """
    kind = DataError if verb == "read" else AdderError
    try:
        yield
    except AdderError:
        raise
    except FileNotFoundError as error:
        if verb == "write":
            raise AdderError(f"cannot write {what}: there is no such folder") from error
        raise DataError(f"{what} does not exist") from error
    except Exception as error:  # file systems may raise anything
        said = " ".join(str(error).split()) or type(error).__name__
        reason = shorten(said, _LONGEST_REASON)
        if any(word in said for word in _REFUSALS):
            reason += (
                f"; give credentials that may {verb} it, for S3 in AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or ~/.aws"
            )
        raise kind(f"cannot {verb} {what}: {reason}") from error
