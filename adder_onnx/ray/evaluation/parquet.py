"""Images in Parquet files, one in each row, as Hugging Face and others publish data sets.

1. A column holds images if it is binary, or a struct with binary ``bytes``, as Hugging Face's
   images are. If there are several, or none, the user has to say which.
2. Classes are in a column ``label``, else ``labels``, ``fine_label``, ``class`` or ``cls``, of
   integers or text. Integers that Hugging Face's metadata have names for are these; -1 says that
   the class is not known.
3. An image is called by its file and its row, counted from 0, or by a column that the user names.
4. A piece is some row groups of one file that lie beside each other, up to a size, or one that is
   larger.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.file_systems import explained
from adder_onnx.evaluation.images import decode_image
from adder_onnx.ray.evaluation.pieces import Label, Sample, class_by_number
from adder_onnx.ray.evaluation.storage import Place, place_of

if TYPE_CHECKING:
    from pyarrow import Field, Schema
    from pyarrow.parquet import FileMetaData, ParquetFile

__all__ = ["ParquetColumns", "ParquetFiles", "ParquetPiece"]

_LABELS = ("label", "labels", "fine_label", "class", "cls")
_ROWS_AT_A_TIME = 64
_FOOTERS_AT_A_TIME = 16


@dataclass(frozen=True)
class ParquetColumns:
    """Which columns are read.

    Attributes:
        image: the images.
        label: their classes, or None.
        name: what they are called, or None.
        classes: names of the classes that integers mean, or None.
    """

    image: str
    label: str | None
    name: str | None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ParquetPiece:
    """Images that are rows of a Parquet file.

    Attributes:
        file: its path or URI.
        row_groups: of that file, beside each other.
        first: the number of their first row in the file.
        images: how many are run.
        columns: which are read.
        rows: those that are run, counted from the first, or None for all.
    """

    file: str
    row_groups: tuple[int, ...]
    first: int
    images: int
    columns: ParquetColumns
    rows: tuple[int, ...] | None = None

    def describe(self) -> str:
        """What it is, for messages."""
        return f"{self.images} images of {self.file}, from row {self.first}"

    def samples(self) -> Iterator[Sample]:
        """The images; a few rows are in memory at a time.

        Raises:
            DataError: the file cannot be read.
        """
        wanted = None if self.rows is None else frozenset(self.rows)
        read = [c for c in (self.columns.image, self.columns.label, self.columns.name) if c]
        place = place_of(self.file)
        with explained(place.shown, "read"), _open(place) as file:
            batches = file.iter_batches(_ROWS_AT_A_TIME, row_groups=self.row_groups, columns=read)
            row = 0
            for batch in batches:
                columns = {name: batch.column(name).to_pylist() for name in read}
                for i in range(batch.num_rows):
                    if wanted is None or row in wanted:
                        yield self._sample(row, {name: v[i] for name, v in columns.items()})
                    row += 1

    def _sample(self, row: int, values: dict[str, Any]) -> Sample:
        columns = self.columns
        name = f"{self.file}:{self.first + row}"
        if columns.name is not None and values[columns.name] is not None:
            name = str(values[columns.name])
        label: Label | None = None if columns.label is None else values[columns.label]
        if isinstance(label, int):
            label = class_by_number(label, name)
        if columns.classes is not None and isinstance(label, int):
            if label >= len(columns.classes):
                raise DataError(
                    f"{name}: the label {label} is none of the {len(columns.classes)} classes that "
                    "the file's metadata name"
                )
            label = columns.classes[label]
        return Sample(name, partial(_decode, values[columns.image]), label)


def _decode(value: Any) -> Image.Image:
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        raise DataError("there are no bytes of an image in this row")
    return decode_image(data)


class ParquetFiles:
    """A data set of Parquet files with the same columns.

    Args:
        files: their paths or URIs.
        image: the column of the images, or None to find it.
        label: that of their classes, or None to find it.
        name: that of what they are called, or None.

    Attributes:
        columns: which are read.
        images: how many there are.

    Raises:
        DataError: a file cannot be read, or does not have these columns.
    """

    def __init__(
        self, files: Sequence[str], image: str | None, label: str | None, name: str | None
    ) -> None:
        self._files = files
        with ThreadPoolExecutor(_FOOTERS_AT_A_TIME) as pool:
            self._footers = list(pool.map(_read_footer, files))
        self.columns = _choose(
            files[0], self._footers[0].schema.to_arrow_schema(), image, label, name
        )
        needed = [c for c in (self.columns.image, self.columns.label, self.columns.name) if c]
        for file, footer in zip(files, self._footers, strict=True):
            schema = footer.schema.to_arrow_schema()
            missing = set(needed) - set(schema.names)
            if missing:
                raise DataError(f"{file} has no column {min(missing)}, which {files[0]} has")
            its = _choose(file, schema, self.columns.image, self.columns.label, self.columns.name)
            if its.classes not in (None, self.columns.classes):
                raise DataError(f"{file} names other classes than {files[0]}")
        self.images = sum(footer.num_rows for footer in self._footers)

    def pieces(self, most: int, chosen: NDArray[np.int64] | None) -> list[ParquetPiece]:
        """The images in pieces.

        Args:
            most: how many images a piece has, unless a row group has more.
            chosen: numbers of those that are run, ascending, or None for all.
        """
        pieces: list[ParquetPiece] = []
        before = 0
        for file, footer in zip(self._files, self._footers, strict=True):
            first = 0
            for groups, rows in _grouped(footer, most):
                picked = None
                if chosen is not None:
                    start = before + first
                    low, high = np.searchsorted(chosen, (start, start + rows))
                    if high - low < rows:
                        picked = tuple((chosen[low:high] - start).tolist())
                images = rows if picked is None else len(picked)
                if images:
                    pieces.append(ParquetPiece(file, groups, first, images, self.columns, picked))
                first += rows
            before += footer.num_rows
        return pieces


def _grouped(footer: FileMetaData, most: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Row groups beside each other, and how many rows they have together."""
    groups: list[int] = []
    rows = 0
    for group in range(footer.num_row_groups):
        more = footer.row_group(group).num_rows
        if groups and rows + more > most:
            yield tuple(groups), rows
            groups, rows = [], 0
        groups.append(group)
        rows += more
    if groups:
        yield tuple(groups), rows


def _read_footer(file: str) -> FileMetaData:
    place = place_of(file)
    with explained(place.shown, "read"), _open(place) as opened:
        return opened.metadata


def _open(place: Place) -> ParquetFile:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(place.file_system.open_input_file(place.path), pre_buffer=False)


def _choose(
    file: str, schema: Schema, image: str | None, label: str | None, name: str | None
) -> ParquetColumns:
    single = {column for column, count in Counter(schema.names).items() if count == 1}
    for option, column in (("image", image), ("label", label), ("name", name)):
        if column is not None and column not in single:
            raise DataError(
                f"{file} has {'several columns' if column in schema.names else 'no column'} "
                f"{column} for --{option}-column; it has {', '.join(schema.names)}"
            )
    if image is None:
        found = [field.name for field in schema if _may_hold_images(field) and field.name != name]
        if len(found) != 1 or found[0] not in single:
            raise DataError(
                f"{file} has {'several columns' if found else 'no column'} that may hold images "
                f"({', '.join(found or schema.names)}): --image-column NAME says which"
            )
        (image,) = found
    elif not _may_hold_images(schema.field(image)):
        raise DataError(
            f"the column {image} of {file} is {schema.field(image).type}, which holds no images: "
            "expected binary, or a struct with binary bytes"
        )
    if label is None:
        label = next((one for one in _LABELS if one in single and one != image), None)
    if label is not None and not _may_be_classes(schema.field(label)):
        raise DataError(
            f"the column {label} of {file} is {schema.field(label).type}, which are no classes: "
            "expected integers or text; --label-column NAME names another one"
        )
    classes = None if label is None else _class_names(schema, label)
    return ParquetColumns(image, label, name, classes)


def _may_hold_images(field: Field) -> bool:
    from pyarrow import types

    kind = field.type
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _may_hold_images(kind.field(index))
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _may_be_classes(field: Field) -> bool:
    from pyarrow import types

    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))


def _class_names(schema: Schema, label: str) -> tuple[str, ...] | None:
    """The names that Hugging Face's metadata have for the classes in a column, if any."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])
        names = found["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):  # there are none, or they are something else
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)
