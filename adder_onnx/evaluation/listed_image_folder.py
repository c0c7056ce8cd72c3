"""Folders of images that are named by a URI."""

from __future__ import annotations

from pathlib import Path

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.image_folder import read_image_folder
from adder_onnx.evaluation.listed_folder import list_folder
from adder_onnx.evaluation.splits import warn_of_training_data

__all__ = ["read_listed_folder"]


def read_listed_folder(uri: str, split: str = "auto", labels_csv: Path | None = None) -> Dataset:
    """A folder of images on any of pyarrow's file systems, by the rules of `read_image_folder`.

    It is listed once, with all that is below it; files with labels are looked for near it, too.

    Args:
        uri: of the folder: ``s3://bucket/folder``, ``gs://…``, ``hdfs://…``, ``file:///…``; with
            the options that pyarrow's ``FileSystem.from_uri`` takes behind a question mark.
        split: one of `SPLITS`.
        labels_csv: a file with the labels, on this machine.

    Returns:
        The data set. Images are called by their URIs, which ``FileSystem.from_uri`` takes on any
        machine that may read them.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        DataError: the folder cannot be read, or as `read_image_folder`.
    """
    folder = list_folder(uri)
    if not any(folder.iterdir()):
        raise DataError(f"{folder} is an empty folder")
    dataset = read_image_folder(folder, split, labels_csv)
    warn_of_training_data(folder, split, dataset.split)
    return dataset
