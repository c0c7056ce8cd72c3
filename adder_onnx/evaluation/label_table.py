"""A table of images and their classes."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass

from adder_onnx.errors import DataError
from adder_onnx.evaluation.class_names import normalized
from adder_onnx.evaluation.listed_folder import AnyPath
from adder_onnx.evaluation.text_files import Row, read_lines, split_columns

__all__ = ["Labelled", "read_table"]

_IMAGE_HEADERS = frozenset(
    {
        "file",
        "filename",
        "filepath",
        "id",
        "image",
        "imageid",
        "imagename",
        "imagepath",
        "img",
        "imgid",
        "imgname",
        "imgpath",
        "name",
        "path",
    }
)
_LABEL_HEADERS = frozenset(
    {
        "breed",
        "category",
        "class",
        "classid",
        "classname",
        "groundtruth",
        "gt",
        "label",
        "labels",
        "species",
        "target",
        "y",
    }
)
_INTEGER = re.compile(r"[0-9]{1,18}")
_INDEX_HEADER = re.compile(r"|index|unnamed[0-9 ]+")
_WITH_INDEX = 3


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a file says of an image.

    Attributes:
        line: where, from 1.
        image: its name, perhaps with folders before it, perhaps without suffix.
        label: its class: a name, a WordNet id or a number.
    """

    line: int
    image: str
    label: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders, as far as they are named, and the name."""
        names = self.image.replace("\\", "/").split("/")
        return tuple(name for name in names if name not in ("", ".", ".."))


def read_table(path: AnyPath, images: Sequence[AnyPath]) -> list[Labelled]:
    """The rows of a table with a column of images and one of their classes.

    Columns are separated as `split_columns` says. With two columns the image comes first, unless a
    header names them otherwise; with more, a header must name one of images and one of classes. A
    first line is a header if it is no image's and names such columns, or says no number where all
    others do. Of several columns of images in a header, the one with their names is taken. A first
    column that pandas or R have written to number the rows is left out, see `_without_index`.

    Args:
        path: the table.
        images: those that it is for, to tell a header.

    Raises:
        DataError: it cannot be read, or its columns cannot be told; or its numbers count its lines.
    """
    names = {name for file in images for name in (file.name, file.stem)}
    table = split_columns(path, read_lines(path))
    rows = _without_index(table, names)
    width = len(rows[0].fields)
    for row in rows:
        if len(row.fields) != width:
            raise DataError(
                f"{path}, line {row.number}: {len(row.fields)} columns, where line "
                f"{rows[0].number} has {width}"
            )
    if width < 2:
        raise DataError(f"{path} has one column; expected an image and its class in each line")
    image, label = _columns(rows, names)
    named = any(_is_name(field, names) for field in rows[0].fields)
    if rows[-1] != table[-1] or (not named and _is_header(rows, label)):
        rows = rows[1:]
    elif width == 2:
        image, label = 0, 1
    else:
        image = label = None
    if image is None or label is None:
        raise DataError(
            f"{path} has {width} columns: a header must name one of images, such as 'image', and "
            "one of classes, such as 'label'"
        )
    found = [Labelled(row.number, row.fields[image], row.fields[label]) for row in rows]
    if len(found) > 1 and [one.label for one in found] == [str(i + 1) for i in range(len(found))]:
        raise DataError(f"{path} has the numbers 1 to {len(found)}, which count its lines")
    return found


def _without_index(rows: list[Row], images: Set[str]) -> list[Row]:
    """A table without the columns in front that only number its rows.

    These have whole numbers, none of them twice, and in the header no name, ``index`` or
    ``Unnamed: 0``, or nothing at all, so that it is shorter than the rows. Two columns must be
    left. Numbers that are those of the images stay, unless the header names another column so.
    """
    header, body = rows[0], rows[1:]
    while body and len(body[0].fields) >= _WITH_INDEX:
        unnamed = len(header.fields) + 1 == len(body[0].fields)
        if not unnamed and not _INDEX_HEADER.fullmatch(normalized(header.fields[0])):
            break
        if any(len(row.fields) != len(body[0].fields) for row in body):
            break
        numbers = [row.fields[0] for row in body]
        if not all(map(_INTEGER.fullmatch, numbers)) or len(set(numbers)) < len(numbers):
            break
        named = any(normalized(field) in _IMAGE_HEADERS for field in header.fields[1:])
        if not (named or unnamed) and images >= set(numbers):
            break
        header = header if unnamed else Row(header.number, header.fields[1:])
        body = [Row(row.number, row.fields[1:]) for row in body]
    return [header, *body]


def _is_name(field: str, images: Set[str]) -> bool:
    return any(part in images for part in Labelled(0, field, "").parts[-1:])


def _columns(rows: Sequence[Row], known: Set[str]) -> tuple[int | None, int | None]:
    """The columns of images and classes that a header names; of two, one may tell the other."""
    names = [normalized(field) for field in rows[0].fields]
    images = [i for i, name in enumerate(names) if name in _IMAGE_HEADERS]
    if len(images) > 1 and len(names) > 2:
        images = [i for i in images if any(_is_name(row.fields[i], known) for row in rows[1:])]
    labels = [i for i, name in enumerate(names) if name in _LABEL_HEADERS]
    image = images[0] if len(images) == 1 else None
    label = labels[0] if len(labels) == 1 else None
    if len(names) == 2:
        if image is None:
            image = 0 if label is None else 1 - label
        label = 1 - image
    return image, label


def _is_header(rows: Sequence[Row], label: int | None) -> bool:
    named = {normalized(field) for field in rows[0].fields} & (_IMAGE_HEADERS | _LABEL_HEADERS)
    if named or label is None:
        return True
    numbers = [bool(_INTEGER.fullmatch(row.fields[label])) for row in rows]
    return len(rows) > 1 and not numbers[0] and all(numbers[1:])
