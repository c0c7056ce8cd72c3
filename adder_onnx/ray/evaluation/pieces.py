"""The parts that a data set is run in.

A piece says what images there are, in terms that any machine understands; they are read where it is
run. Which images are in which piece depends on the data set and the size of pieces alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.images import decode_image, open_image
from adder_onnx.ray.evaluation.storage import is_uri, place_of

__all__ = ["FilesPiece", "Label", "Piece", "Sample", "class_by_number", "fingerprint"]

Label = int | str
"""A class as the data call it, by a number or a name."""

_MOST_CLASSES = 1 << 31


@dataclass(frozen=True)
class Sample:
    """An image of a piece.

    Attributes:
        name: what it is called, in answers and messages.
        open: decodes it; raises DataError if it cannot be read.
        label: its class, or None.
    """

    name: str
    open: Callable[[], Image.Image]
    label: Label | None = None


class Piece(Protocol):
    """Images that are run together."""

    @property
    def images(self) -> int | None:
        """How many there are; None where only reading tells."""

    def describe(self) -> str:
        """What it is, for messages."""

    def samples(self) -> Iterator[Sample]:
        """The images, in order; each is decoded when it is asked for.

        Raises:
            DataError: what they are in cannot be read.
        """


@dataclass(frozen=True)
class FilesPiece:
    """Images that are files of their own.

    Attributes:
        names: paths, or URIs.
        folder: that the paths are below, where they are relative.
        labels: of each, or None.
    """

    names: tuple[str, ...]
    folder: str
    labels: tuple[Label, ...] | None = None

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.names)

    def describe(self) -> str:
        """What it is, for messages."""
        return f"{len(self.names)} images, from {self.names[0]}"

    def samples(self) -> Iterator[Sample]:
        """The images; their files are opened when they are decoded."""
        for i, name in enumerate(self.names):
            label = None if self.labels is None else self.labels[i]
            if is_uri(name):
                yield Sample(name, partial(_open_uri, name), label)
            else:
                yield Sample(name, partial(open_image, Path(self.folder, name)), label)


def _open_uri(uri: str) -> Image.Image:
    return decode_image(place_of(uri).read())


def class_by_number(number: int, name: str) -> int | None:
    """The class that has a number; None for -1, by which Hugging Face's data say it is unknown.

    Args:
        number: as the data have it.
        name: of the image, for messages.

    Raises:
        DataError: no class has such a number.
    """
    if number == -1:
        return None
    if not 0 <= number < _MOST_CLASSES:
        raise DataError(f"{name}: the label {number} is not the number of a class")
    return number


def fingerprint(pieces: Sequence[Any]) -> str:
    """SHA-256 over all that pieces say: the same for the same images in the same pieces."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(json.dumps([type(piece).__name__, asdict(piece)]).encode())
    return digest.hexdigest()
