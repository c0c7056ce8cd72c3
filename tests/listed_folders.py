"""What the tests of listed folders share: comparing with disk, and a store without folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import pytest

from adder_onnx.errors import DataError
from adder_onnx.evaluation import Dataset, file_systems, open_dataset
from adder_onnx.evaluation.listed_image_folder import read_listed_folder

REASON = 'needs pyarrow: pip install "adder-onnx[ray]"'


class Reading(NamedTuple):
    """All that can be seen of reading a data set, with paths in the place of their URIs."""

    error: str
    warnings: list[str]
    facts: tuple[Any, ...] = ()
    names: list[str] = []  # noqa: RUF012 (it is never changed)
    images: list[Any] = []  # noqa: RUF012


def observed(read: Callable[[], Dataset], anchor: str | None = None) -> Reading:
    """Reads a data set and decodes its images.

    Args:
        read: gives the data set.
        anchor: what its URIs have before their paths; None where it has paths.
    """

    def as_path(text: str) -> str:
        return text if anchor is None else unquote(text.replace(anchor, ""))

    with _log() as warnings:
        try:
            dataset = read()
        except DataError as error:
            return Reading(as_path(str(error)), [as_path(text) for text in warnings])
    facts = (
        as_path(dataset.description),
        dataset.split,
        None if dataset.labels is None else dataset.labels.tolist(),
        dataset.classes,
        dataset.label_span,
        (dataset.published, dataset.matching, dataset.arrays, dataset.single),
    )
    images: list[Any] = []
    for i in range(dataset.images):
        try:
            image: Any = dataset.load(i)
            images.append((image.mode, image.size, image.tobytes()))
        except DataError as error:
            images.append(as_path(str(error)))
    names = [as_path(dataset.name_of(i)) for i in range(dataset.images)]
    return Reading("", [as_path(text) for text in warnings], facts, names, images)


@contextmanager
def _log() -> Iterator[list[str]]:
    """What is logged, which nobody else gets."""
    texts: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    logger, handler = logging.getLogger("adder_onnx"), Handler()
    logger.addHandler(handler)
    logger.propagate, propagate = False, logger.propagate
    try:
        yield texts
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


def open_both_ways(
    path: Path,
    format: str = "auto",
    split: str = "auto",
    inputs: Any = (),
    preprocessing: Any = None,
    labels_csv: Path | None = None,
) -> Dataset:
    """`open_dataset`, which must tell of a folder what its URI tells."""

    def opened() -> Dataset:
        return open_dataset(path, format, split, inputs, preprocessing, labels_csv)

    if format == "imagefolder" or (format == "auto" and os.path.isdir(path)):
        uri = f"file://{quote(str(path))}"
        listed = observed(lambda: read_listed_folder(uri, split, labels_csv), "file://")
        assert listed == observed(opened)
    return opened()


def object_store(
    monkeypatch: pytest.MonkeyPatch, objects: Mapping[str, bytes], *, folders: bool = False
) -> None:
    """Makes pyarrow have a store for ``store://bucket/…``, of objects by their keys.

    Args:
        monkeypatch: pytest's.
        objects: what is in the bucket; a key that ends in a slash only marks a folder.
        folders: whether listings have the folders that keys name.
    """
    from pyarrow.fs import FileSystem, PyFileSystem

    system = PyFileSystem(_handler(objects, folders))

    def from_uri(uri: str) -> tuple[FileSystem, str]:
        return system, unquote(uri.removeprefix("store://")).rstrip("/")

    monkeypatch.setattr(file_systems, "_from_uri", from_uri)


def _handler(objects: Mapping[str, bytes], folders: bool) -> Any:
    import pyarrow
    from pyarrow.fs import FileInfo, FileSystemHandler, FileType

    files = {f"bucket/{key}": data for key, data in objects.items()}

    class Handler(FileSystemHandler):  # type: ignore[misc]
        def get_file_info(self, paths: list[str]) -> list[FileInfo]:
            return [
                FileInfo(path, FileType.File, size=len(files[path]))
                if path in files
                else FileInfo(path, FileType.NotFound)
                for path in paths
            ]

        def get_file_info_selector(self, selector: Any) -> list[FileInfo]:
            below = [path for path in files if path.startswith(f"{selector.base_dir}/")]
            if not below:
                raise FileNotFoundError(selector.base_dir)
            found = {}
            for path in below:
                if folders:
                    names = path.split("/")[:-1]
                    for i in range(selector.base_dir.count("/") + 2, len(names) + 1):
                        found[f"{'/'.join(names[:i])}/"] = FileType.Directory
                found[path] = FileType.Directory if path.endswith("/") else FileType.File
            return [
                FileInfo(path.rstrip("/"), type, size=len(files.get(path, b"")))
                for path, type in found.items()
            ]

        def open_input_stream(self, path: str) -> Any:
            return pyarrow.PythonFile(pyarrow.BufferReader(files[path]), "r")

    # What a file system has besides is not needed of this one.
    missing = Handler.__abstractmethods__
    return type("Store", (Handler,), dict.fromkeys(missing, lambda *_: "store"))()
