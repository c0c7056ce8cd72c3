"""Finding out what format a data set has."""

from __future__ import annotations

from pathlib import Path

from adder_onnx.errors import DataError
from adder_onnx.evaluation.cifar import is_cifar10, read_cifar10
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.images import is_image, read_image, read_image_folder

__all__ = ["FORMATS", "SPLITS", "open_dataset"]

FORMATS = ("auto", "cifar10", "imagefolder", "image")
SPLITS = ("auto", "train", "test")


def open_dataset(path: Path, format: str = "auto", split: str = "auto") -> Dataset:
    """Opens a data set.

    Args:
        path: CIFAR-10 batches (binary or Python) or the folder above them, a folder with one
            folder of images per class, or an image.
        format: one of `FORMATS`; ``auto`` tells by what lies there.
        split: one of `SPLITS`, for formats that have splits; ``auto`` takes the test data where
            there are any.

    Raises:
        DataError: nothing is there, it cannot be read, or it is not of the format.
    """
    try:
        return _open(path, format, split)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or path}: {error.strerror or error}"
        ) from error


def _open(path: Path, format: str, split: str) -> Dataset:
    if not path.exists():
        raise DataError(f"{path} does not exist; --data takes a folder or a file")
    if format == "auto":
        format = _detect(path)
    if format == "cifar10":
        if not is_cifar10(path):
            raise DataError(f"{path} holds no CIFAR-10 batches (test_batch or test_batch.bin)")
        return read_cifar10(path, split)
    if split != "auto":
        raise DataError(f"{path} has no splits: leave out --split {split}")
    if format == "image":
        return read_image(path)
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; expected one folder of images per class")
    return read_image_folder(path)


def _detect(path: Path) -> str:
    if is_image(path):
        return "image"
    if is_cifar10(path):
        return "cifar10"
    if path.is_dir():
        if not any(path.iterdir()):
            raise DataError(f"{path} is an empty folder")
        return "imagefolder"
    raise DataError(
        f"cannot tell the format of {path}; it is neither an image nor a CIFAR-10 batch (.bin)"
    )
