"""Finding out what format a data set has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from adder_onnx.errors import DataError
from adder_onnx.evaluation.cifar import find_cifar, read_cifar
from adder_onnx.evaluation.containers import is_archive
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.folders import is_image
from adder_onnx.evaluation.image_folder import read_image_folder
from adder_onnx.evaluation.images import read_image
from adder_onnx.evaluation.mnist import is_mnist, read_mnist
from adder_onnx.evaluation.npz import read_npz
from adder_onnx.evaluation.splits import SPLITS, warn_of_training_data
from adder_onnx.files import check_readable
from adder_onnx.metadata import Preprocessing
from adder_onnx.runtime import NodeArg

__all__ = ["FORMATS", "RAY_FORMATS", "SPLITS", "open_dataset"]

FORMATS = ("auto", "cifar10", "cifar100", "mnist", "imagefolder", "image", "npz")
"""What `open_dataset` takes as a format; ``auto`` finds out."""

RAY_FORMATS = ("parquet", "webdataset")
"""What only `adder_onnx.ray` reads."""

_CIFAR = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def open_dataset(
    path: Path,
    format: str = "auto",
    split: str = "auto",
    inputs: Sequence[NodeArg] = (),
    preprocessing: Preprocessing | None = None,
    labels_csv: Path | None = None,
) -> Dataset:
    """Opens a data set.

    Args:
        path: batches of CIFAR-10 or CIFAR-100 (binary or Python), their archive, MNIST's idx files,
            or the folder above any of them as torchvision makes it; a folder with one folder of
            images per class, or above ``train``, ``val`` or ``test`` with those; a folder of
            images, with labels in a file or without; an image; an ``.npz`` file.
        format: one of `FORMATS`; ``auto`` tells by what lies there.
        split: one of `SPLITS`, for formats that have splits; ``auto`` takes the test or validation
            data where there are any, else, with a warning, the training data.
        inputs: the model's inputs, by which an ``.npz`` file's arrays are found.
        preprocessing: the model's, which tells what these arrays have to be.
        labels_csv: a table with the labels of images in a folder: an image and its class in each
            line.

    Returns:
        The data set; images are read when they are asked for.

    Raises:
        DataError: nothing is there, it cannot be read, or it is not of the format.
    """
    try:
        dataset = _open(path, format, split, inputs, preprocessing, labels_csv)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or path}: {error.strerror or error}"
        ) from error
    if dataset.images == 0:
        raise DataError(f"{path} has no images ({dataset.description})")
    if not dataset.arrays and preprocessing is not None and preprocessing.channels not in (1, 3):
        raise DataError(
            f"{path}: {dataset.description}, but the model takes images of "
            f"{preprocessing.channels} channels, which image files do not have: give it uint8 "
            "arrays (N, C, H, W) in an .npz file"
        )
    warn_of_training_data(path, split, dataset.split)
    return dataset


def _open(
    path: Path,
    format: str,
    split: str,
    inputs: Sequence[NodeArg],
    preprocessing: Preprocessing | None,
    labels_csv: Path | None,
) -> Dataset:
    if not _is_there(path):
        raise DataError(f"{path} does not exist; --data takes a folder or a file")
    check_readable(path, DataError, folder=True)
    wanted = _CIFAR if format == "auto" else [format] if format in _CIFAR else []
    cifar = find_cifar(path, wanted)
    if format == "auto":
        format = _detect(path, list(cifar))
    if labels_csv is not None and format != "imagefolder":
        raise DataError(f"--labels-csv says the labels of a folder of images; {path} is none")
    if format in _CIFAR:
        if format not in cifar:
            raise DataError(
                f"{path} holds no {_CIFAR[format]} batches, neither binary nor Python, nor their "
                ".tar.gz"
            )
        return read_cifar(cifar[format], split)
    if format == "mnist":
        return read_mnist(path, split)
    if format == "imagefolder":
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; expected one folder of images per class")
        return read_image_folder(path, split, labels_csv)
    if format == "npz":
        return read_npz(path, split, inputs, preprocessing)
    if split != "auto":
        raise DataError(f"{path} has no splits: leave out --split {split}")
    return read_image(path)


def _is_there(path: Path) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # there may be something that cannot be read
        return True
    return True


def _detect(path: Path, cifar: list[str]) -> str:
    found = [*cifar, *(["mnist"] if is_mnist(path) else [])]
    if len(found) > 1:
        raise DataError(f"{path} holds {' and '.join(found)}: choose one with --format")
    if found:
        return found[0]
    if path.is_dir():
        if not any(path.iterdir()):
            raise DataError(f"{path} is an empty folder")
        return "imagefolder"
    if is_image(path):
        return "image"
    if path.suffix.lower() == ".npz":
        return "npz"
    if is_archive(path):
        raise DataError(f"{path} is an archive without batches of CIFAR-10 or CIFAR-100")
    raise DataError(
        f"cannot tell the format of {path}; it is neither an image nor an .npz file nor a batch of "
        "CIFAR (.bin): --format says what it is"
    )
