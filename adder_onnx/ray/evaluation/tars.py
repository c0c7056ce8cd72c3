"""Images in tar files, as WebDataset lays them out.

1. Files beside each other whose names are the same up to the first dot of their last part are a
   sample, which may have an image, ``0001.jpg``, its class, ``0001.cls``, and anything else.
2. The image is the file whose name goes on, after that dot, as images' names end. Without such a
   file, each whose name ends so is an image, ``photo.2024.jpg``: none is left out.
3. The class is text in ``.cls`` or ``.label``, else ``label`` or ``cls`` in the object that
   ``.json`` is: a number, or a name; -1 says that it is not known.
4. An image is called by the tar file and its name in there.
5. A tar file is one piece; it may be compressed by gzip, bzip2 or xz.
"""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from adder_onnx import memory
from adder_onnx.archives.tars import open_tar
from adder_onnx.errors import DataError
from adder_onnx.evaluation.file_systems import explained
from adder_onnx.evaluation.folders import image_stem
from adder_onnx.evaluation.images import decode_image
from adder_onnx.ray.evaluation.pieces import Label, Sample, class_by_number
from adder_onnx.ray.evaluation.storage import place_of

__all__ = ["TAR_SUFFIXES", "TarPiece", "count_images"]

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""How tar files are called."""

_COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bz2"}
_MOST_OF_A_SAMPLE = 64
_NUMBER = re.compile(r"-?[0-9]{1,18}\Z")


@dataclass(frozen=True)
class TarPiece:
    """Images in a tar file.

    Attributes:
        file: its path or URI.
        images: how many are run, where that is known.
        rows: those that are run, counted from 0 in their order in the file, or None for all.
    """

    file: str
    images: int | None = None
    rows: tuple[int, ...] | None = None

    def describe(self) -> str:
        """What it is, for messages."""
        return f"the images of {self.file}"

    def samples(self) -> Iterator[Sample]:
        """The images; those of one sample are in memory at a time.

        Raises:
            DataError: the file cannot be read.
        """
        wanted = None if self.rows is None else frozenset(self.rows)
        for row, (name, label, data) in enumerate(_images(self.file)):
            if wanted is None or row in wanted:
                yield Sample(f"{self.file}/{name}", partial(decode_image, data), label)


def count_images(file: str) -> int:
    """How many images a tar file has, which is read for it.

    Raises:
        DataError: it cannot be read.
    """
    return sum(1 for _ in _images(file))


def _images(file: str) -> Iterator[tuple[str, Label | None, bytes]]:
    """Name, class and bytes of each image."""
    sample: dict[str, bytes] = {}
    key = None
    for name, data in _members(file):
        its = name[: len(name) - len(_extension(name))]
        if its != key or len(sample) == _MOST_OF_A_SAMPLE:
            yield from _of_sample(file, sample)
            sample, key = {}, its
        sample[name] = data
    yield from _of_sample(file, sample)


def _of_sample(file: str, sample: dict[str, bytes]) -> Iterator[tuple[str, Label | None, bytes]]:
    named = [name for name in sample if image_stem(name) != name]
    plain = [name for name in named if "." not in _extension(name)[1:]]
    label = _label(file, sample) if named else None
    for name in plain or named:
        yield name, label, sample[name]


def _label(file: str, sample: dict[str, bytes]) -> Label | None:
    found: dict[str, Any] = {_extension(name).lower(): (name, sample[name]) for name in sample}
    for extension in (".cls", ".label"):
        if extension in found:
            name, data = found[extension]
            text = data.decode(errors="replace").strip()
            return class_by_number(int(text), f"{file}/{name}") if _NUMBER.match(text) else text
    if ".json" not in found:
        return None
    name, data = found[".json"]
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}/{name} is no JSON: {error}") from error
    for key in ("label", "cls"):
        value = said.get(key) if isinstance(said, dict) else None
        if isinstance(value, int) and not isinstance(value, bool):
            return class_by_number(value, f"{file}/{name}")
        if isinstance(value, str):
            return value
    return None


def _extension(name: str) -> str:
    """What a name goes on with from the first dot within its last part."""
    last = posixpath.basename(name)
    start = last.find(".", 1)
    return last[start:] if start > 0 else ""


def _members(file: str) -> Iterator[tuple[str, bytes]]:
    with _opened(file) as opened:
        try:
            with open_tar(opened) as archive:
                for member in archive:
                    if not member.isfile() or posixpath.basename(member.name).startswith("."):
                        continue
                    memory.require(member.size, f"{file}/{member.name}", DataError)
                    content = archive.extractfile(member)
                    data = b"" if content is None else content.read()
                    if len(data) < member.size:
                        raise DataError(
                            f"cannot read {file}: it ends in the middle of {member.name}"
                        )
                    yield member.name, data
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"cannot read {file}: {error}") from error


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    import lzma

    import pyarrow

    place = place_of(file)
    suffix = posixpath.splitext(place.path)[1].lower()
    with explained(file, "read"):
        opened = place.file_system.open_input_stream(
            place.path, compression=_COMPRESSIONS.get(suffix), buffer_size=1 << 20
        )
        try:
            with opened:
                if suffix == ".xz":
                    with lzma.open(opened) as inflated:
                        yield inflated
                else:
                    yield opened
        except (lzma.LZMAError, pyarrow.ArrowException) as error:
            raise DataError(f"cannot read {file}: {error}") from error
