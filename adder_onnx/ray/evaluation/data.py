"""What lies at a path or a URI, and the pieces that it is run in.

1. Parquet files, ``.parquet``, and tar files, ``.tar`` and such, are what they are called, one or
   all those in a folder and the folders in it.
2. Everything else is folders of images, by the rules of `adder_onnx.evaluation.image_folder`.
3. Files are of a split if they are called so, ``test-00000-of-00004.parquet``, or are in a folder
   that is.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DataError
from adder_onnx.evaluation import Dataset, open_dataset
from adder_onnx.evaluation.folders import image_stem
from adder_onnx.evaluation.formats import RAY_FORMATS
from adder_onnx.evaluation.splits import choose_split, split_called, warn_of_training_data
from adder_onnx.ray.evaluation.parquet import ParquetFiles
from adder_onnx.ray.evaluation.pieces import FilesPiece, Label, Piece
from adder_onnx.ray.evaluation.storage import is_uri, place_of
from adder_onnx.ray.evaluation.tars import TAR_SUFFIXES, TarPiece, count_images

__all__ = ["Asked", "Data", "open_data"]

_PARQUET = (".parquet",)
_TARS_AT_A_TIME = 8


@dataclass(frozen=True)
class Asked:
    """What a user says of data.

    Attributes:
        where: a path or a URI.
        format: one of `RAY_FORMATS`, ``imagefolder`` or ``auto``.
        split: see `open_dataset`.
        labels_csv: the labels of a folder of images.
        columns: of Parquet files by what is in them, ``image``, ``label`` and ``name``.
    """

    where: str
    format: str
    split: str
    labels_csv: Path | None
    columns: Mapping[str, str | None]


@dataclass(frozen=True)
class Data:
    """Images that can be run in pieces.

    Attributes:
        dataset: what is known of them before they are read: of a folder of images all that there
            is, of others only what they are.
        images: how many there are; None where only reading tells.
        pieces: makes pieces of at most so many images, of those with the numbers given, ascending,
            or of all.
        count: finds out how many images there are, by reading them if need be.
    """

    dataset: Dataset
    images: int | None
    pieces: Callable[[int, NDArray[np.int64] | None], Sequence[Piece]]
    count: Callable[[], int]

    def describe(self, labels: Sequence[Label], images: int) -> Dataset:
        """What is known once all images were read.

        Args:
            labels: the classes that there were, as the data call them; ascending.
            images: how many images there were.

        Returns:
            A data set with a label for each of these classes, and their names. That of a folder
            of images is known before, and is given as it is.
        """
        if self.dataset.labels is not None or not labels:
            return replace(self.dataset, images=images)
        if all(isinstance(label, int) for label in labels):
            return replace(self.dataset, images=images, labels=np.array(labels, np.int64))
        names = tuple(map(str, labels))
        return replace(self.dataset, images=images, labels=np.arange(len(names)), classes=names)


def open_data(asked: Asked) -> Data:
    """Finds out what lies somewhere, and what images there are.

    Raises:
        DataError: nothing is there, it cannot be read, or only one machine can read it.
    """
    files = {} if asked.format == "imagefolder" else _files_of_images(asked)
    if len(files) > 1:
        raise DataError(f"{asked.where} holds {' and '.join(files)} files: --format says which")
    for format, found in files.items():
        if asked.labels_csv is not None:
            raise DataError(
                f"--labels-csv says the labels of a folder of images; {asked.where} is none"
            )
        chosen, split = _of_split(asked, found)
        return _parquet(asked, chosen, split) if format == "parquet" else _tars(chosen, split)
    if asked.format in RAY_FORMATS:
        raise DataError(f"{asked.where} holds no {asked.format} files")
    if any(asked.columns.values()):
        raise DataError(f"columns are of Parquet files; {asked.where} holds none")
    return _folder(asked)


def _files_of_images(asked: Asked) -> dict[str, dict[str, str]]:
    """Files that hold images, by format: what they are called, sorted, and that in the folder."""
    place = place_of(asked.where)
    found: dict[str, dict[str, str]] = {}
    images = False
    for rest in place.tree():
        if _is_hidden(rest):
            continue
        name = posixpath.basename(rest) or place.name
        format = _format_of(name)
        images = images or (format is None and image_stem(name) != name)
        if format is not None and asked.format in ("auto", format):
            shown = place.below(rest).shown if rest else place.shown
            found.setdefault(format, {})[shown] = rest
    if images and found and asked.format == "auto":
        raise DataError(
            f"{asked.where} holds images and {' and '.join(found)} files: --format says which"
        )
    return {format: dict(sorted(files.items())) for format, files in found.items()}


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _format_of(name: str) -> str | None:
    lower = name.lower()
    if lower.endswith(_PARQUET):
        return "parquet"
    return "webdataset" if lower.endswith(TAR_SUFFIXES) else None


def _of_split(asked: Asked, files: Mapping[str, str]) -> tuple[list[str], str | None]:
    """The files of the split that is asked for, and its name; all where there are no splits."""
    by_split: dict[str | None, list[str]] = {}
    for file, rest in files.items():
        by_split.setdefault(_split_of(rest), []).append(file)
    known = {split: files for split, files in by_split.items() if split is not None}
    if not known or None in by_split:
        if asked.split != "auto":
            raise DataError(f"{asked.where} has no splits: leave out --split {asked.split}")
        return list(files), None
    chosen = choose_split(asked.where, known, asked.split)
    warn_of_training_data(asked.where, asked.split, chosen)
    return known[chosen], chosen


def _split_of(path: str) -> str | None:
    *folders, name = path.split("/")
    words = [*folders, name.partition("-")[0].partition(".")[0]]
    return next(filter(None, map(split_called, words)), None)


def _parquet(asked: Asked, files: Sequence[str], split: str | None) -> Data:
    found = ParquetFiles(files, **asked.columns)
    kind = f"Parquet, {len(files)} files, images in {found.columns.image}"
    return Data(_unknown(kind, split), found.images, found.pieces, lambda: found.images)


def _tars(files: Sequence[str], split: str | None) -> Data:
    counts: list[int] = []

    def count() -> int:
        if not counts:
            with ThreadPoolExecutor(_TARS_AT_A_TIME) as pool:
                counts.extend(pool.map(count_images, files))
        return sum(counts)

    def pieces(most: int, chosen: NDArray[np.int64] | None) -> list[TarPiece]:
        if chosen is None:
            return [TarPiece(file) for file in files]
        count()
        starts = np.cumsum([0, *counts])
        made = []
        for i, file in enumerate(files):
            low, high = np.searchsorted(chosen, starts[i : i + 2])
            if high > low:
                rows = tuple((chosen[low:high] - starts[i]).tolist())
                made.append(TarPiece(file, len(rows), rows))
        return made

    return Data(_unknown(f"WebDataset, {len(files)} tar files", split), None, pieces, count)


def _folder(asked: Asked) -> Data:
    if is_uri(asked.where):
        from adder_onnx.evaluation.listed_image_folder import read_listed_folder

        dataset = read_listed_folder(asked.where, asked.split, asked.labels_csv)
    else:
        path = Path(asked.where)
        dataset = open_dataset(path, asked.format, asked.split, labels_csv=asked.labels_csv)
        if not dataset.files:
            raise DataError(
                f"{path} ({dataset.description}) is read on one machine only: leave out --engine "
                "ray"
            )
    return of_dataset(dataset)


def of_dataset(dataset: Dataset) -> Data:
    """A folder of images, with the labels that it has."""
    first = dataset.name_of(0) if dataset.images else ""
    folder = "" if is_uri(first) or os.path.isabs(first) else os.getcwd()

    def pieces(most: int, chosen: NDArray[np.int64] | None) -> list[FilesPiece]:
        numbers = np.arange(dataset.images) if chosen is None else chosen
        made = []
        for start in range(0, len(numbers), most):
            its = numbers[start : start + most].tolist()
            labels = None if dataset.labels is None else tuple(dataset.labels[its].tolist())
            made.append(FilesPiece(tuple(map(dataset.name_of, its)), folder, labels))
        return made

    return Data(dataset, dataset.images, pieces, lambda: dataset.images)


def _unknown(description: str, split: str | None) -> Dataset:
    def refuse(_: int) -> NoReturn:
        raise DataError(f"single images of {description} cannot be read")

    return Dataset(description, split, 0, refuse, str)
