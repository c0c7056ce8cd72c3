"""MNIST, and what comes in its form: idx files, as they are or compressed by gzip."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx import memory
from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.inflating import Inflating
from adder_onnx.evaluation.splits import choose_split

__all__ = ["is_mnist", "read_mnist"]

_PREFIXES = {"train": "train", "test": "t10k"}
_FOLDERS = ("", "raw", "MNIST/raw")
_CLASSES = 10
_CHUNK = 1 << 20


def is_mnist(path: Path) -> bool:
    """Whether there are MNIST's files at a path."""
    return bool(_find(path))


def read_mnist(path: Path, split: str) -> Dataset:
    """Reads a split into memory, as it is stored: a byte a pixel.

    Args:
        path: the folder of the idx files, the ``raw`` folder or the root above it as torchvision
            makes them, or a single file of images.
        split: one of `SPLITS`; ``auto`` takes the test data where there are any.

    Raises:
        DataError: there are no files of that split, or one is truncated or not what it is called.
    """
    found = _find(path)
    if not found:
        raise DataError(
            f"{path} holds no MNIST files (t10k-images-idx3-ubyte or train-images-idx3-ubyte, "
            "with or without .gz)"
        )
    chosen = choose_split(path, found, split)
    file = found[chosen]
    images = _read_idx(file, 3)
    labels_file = _existing(file.parent / f"{_PREFIXES[chosen]}-labels-idx1-ubyte")
    if labels_file is None:
        raise DataError(
            f"{file.parent} has no {_PREFIXES[chosen]}-labels-idx1-ubyte, the labels of {file.name}"
        )
    labels = _read_idx(labels_file, 1).astype(np.int64)
    if len(labels) != len(images):
        raise DataError(
            f"{labels_file} has {len(labels)} labels for the {len(images)} images of {file.name}"
        )
    if len(labels) and labels.max() >= _CLASSES:
        raise DataError(f"{labels_file} has the label {labels.max()}; expected 0 … {_CLASSES - 1}")
    return Dataset(
        description=f"MNIST, split {chosen}",
        split=chosen,
        images=len(images),
        load=lambda i: Image.fromarray(images[i]),
        name_of=lambda i: f"image {i} of {path}",
        labels=labels,
        classes=tuple(str(digit) for digit in range(_CLASSES)),
        published=True,
    )


def _find(path: Path) -> dict[str, Path]:
    """The files of images by split."""
    names = {split: f"{prefix}-images-idx3-ubyte" for split, prefix in _PREFIXES.items()}
    if path.is_file():
        stem = path.name.removesuffix(".gz")
        return {split: path for split, name in names.items() if stem == name}
    for folder in _FOLDERS:
        files = {split: _existing(path / folder / name) for split, name in names.items()}
        found = {split: file for split, file in files.items() if file is not None}
        if found:
            return found
    return {}


def _existing(path: Path) -> Path | None:
    for candidate in (path, path.with_name(f"{path.name}.gz")):
        if candidate.is_file():
            return candidate
    return None


def _read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """The array of bytes in an idx file: two zeros, the type 8, the rank, sizes, then the data."""
    with path.open("rb") as raw:
        zipped = path.name.endswith(".gz")
        file: IO[bytes] = io.BufferedReader(Inflating(raw, path)) if zipped else raw
        header = _read_up_to(file, 4 + 4 * rank)
        if len(header) < 4 + 4 * rank or header[:4] != bytes([0, 0, 8, rank]):
            raise DataError(
                f"{path} is not an idx file of bytes with {rank} dimensions, or is truncated"
            )
        shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
        expected = math.prod(shape)
        if not zipped:
            memory.require(min(expected, path.stat().st_size), str(path), DataError)
        data = _read_up_to(file, expected + 1)
    if len(data) != expected:
        raise DataError(
            f"{path} has {'more' if len(data) > expected else len(data)} bytes of data where its "
            f"header {list(shape)} says {expected}: it is not whole"
        )
    if 0 in shape[1:]:
        raise DataError(f"{path} has images of {shape[1]} x {shape[2]} pixels")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_up_to(file: IO[bytes], count: int) -> bytearray:
    """At most that many bytes; memory grows only with what is there, whatever a header says."""
    data = bytearray()
    while len(data) < count and (chunk := file.read(min(_CHUNK, count - len(data)))):
        data += chunk
        memory.require(len(data), "what is unpacked of MNIST's files", DataError)
    return data
