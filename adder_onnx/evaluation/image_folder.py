"""Folders of images: one for each class, or one with labels in a file or without."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adder_onnx.errors import DataError
from adder_onnx.evaluation.classes import quoted
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.folders import (
    class_folders,
    empty_folders,
    find_splits,
    has_images,
    images_below,
    images_in,
    is_unlabelled,
    says_no_class,
    suffixes,
)
from adder_onnx.evaluation.image_labels import ImageLabels, find_labels, read_labels
from adder_onnx.evaluation.imagenet import is_wordnet_id
from adder_onnx.evaluation.images import open_image
from adder_onnx.evaluation.listed_folder import AnyPath, ListedPath
from adder_onnx.evaluation.splits import HELD_OUT, choose_split, split_called
from adder_onnx.evaluation.text_files import read_lines

__all__ = ["read_image_folder"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    """The images of a folder.

    Attributes:
        kind: what is there, for people.
        images: the files.
        labels: the class of each, by name, or None.
        classes: names of all classes, or None where labels are numbers or there are none.
        span: the lowest and the highest label, where they are numbers.
    """

    kind: str
    images: list[AnyPath]
    labels: list[str] | None = None
    classes: tuple[str, ...] | None = None
    span: tuple[int, int] | None = None


def read_image_folder(path: AnyPath, split: str, labels_csv: Path | None = None) -> Dataset:
    """A folder of images.

    1. A folder with one folder per class, numbered in sorted order. Hidden and empty ones are none.
    2. Images in one folder, or in a single folder in it that is called ``images``, ``unknown`` or
       the like, with labels in one of the files that `find_labels` knows, or without.
    3. Images anywhere below the folder, if ``labels_csv`` says their labels.
    4. A root with folders that are called like splits and hold one of these.

    Classes of a split are counted with those of the others: ImageFolder of torchvision, which most
    models are trained with, counts those of the training data.

    Args:
        path: the folder.
        split: one of `SPLITS`; ``auto`` takes ``test``, else ``val``, one with labels if possible.
        labels_csv: a file with the labels, see `read_labels`.

    Raises:
        DataError: there are no images, a class has none, or an image has no label though others
            have; the split is not there.
    """
    path = _entered(path)
    splits = find_splits(path)
    if not splits and split != "auto":
        raise DataError(f"{path} has no splits: leave out --split {split}")
    if labels_csv is not None:
        chosen = choose_split(path, splits, split) if splits else None
        folder = splits[chosen] if chosen else path
        images = images_below(folder)
        if not images:
            raise DataError(f"{folder} holds no images ({suffixes()})")
        return _dataset(_labelled(images, read_labels(labels_csv, folder, images)), chosen)
    if not splits:
        return _dataset(_read(path, frozenset()), None)
    classes = _classes(splits)
    if split == "auto":
        chosen, found = _preferred(splits, classes)
    else:
        chosen = choose_split(path, splits, split)
        found = _read(splits[chosen], _others(classes, chosen))
    return _dataset(_with_others(path, found, chosen, classes), chosen)


def _entered(path: AnyPath) -> AnyPath:
    """The folder itself, or one in it that is called ``images`` or the like and holds folders.

    As in Food-101, whose classes are in ``images``, beside lists in ``meta``.
    """
    full = [folder for folder in class_folders(path) if has_images(folder)]
    if len(full) != 1 or not says_no_class(full[0].name) or split_called(full[0].name):
        return path
    return _entered(full[0]) if class_folders(full[0]) and not images_in(path) else path


_Classes = dict[str, frozenset[str]]
"""The names of the class folders of each split."""


def _classes(splits: dict[str, AnyPath]) -> _Classes:
    names = {
        split: frozenset(path.name for path in class_folders(folder))
        for split, folder in splits.items()
    }
    several = {split: own for split, own in names.items() if len(own) > 1}
    return {
        split: frozenset() if is_unlabelled(own, _others(several, split)) else own
        for split, own in names.items()
    }


def _others(classes: _Classes, split: str) -> frozenset[str]:
    """The classes of all splits but one."""
    return frozenset().union(*(own for other, own in classes.items() if other != split))


def _preferred(splits: dict[str, AnyPath], classes: _Classes) -> tuple[str, _Found]:
    """The first split held out of training that has labels, or the first that there is."""
    first = None
    for split in [split for split in HELD_OUT if split in splits] or ["train"]:
        found = _read(splits[split], _others(classes, split))
        if found.labels is not None:
            return split, found
        first = first or (split, found)
    assert first is not None
    return first


def _with_others(path: AnyPath, found: _Found, split: str, classes: _Classes) -> _Found:
    """The images of a split, their classes counted with those of the others."""
    others = _others(classes, split) | _listed_classes(path)
    if found.classes is None or not others:
        return found
    for missing, where in (
        (others.difference(found.classes), f"{split} has not"),
        (set(found.classes) - others, f"only {split} has"),
    ):
        if missing:
            _logger.warning(
                "the splits of %s have other classes, %s %s: all are counted",
                path,
                where,
                quoted(sorted(missing)),
            )
    return replace(found, classes=tuple(sorted({*found.classes, *others})))


def _listed_classes(path: AnyPath) -> frozenset[str]:
    """Those of Tiny-ImageNet, whose list is beside its splits."""
    listed = path / "wnids.txt"
    names = [line.text for line in read_lines(listed)] if listed.is_file() else []
    return frozenset(names) if all(map(is_wordnet_id, names)) else frozenset()


def _read(folder: AnyPath, known: Collection[str]) -> _Found:
    """The images in a folder, or in its class folders.

    Args:
        folder: what is read.
        known: the classes of other splits.
    """
    folder = _entered(folder)
    by_class = {path: images_below(path) for path in class_folders(folder)}
    full = [path for path, images in by_class.items() if images]
    if not full:
        images = images_in(folder)
        if images:
            return _flat(folder, images)
        raise DataError(
            f"{next(iter(by_class))} holds no images ({suffixes()})"
            if by_class
            else f"{folder} holds no images and no folders of images; expected one folder per "
            f"class, with {suffixes()} files"
        )
    if is_unlabelled([path.name for path in full], known):
        if not says_no_class(full[0].name):
            _logger.warning(
                "%s is called like no class of the other splits: its images have no labels", full[0]
            )
        return _flat(full[0], by_class[full[0]])
    for path, images in by_class.items():
        if not images:
            raise DataError(f"{path} holds no images ({suffixes()})")
    empty = empty_folders(folder)
    if empty:
        _logger.warning(
            "%s has empty folders, which are no classes: %s",
            folder,
            quoted(path.name for path in empty),
        )
    return _Found(
        f"image folder, {len(full)} classes",
        [image for images in by_class.values() for image in images],
        [path.name for path, images in by_class.items() for _ in images],
        tuple(path.name for path in full),
    )


def _flat(folder: AnyPath, images: list[AnyPath]) -> _Found:
    labels, others = find_labels(folder, images)
    if labels is None:
        return _Found("images without labels", images)
    if others:
        _logger.warning(
            "the labels are those of %s; there is also %s, which --labels-csv takes",
            labels.source,
            ", ".join(map(str, others)),
        )
    return _labelled(images, labels)


def _labelled(images: list[AnyPath], labels: ImageLabels) -> _Found:
    kind = f"images, labels of {labels.source}"
    span = labels.span
    classes = None if span else tuple(sorted(labels.all))
    return _Found(kind, images, labels.labels, classes, span)


def _dataset(found: _Found, split: str | None) -> Dataset:
    # As a string a path takes the least memory.
    files = [str(path) if isinstance(path, Path) else path for path in found.images]
    labels = None
    if found.labels is not None:
        places = {name: place for place, name in enumerate(found.classes or ())}
        numbers = [places[name] if places else int(name) for name in found.labels]
        labels = np.array(numbers, np.int64)
    return Dataset(
        description=found.kind if split is None else f"{found.kind}, split {split}",
        split=split,
        images=len(files),
        load=lambda i: open_image(_path(files[i])),
        name_of=lambda i: str(files[i]),
        labels=labels,
        classes=found.classes,
        label_span=found.span,
        files=True,
    )


def _path(file: str | ListedPath) -> AnyPath:
    return Path(file) if isinstance(file, str) else file
