"""Text that people write beside a data set, or that comes with it."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adder_onnx.errors import DataError
from adder_onnx.evaluation.listed_folder import AnyPath, ListedPath
from adder_onnx.files import check_readable

__all__ = ["Line", "Row", "read_lines", "read_text", "split_columns"]

_LARGEST = 1 << 25
_MOST_LINES = 1_000_000
_MOST_COLUMNS = 1000
_DELIMITERS = ("\t", ";", ",")
_INTEGER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not empty.

    Attributes:
        number: in the file, from 1.
        text: without white space around it.
    """

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line in columns.

    Attributes:
        number: of the line, from 1.
        fields: without white space around them.
    """

    number: int
    fields: tuple[str, ...]


def read_text(path: AnyPath) -> str:
    """The text of a file, in UTF-8, of at most 32 MiB and a million lines.

    Raises:
        DataError: it cannot be read, or is no such text.
    """
    most = _LARGEST + 1
    data = path.read(most) if isinstance(path, ListedPath) else _read(path, most)
    lines = max(data.count(b"\n"), data.count(b"\r"))
    if len(data) > _LARGEST or b"\0" in data or lines > _MOST_LINES:
        raise DataError(
            f"{path} is not a text file of at most {_LARGEST >> 20} MiB and {_MOST_LINES} lines"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error.reason}") from error


def _read(path: Path, most: int) -> bytes:
    check_readable(path, DataError)
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def read_lines(path: AnyPath) -> list[Line]:
    """The lines of a file that are not empty.

    Raises:
        DataError: it cannot be read, is not text, or holds none.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    lines = [Line(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [line for line in lines if line.text]
    if not lines:
        raise DataError(f"{path} is empty")
    return lines


def split_columns(path: AnyPath, lines: Sequence[Line]) -> list[Row]:
    """Lines in columns, of which each line may have another number.

    What separates them is that of tab, semicolon and comma which comes first and is in all lines;
    fields may then be quoted. Otherwise it is white space, of which, in lines of more than two
    words, only the last counts if a number follows in all lines, else only the first.

    Raises:
        DataError: quotes are not closed, or there are very many columns.
    """
    for delimiter in _DELIMITERS:
        if all(delimiter in line.text for line in lines):
            return [_split(path, line, delimiter) for line in lines]
    words = [line.text.split() for line in lines]
    from_right = all(_INTEGER.fullmatch(parts[-1]) for parts in words)
    split = str.rsplit if from_right else str.split
    return [
        Row(line.number, tuple(parts if len(parts) <= 2 else split(line.text, None, 1)))
        for line, parts in zip(lines, words, strict=True)
    ]


def _split(path: AnyPath, line: Line, delimiter: str) -> Row:
    try:
        (fields,) = csv.reader([line.text], delimiter=delimiter, strict=True)
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}, line {line.number}: {error}") from error
    if len(fields) > _MOST_COLUMNS:
        raise DataError(
            f"{path}, line {line.number}: {len(fields)} columns, more than {_MOST_COLUMNS}"
        )
    return Row(line.number, tuple(field.strip() for field in fields))
