"""Arrays in an ``.npz`` file: a model's inputs, or images, with labels or without."""

from __future__ import annotations

import logging
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset, Sample

__all__ = ["read_npz"]

_LABELS = "labels"
_SUFFIX = ".npy"
_CHUNK = 1 << 20
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path, inputs: Sequence[str]) -> Dataset:
    """The arrays of an ``.npz`` file.

    It holds one array (N, …) for each input of the model, under the input's name, or a single one
    of any name, and perhaps ``labels`` (N,), integers. An array (N, C, H, W) of uint8 holds images
    of C = 1 (grey) or 3 (RGB) channels, which the model's preprocessing is applied to; a float one
    is taken as it is. Arrays that are not compressed stay in the file until they are needed, others
    are held in memory.

    Args:
        path: the file; pickled objects in it are refused.
        inputs: names of the model's inputs.

    Raises:
        DataError: the file is not whole, or its arrays are not as described.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                _array_name(info.filename): info
                for info in archive.infolist()
                if info.filename.endswith(_SUFFIX)
            }
            names = _choose(path, members, inputs)
            arrays = [_read(path, archive, members[name]) for name in names]
            labelled = _LABELS in members and _LABELS not in names
            labels = _read(path, archive, members[_LABELS]) if labelled else None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise DataError(f"{path} is not an .npz file, or is damaged: {error}") from error
    for name, array in zip(names, arrays, strict=True):
        _check(path, name, array, alone=len(names) == 1)
    counts = {name: len(array) for name, array in zip(names, arrays, strict=True)}
    if labels is not None:
        _check_labels(path, labels)
        counts[_LABELS] = len(labels)
    if len(set(counts.values())) > 1:
        raise DataError(
            f"{path} has arrays of different lengths: "
            + ", ".join(f"{name} has {count}" for name, count in counts.items())
        )

    unused = [name for name in members if name not in (*names, _LABELS)]
    if unused:
        logging.getLogger(__name__).warning(
            "%s also holds %s, which the model has no input for", path, ", ".join(unused)
        )

    def load(i: int) -> Sample:
        return tuple(_sample(path, name, a, i) for name, a in zip(names, arrays, strict=True))

    return Dataset(
        description=f"arrays {', '.join(names)} of an .npz file",
        split=None,
        images=len(arrays[0]),
        load=load,
        name_of=lambda i: f"row {i} of {path}",
        labels=None if labels is None else labels.astype(np.int64),
        arrays=True,
    )


def _array_name(member: str) -> str:
    return member.removesuffix(_SUFFIX)


def _choose(path: Path, names: Mapping[str, object], inputs: Sequence[str]) -> list[str]:
    """The arrays to feed, in the order of the model's inputs."""
    data = [name for name in names if name != _LABELS or name in inputs]
    if inputs and all(name in data for name in inputs):
        return list(inputs)
    if len(data) == 1 and len(inputs) <= 1:
        return data
    raise DataError(
        f"{path} holds {', '.join(data) or 'no arrays'}; expected one array for each input of the "
        f"model ({', '.join(inputs)})" + (", or a single one" if len(inputs) == 1 else "")
    )


def _read(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """One array; where it is stored as it is, its data stay in the file."""
    with archive.open(info) as file:
        try:
            version = np.lib.format.read_magic(file)
            if version not in _READ_HEADER:
                raise ValueError(f"it has version {version} of the format")
            shape, fortran, dtype = _READ_HEADER[version](file)
        except ValueError as error:
            raise DataError(f"{path}: {info.filename} is not an array: {error}") from error
        if dtype.hasobject:
            raise DataError(
                f"{path}: the array {_array_name(info.filename)} holds Python objects, which are "
                "not read; store numbers"
            )
        start = file.tell()
        expected = math.prod(shape) * dtype.itemsize
        if info.file_size - start != expected or min(shape, default=0) < 0:
            raise DataError(
                f"{path}: the array {_array_name(info.filename)} has {info.file_size - start} "
                f"bytes where its header {list(shape)} says {expected}"
            )
        order: Literal["C", "F"] = "F" if fortran else "C"
        if info.compress_type != zipfile.ZIP_STORED or not expected:
            array: NDArray[Any] = np.ndarray(shape, dtype, file.read(), order=order)
            return array
        while file.read(_CHUNK):
            continue  # the checksum is compared at the end
    with path.open("rb") as raw:
        raw.seek(info.header_offset + 26)  # of a local header: 30 bytes, then name and extra field
        sizes = np.frombuffer(raw.read(4), "<u2")
    offset = info.header_offset + 30 + int(sizes.sum()) + start
    return np.memmap(path, dtype, "r", offset, shape, order)


def _check(path: Path, name: str, array: NDArray[Any], *, alone: bool) -> None:
    found = f"{path}: the array {name} is {array.dtype} {list(array.shape)}"
    if array.ndim == 0 or array.dtype.kind not in "fiub" or (alone and not _fits(array)):
        raise DataError(
            f"{found}; expected images (N, C, H, W), of uint8 or, already preprocessed, of float32"
        )
    if _holds_images(array) and (array.shape[1] not in (1, 3) or 0 in array.shape[2:]):
        raise DataError(f"{found}; expected uint8 images (N, C, H, W) with 1 or 3 channels")


def _fits(array: NDArray[Any]) -> bool:
    return array.ndim == 4 and (array.dtype.kind == "f" or array.dtype == np.uint8)


def _holds_images(array: NDArray[Any]) -> bool:
    return array.ndim == 4 and array.dtype == np.uint8


def _check_labels(path: Path, labels: NDArray[Any]) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: the array {_LABELS} is {labels.dtype} {list(labels.shape)}; expected "
            "integers (N,)"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < 1 << 31:
        raise DataError(
            f"{path}: the array {_LABELS} has the values {labels.min()} … {labels.max()}; expected "
            "numbers of classes, from 0"
        )


def _sample(path: Path, name: str, array: NDArray[Any], i: int) -> Image.Image | NDArray[Any]:
    value = np.array(array[i])
    if _holds_images(array):
        return Image.fromarray(value[0] if len(value) == 1 else value.transpose(1, 2, 0))
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise DataError(f"row {i} of {path}: {name} holds values that are not finite")
    return value
