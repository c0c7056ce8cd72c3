"""The labels of images that lie in one folder, in a file beside them or given by the user.

Known by their names:

* ``ILSVRC2012_validation_ground_truth.txt`` of ImageNet's development kit, and its namesakes of
  later years (``ILSVRC2015_clsloc_validation_ground_truth.txt``): a line for each image, by the
  number in the image's name, with the kit's number of the class, from 1;
* ``LOC_val_solution.csv`` of ImageNet at Kaggle: a WordNet id and boxes for each image;
* ``val_annotations.txt`` of Tiny-ImageNet: an image, a WordNet id and a box in each line;
* ``val.txt`` or ``val_list.txt``, as Caffe and others have them: an image and a number in each
  line. If the images are ImageNet's, the numbers are those of ILSVRC2012 in sorted order.

Any other file is a table, see `read_table`.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adder_onnx.errors import DataError
from adder_onnx.evaluation.folders import image_stem
from adder_onnx.evaluation.imagenet import CLASSES, kit_order, synsets
from adder_onnx.evaluation.label_table import Labelled, read_table
from adder_onnx.evaluation.listed_folder import AnyPath
from adder_onnx.evaluation.splits import split_called
from adder_onnx.evaluation.text_files import Line, read_lines, split_columns

__all__ = ["ImageLabels", "find_labels", "read_labels"]

_logger = logging.getLogger(__name__)

_GROUND_TRUTHS = tuple(
    f"ILSVRC{year}_validation_ground_truth.txt"
    for year in ("2012", *(f"{year}_clsloc" for year in range(2013, 2018)))
)
_KAGGLE = "LOC_val_solution.csv"
_ANNOTATIONS = "val_annotations.txt"
_LISTS = ("val.txt", "val_list.txt")
_IMAGENET_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}")
_KITS = ("", "devkit/data", "ILSVRC2012_devkit_t12/data")
_INTEGER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class ImageLabels:
    """A label for each of some images.

    Attributes:
        source: the file that says them.
        labels: of the images.
        all: those in the file, also of images that are not there.
    """

    source: AnyPath
    labels: list[str]
    all: frozenset[str]

    @property
    def span(self) -> tuple[int, int] | None:
        """The lowest and the highest label in the file, if all are numbers."""
        if not all(_INTEGER.fullmatch(label) for label in self.all):
            return None
        numbers = [int(label) for label in self.all]
        return min(numbers), max(numbers)


def find_labels(
    folder: AnyPath, images: Sequence[AnyPath]
) -> tuple[ImageLabels | None, list[AnyPath]]:
    """The labels in the first file of a known name, near a folder, that has one for each image.

    Looked for are: the development kit's file, in the folder, the one above it and the one above
    that, or in ``devkit/data`` or ``ILSVRC2012_devkit_t12/data`` there; Kaggle's, in the same three
    folders; Tiny-ImageNet's, in the folder and above it; lists, in the folder, above it and in
    ``meta`` beside it. Images in ``ILSVRC/Data/CLS-LOC/val``, as in ImageNet's archives, may have
    the first two in ``ILSVRC`` and the folder above it.

    Returns:
        The labels, if there are any, and other files of such names near the folder.

    Raises:
        DataError: a file has labels for some of the images and none has them for all.
    """
    found = None
    others: list[AnyPath] = []
    incomplete: DataError | None = None
    for path in dict.fromkeys(_candidates(folder, images)):
        if not _is_file(path):
            continue
        if found is not None:
            others.append(path)
            continue
        try:
            rows = _read(path, images)
        except DataError as error:
            if path.name not in _LISTS:
                raise
            # Anything may be called so.
            _logger.warning("%s is not taken for labels: %s", path, error)
            continue
        matched, missing = _match(path, rows, folder, images)
        if not missing:
            found = ImageLabels(path, matched, frozenset(row.label for row in rows))
        elif len(missing) < len(images):
            incomplete = incomplete or _missing(path, missing, images)
    if found is None and incomplete is not None:
        raise incomplete
    return found, others


def read_labels(path: Path, folder: AnyPath, images: Sequence[AnyPath]) -> ImageLabels:
    """The labels in a file that the user gives, for images in or below a folder.

    Raises:
        DataError: it cannot be read or understood, or does not have one label for each image.
    """
    rows = _read(path, images)
    matched, missing = _match(path, rows, folder, images)
    if missing:
        raise _missing(path, missing, images)
    return ImageLabels(path, matched, frozenset(row.label for row in rows))


def _is_file(path: AnyPath) -> bool:
    """Whether it is one; not where a folder above may not be looked into."""
    return os.path.isfile(path) if isinstance(path, Path) else path.is_file()


def _candidates(folder: AnyPath, images: Sequence[AnyPath]) -> Iterator[AnyPath]:
    folder = folder.absolute()
    above = folder.parents
    near = [folder, *above[:2]]
    if folder.parent.name == "CLS-LOC":
        near += above[2:4]
    yield from (place / kit / name for place in near for kit in _KITS for name in _GROUND_TRUTHS)
    yield from (place / _KAGGLE for place in near)
    yield from (place / _ANNOTATIONS for place in near[:2])
    if split_called(folder.name) == "val" or _are_imagenet(images):
        for place in (*near[:2], folder.parent / "meta"):
            yield from (place / name for name in _LISTS)


def _are_imagenet(images: Sequence[AnyPath]) -> bool:
    return all(_IMAGENET_IMAGE.fullmatch(image.stem) for image in images)


def _read(path: AnyPath, images: Sequence[AnyPath]) -> list[Labelled]:
    rows = _read_rows(path, images)
    for row in rows:
        if not row.parts or not row.label:
            raise DataError(f"{path}, line {row.line}: expected an image and its class")
    return rows


def _read_rows(path: AnyPath, images: Sequence[AnyPath]) -> list[Labelled]:
    if path.name in _GROUND_TRUTHS:
        return _read_ground_truth(path, read_lines(path))
    if path.name == _KAGGLE:
        return _read_kaggle(path, read_lines(path))
    if path.name == _ANNOTATIONS:
        return _read_annotations(path, read_lines(path))
    rows = read_table(path, images)
    if path.name in _LISTS and _are_imagenet(images):
        return [_in_sorted_order(path, row) for row in rows]
    return rows


def _read_ground_truth(path: AnyPath, lines: Sequence[Line]) -> list[Labelled]:
    ids = kit_order()
    rows = []
    for line in lines:
        number = int(line.text) if _INTEGER.fullmatch(line.text) else 0
        if not 1 <= number <= CLASSES:
            raise DataError(
                f"{path}, line {line.number}: {line.text!r}; expected a number from 1 to {CLASSES}"
            )
        rows.append(Labelled(line.number, f"ILSVRC2012_val_{line.number:08}", ids[number - 1]))
    return rows


def _read_kaggle(path: AnyPath, lines: Sequence[Line]) -> list[Labelled]:
    rows = []
    for row in split_columns(path, lines[1:]):
        words = row.fields[1].split() if len(row.fields) == 2 else []
        if len(set(words[::5])) != 1:
            raise DataError(
                f"{path}, line {row.number}: expected an image, a comma, and boxes of one class"
            )
        rows.append(Labelled(row.number, row.fields[0], words[0]))
    return rows


def _read_annotations(path: AnyPath, lines: Sequence[Line]) -> list[Labelled]:
    rows = split_columns(path, lines)
    for row in rows:
        if len(row.fields) < 2:
            raise DataError(f"{path}, line {row.number}: expected an image, a class and a box")
    return [Labelled(row.number, row.fields[0], row.fields[1]) for row in rows]


def _in_sorted_order(path: AnyPath, row: Labelled) -> Labelled:
    number = int(row.label) if _INTEGER.fullmatch(row.label) else CLASSES
    if number >= CLASSES:
        raise DataError(
            f"{path}, line {row.line}: {row.label!r}; expected a number below {CLASSES}"
        )
    return Labelled(row.line, row.image, list(synsets())[number])


def _match(
    path: AnyPath, rows: Sequence[Labelled], folder: AnyPath, images: Sequence[AnyPath]
) -> tuple[list[str], list[AnyPath]]:
    """The labels of the images, and those that have none.

    An image is found by its name, with its suffix or, if the file has none such, without. Where
    that means several, the folders above them decide, as far as both sides name them.
    """
    by_stem = defaultdict(list)
    for row in rows:
        by_stem[image_stem(row.parts[-1])].append(row)
    names = Counter(image.name for image in images)
    stems = Counter(image_stem(image.name) for image in images)
    labels: list[str] = []
    missing: list[AnyPath] = []
    taken: dict[int, AnyPath] = {}
    for image in images:
        found = by_stem.get(image_stem(image.name), [])
        exact = [row for row in found if row.parts[-1] == image.name]
        alike = names[image.name] if exact else stems[image_stem(image.name)]
        found = exact or found
        if alike > 1 or len({row.label for row in found}) > 1:
            found = [row for row in found if _is_in(row.parts[:-1], image.parent, folder)]
        if not found:
            missing.append(image)
            continue
        if len({row.label for row in found}) > 1:
            raise DataError(
                f"{path} has several labels for {image}, in lines {found[0].line} and "
                f"{found[1].line}"
            )
        if found[0].line in taken:
            raise DataError(
                f"{path}, line {found[0].line}, may mean {taken[found[0].line]} or {image}: give "
                "their whole names"
            )
        taken[found[0].line] = image
        labels.append(found[0].label)
    return labels, missing


def _is_in(parts: tuple[str, ...], parent: AnyPath, folder: AnyPath) -> bool:
    """Whether an image in ``parent``, in or below ``folder``, may be in the folders of a row."""
    own = parent.absolute().parts
    below = parent.parts[len(folder.parts) :]
    return own[max(0, len(own) - len(parts)) :] == parts or (
        bool(below) and parts[max(0, len(parts) - len(below)) :] == below
    )


def _missing(path: AnyPath, missing: Sequence[AnyPath], images: Sequence[AnyPath]) -> DataError:
    return DataError(
        f"{path} has no label for {len(missing)} of {len(images)} images, the first of which is "
        f"{missing[0]}"
    )
