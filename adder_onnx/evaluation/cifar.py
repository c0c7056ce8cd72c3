"""CIFAR-10 and CIFAR-100 as their authors distribute them: binary batches and Python batches."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.containers import Archive, Folder, is_archive
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.pickled import unpickle_batch
from adder_onnx.evaluation.splits import choose_split
from adder_onnx.metadata import CIFAR10_LABELS

__all__ = ["CIFAR100_LABELS", "CifarFiles", "find_cifar", "read_cifar"]

_PIXELS = 3 * 32 * 32

_CIFAR100_LABELS = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_LABELS = tuple(_CIFAR100_LABELS.split())


@dataclass(frozen=True)
class _Kind:
    """What tells the two data sets apart.

    Attributes:
        name: for people.
        folders: those the batches come in, binary and Python.
        archives: those that hold these folders.
        train: names of the training batches; the binary ones also end in ``.bin``.
        test: names of the test batches, likewise.
        labels_key: the entry of a Python batch with the labels.
        label_counts: for each byte before the pixels of a binary record, the number of its values;
            the last is the label.
        classes: names of the classes.
    """

    name: str
    folders: tuple[str, str]
    archives: tuple[str, str]
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels_key: str
    label_counts: tuple[int, ...]
    classes: tuple[str, ...]

    @property
    def record(self) -> int:
        """Bytes of an image in a binary batch."""
        return len(self.label_counts) + _PIXELS


_CIFAR10 = _Kind(
    name="CIFAR-10",
    folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
    archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    labels_key="labels",
    label_counts=(10,),
    classes=CIFAR10_LABELS,
)
_CIFAR100 = _Kind(
    name="CIFAR-100",
    folders=("cifar-100-binary", "cifar-100-python"),
    archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
    train=("train",),
    test=("test",),
    labels_key="fine_labels",
    label_counts=(20, 100),
    classes=CIFAR100_LABELS,
)


_KINDS = {"cifar10": _CIFAR10, "cifar100": _CIFAR100}


@dataclass(frozen=True)
class CifarFiles:
    """The batch files of a data set.

    Attributes:
        kind: which data set.
        path: where they were looked for, for messages.
        files: what they are in.
        names: of those that are there, by split.
        missing: names of those that are not, of the splits in ``names``.
    """

    kind: _Kind
    path: Path
    files: Folder | Archive
    names: dict[str, list[str]]
    missing: dict[str, list[str]]


def find_cifar(path: Path, formats: Collection[str] = tuple(_KINDS)) -> dict[str, CifarFiles]:
    """What there is of these formats, ``cifar10`` and ``cifar100``, at a path.

    The path is a folder of batches (binary or Python), the folder above it, which may also hold
    their archive, the archive, or a single batch.

    Raises:
        DataError: an archive cannot be read.
    """
    archive = Archive(path) if is_archive(path) else None
    found = {}
    for name in formats:
        kind = _KINDS[name]
        if archive is not None:
            batches = _in_container(path, archive, kind)
        elif path.is_dir():
            batches = _in_folder(path, kind)
        else:
            batches = _single(path, kind)
        if batches is not None:
            found[name] = batches
    return found


def read_cifar(found: CifarFiles, split: str) -> Dataset:
    """Reads a split into memory, as it is stored: 3072 bytes an image. Labels are the fine ones.

    Args:
        found: the files.
        split: one of `SPLITS`; ``auto`` takes the test data where there are any.

    Raises:
        DataError: there are no batches of that split, one of them is missing, is truncated or is
            not a batch.
    """
    kind, files = found.kind, found.files
    chosen = choose_split(found.path, found.names, split)
    missing = found.missing.get(chosen)
    if missing:
        raise DataError(
            f"{files.path} is incomplete: of the {chosen} data of {kind.name}, "
            f"{', '.join(missing)} is missing"
        )
    names = found.names[chosen]
    contents = files.read(names)
    parts = [_decode(contents.pop(name), name, files.name_of(name), kind) for name in names]
    images = parts[0][0] if len(parts) == 1 else np.concatenate([pixels for pixels, _ in parts])
    form = "binary" if names[0].endswith(".bin") else "Python"
    return Dataset(
        description=f"{kind.name}, {form} batches, split {chosen}",
        split=chosen,
        images=len(images),
        load=lambda i: Image.fromarray(images[i].reshape(3, 32, 32).transpose(1, 2, 0)),
        name_of=lambda i: f"image {i} of {found.path}",
        labels=np.concatenate([labels for _, labels in parts]),
        classes=kind.classes,
        published=True,
    )


def _in_folder(path: Path, kind: _Kind) -> CifarFiles | None:
    found = _in_container(path, Folder(path), kind)
    for name in kind.archives:
        if found is None and (path / name).is_file():
            found = _in_container(path, Archive(path / name), kind)
    return found


def _in_container(path: Path, files: Folder | Archive, kind: _Kind) -> CifarFiles | None:
    for folder in ("", *(f"{name}/" for name in kind.folders)):
        for suffix in (".bin", ""):
            names: dict[str, list[str]] = {}
            missing: dict[str, list[str]] = {}
            for split, batches in (("train", kind.train), ("test", kind.test)):
                wanted = [f"{folder}{batch}{suffix}" for batch in batches]
                there = [name for name in wanted if files.has(name)]
                if there:
                    names[split] = there
                    missing[split] = [name for name in wanted if name not in there]
            if names:
                return CifarFiles(kind, path, files, names, missing)
    return None


def _single(path: Path, kind: _Kind) -> CifarFiles | None:
    """A batch by itself; a binary one may have any name, and is CIFAR-10's test data then."""
    if not path.is_file():
        return None
    stem = path.name.removesuffix(".bin")
    splits = dict.fromkeys(kind.train, "train") | dict.fromkeys(kind.test, "test")
    split = splits.get(stem)
    if split is None and kind is _CIFAR10 and path.suffix == ".bin":
        split = None if stem in (*_CIFAR100.train, *_CIFAR100.test) else "test"
    if split is None:
        return None
    return CifarFiles(kind, path, Folder(path.parent), {split: [path.name]}, {})


def _decode(
    data: bytes, name: str, shown: str, kind: _Kind
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, 3072), as planes of red, green and blue, and labels (N,)."""
    if name.endswith(".bin"):
        if not data or len(data) % kind.record:
            raise DataError(
                f"{shown} has {len(data)} bytes, not a multiple of {kind.record}: it is not a "
                f"{kind.name} batch, or is truncated"
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, kind.record)
        heads, pixels = np.split(records, [len(kind.label_counts)], axis=1)
        labels = heads[:, -1].astype(np.int64)
        for column, count in enumerate(kind.label_counts[:-1]):
            if heads[:, column].max() >= count:
                raise DataError(
                    f"{shown} has coarse labels outside 0 … {count - 1}: it is not a {kind.name} "
                    "batch"
                )
    else:
        try:
            pixels, labels = unpickle_batch(data, kind.labels_key, _PIXELS)
        except ValueError as error:
            raise DataError(
                f"{shown} is not a Python batch of {kind.name}, or is truncated"
            ) from error
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(kind.classes):
        raise DataError(
            f"{shown} has labels outside 0 … {len(kind.classes) - 1}: it is not a {kind.name} batch"
        )
    return pixels, labels
