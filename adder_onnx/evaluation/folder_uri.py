"""URIs of folders, and of the files in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from adder_onnx.errors import DataError

__all__ = ["FolderUri", "parse_folder_uri"]

_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^/?#]*)@)?(?P<host>[^/?#@]*)"
    r"(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?",
    re.DOTALL | re.ASCII,
)
_PLAIN = "!$&'()*+,;=:@"  # of RFC 3986, beside letters, digits and -._~
_SECRETS = frozenset({"client_secret", "sig"})


@dataclass(frozen=True)
class FolderUri:
    """A URI in parts.

    Attributes:
        anchor: the scheme and what follows it up to the path: ``s3://bucket``.
        names: the folders of the path, decoded, without empty ones.
        query: options of the file system, with their question mark, as they were given.
    """

    anchor: str
    names: tuple[str, ...]
    query: str = ""

    def at(self, names: tuple[str, ...]) -> str:
        """The URI of what is at another path of the same file system."""
        return f"{self.anchor}/{'/'.join(quote(name, _PLAIN) for name in names)}{self.query}"

    def __str__(self) -> str:
        return self.at(self.names)


def parse_folder_uri(text: str) -> FolderUri:
    """The parts of a URI such as ``s3://bucket/folder``.

    Its path is percent-encoded; what has no place in a URI, such as spaces, means itself.

    Raises:
        DataError: it is none, has a fragment, or holds a secret, which would be in each file's URI
            and so in whatever is written.
    """
    found = _URI.fullmatch(text)
    if found is None:
        raise DataError(f"{text!r} is not a URI; expected one such as s3://bucket/folder")
    scheme, user, host = found["scheme"].lower(), found["user"], found["host"]
    query = quote(found["query"] or "", f"{_PLAIN}/?%[]")
    if ":" in (user or "") or any(name in _SECRETS for name, _ in parse_qsl(query[1:])):
        raise DataError(
            f"the URI of {found['path']!r} on {host!r} holds a password: its file system takes "
            "it from its environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if found["fragment"]:
        raise DataError(f"{text!r}: write %23 for # in a URI, %3F for ? and %25 for %")
    try:
        names = unquote(found["path"], errors="strict").split("/")
    except UnicodeDecodeError as error:
        raise DataError(f"{text!r} is not a URI of UTF-8: {error.reason}") from error
    authority = quote(host if user is None else f"{user}@{host}", f"{_PLAIN}%[]")
    return FolderUri(f"{scheme}://{authority}", tuple(name for name in names if name), query)
