"""Arrays in an ``.npz`` file: a model's inputs, or images, with labels or without."""

from __future__ import annotations

import io
import logging
import math
import warnings
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx import memory
from adder_onnx.archives.zips import check_inflated, open_zip
from adder_onnx.errors import DataError
from adder_onnx.evaluation.array_layout import channels_first
from adder_onnx.evaluation.dataset import Dataset, Planes, Sample
from adder_onnx.evaluation.npz_labels import read_labels
from adder_onnx.evaluation.npz_names import choose_arrays, listed
from adder_onnx.metadata import Preprocessing
from adder_onnx.runtime import NodeArg

__all__ = ["read_npz"]

_logger = logging.getLogger(__name__)

_SAMPLED = 64
_SUFFIX = ".npy"
_CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 16
_FREE = 1 << 30
"""Bytes that zeros may become, as in an array that only has a size."""

_MOST_EMPTY = 1 << 20
"""Rows without values take no place in a file, and time all the same."""

_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(
    path: Path, split: str, inputs: Sequence[NodeArg], preprocessing: Preprocessing | None
) -> Dataset:
    """The arrays of an ``.npz`` file.

    It holds an array for each input of the model, or one of images for each split, and perhaps
    labels, under the names that `choose_arrays` knows. An array of uint8 with four axes, or with
    three for grey images, holds images, which the model's preprocessing is applied to; a float one
    is taken as it is. Channels are brought in front as `channels_first` says, and labels are what
    `read_labels` takes. Arrays that are not compressed stay in the file until they are needed,
    others are held in memory.

    Args:
        path: the file; pickled objects in it are refused.
        split: one of `SPLITS`.
        inputs: the model's inputs.
        preprocessing: the model's, if it says it.

    Raises:
        DataError: the file is not whole, or its arrays are not as described.
    """
    with open_zip(path, DataError, "an .npz file") as archive:
        members = {
            _array_name(info.filename): info
            for info in archive.infolist()
            if info.filename.endswith(_SUFFIX)
        }
        choice = choose_arrays(path, members, [value.name for value in inputs], split)
        chosen = (*choice.inputs, choice.labels, choice.classes)
        read_ones = [members[name] for name in chosen if name is not None]
        check_inflated(read_ones, _FREE)
        _check_memory(path, read_ones)
        read = partial(_read, path, archive)
        arrays = [read(members[name]) for name in choice.inputs]
        label_array = read(members[choice.labels]) if choice.labels else None
        classes = read(members[choice.classes]) if choice.classes else None
    unused = list(choice.other)
    if classes is not None and (classes.ndim != 1 or classes.dtype.kind not in "US"):
        unused.append(choice.classes or "")
        classes = None
    labels = None
    counts = {name: len(a) for name, a in zip(choice.inputs, arrays, strict=True) if a.ndim}
    if label_array is not None:
        labels = read_labels(path, choice.labels or "", label_array, classes)
        counts[choice.labels or ""] = len(labels.numbers)
    for i, name in enumerate(choice.inputs):
        shape = inputs[i].shape if inputs else [None] * 4
        named = bool(inputs) and inputs[i].name == name
        found = f"{path}: the array {name} is {arrays[i].dtype} {list(arrays[i].shape)}"
        arrays[i] = channels_first(
            found, arrays[i], shape, preprocessing, named=named, counted=labels is not None
        )
        _check(found, arrays[i], preprocessing, alone=len(choice.inputs) == 1)
    if len(set(counts.values())) > 1:
        raise DataError(
            f"{path} has arrays of different lengths: "
            + ", ".join(f"{name} has {count}" for name, count in counts.items())
        )
    if unused:
        _logger.warning("%s also holds %s, which the model has no input for", path, listed(unused))
    if len(arrays) == 1 and preprocessing is not None:
        _warn_unless_preprocessed(path, choice.inputs[0], arrays[0], preprocessing)

    def load(i: int) -> Sample:
        pairs = zip(choice.inputs, arrays, strict=True)
        return tuple(_sample(path, name, array, i) for name, array in pairs)

    description = f"arrays {', '.join(choice.inputs)} of an .npz file"
    return Dataset(
        description=description if choice.split is None else f"{description}, split {choice.split}",
        split=choice.split,
        images=len(arrays[0]),
        load=load,
        name_of=lambda i: f"row {i} of {path}",
        labels=None if labels is None else labels.numbers,
        classes=None if labels is None else labels.classes,
        published=labels is not None and labels.published,
        label_span=None if labels is None else labels.span,
        arrays=True,
    )


def _array_name(member: str) -> str:
    return member.removesuffix(_SUFFIX)


def _check_memory(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    packed = [info.file_size for info in members if info.compress_type != zipfile.ZIP_STORED]
    memory.require(sum(packed), f"{path}: what is compressed of its arrays", DataError)


def _read(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """One array; where it is stored as it is, its data stay in the file."""
    name = _array_name(info.filename)
    with archive.open(info) as file:
        shape, order, dtype, start = _read_header(path, info, file.read(_LONGEST_HEADER))
    expected = math.prod(shape) * dtype.itemsize
    if info.file_size - start != expected or min(shape, default=0) < 0:
        raise DataError(
            f"{path}: the array {name} has {info.file_size - start} bytes where its header "
            f"{list(shape)} says {expected}"
        )
    if not expected and max(shape, default=0) > _MOST_EMPTY:
        raise DataError(f"{path}: the array {name} is {dtype} {list(shape)}, without values")
    with archive.open(info) as file:
        file.read(start)
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


def _read_header(
    path: Path, info: zipfile.ZipInfo, beginning: bytes
) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any], int]:
    """Shape, order and type of an array, and where its data begin."""
    name = _array_name(info.filename)
    file = io.BytesIO(beginning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in a header makes no second line
            version = np.lib.format.read_magic(file)
            if version not in _READ_HEADER:
                raise ValueError(f"it has version {version} of the format")
            shape, fortran, dtype = _READ_HEADER[version](file)
    except Exception as error:  # NumPy evaluates a header as Python, which fails in any way
        raise DataError(f"{path}: {info.filename} is not an array: {error}") from error
    if dtype.hasobject:
        raise DataError(
            f"{path}: the array {name} holds Python objects, which are not read; store numbers"
        )
    if dtype.subdtype is not None:
        raise DataError(f"{path}: the array {name} has values of several parts; store numbers")
    return shape, "F" if fortran else "C", dtype, file.tell()


def _check(found: str, array: NDArray[Any], how: Preprocessing | None, *, alone: bool) -> None:
    """Checks an array whose channels are in front."""
    if array.ndim == 0 or array.dtype.kind not in "fiub" or (alone and not _fits(array)):
        raise DataError(
            f"{found}; expected images (N, C, H, W), of uint8 or, already preprocessed, of float32"
        )
    if _holds_images(array):
        channels = 3 if how is None else how.channels
        allowed = {1, 3} if channels in (1, 3) else {channels}
        if array.shape[1] not in allowed or 0 in array.shape[2:]:
            raise DataError(
                f"{found}; expected uint8 images (N, C, H, W) or (N, H, W, C) with "
                f"{' or '.join(map(str, sorted(allowed)))} channels"
            )


def _fits(array: NDArray[Any]) -> bool:
    return array.ndim == 4 and (array.dtype.kind == "f" or array.dtype == np.uint8)


def _holds_images(array: NDArray[Any]) -> bool:
    return array.ndim == 4 and array.dtype == np.uint8


def _warn_unless_preprocessed(
    path: Path, name: str, array: NDArray[Any], how: Preprocessing
) -> None:
    """Warns where floats look like pixels that a mean is still to be subtracted from."""
    if array.dtype.kind != "f" or not array.size or (not any(how.mean) and set(how.std) == {1.0}):
        return
    rows = np.linspace(0, len(array) - 1, min(len(array), _SAMPLED)).astype(int)
    values = np.asarray(array[np.unique(rows)], np.float64)
    lowest, highest = float(values.min()), float(values.max())
    expected = max((1 - mean) / std for mean, std in zip(how.mean, how.std, strict=True))
    pixels = lowest >= 0 and highest <= 255
    if pixels and (any(mean > 0 for mean in how.mean) or highest > expected):
        _logger.warning(
            "%s: the floats of %s are taken as already preprocessed, but are %.3g to %.3g, where "
            "the model's preprocessing gives values around 0; give uint8 pixels if they are not",
            path,
            name,
            lowest,
            highest,
        )


def _sample(
    path: Path, name: str, array: NDArray[Any], i: int
) -> Image.Image | Planes | NDArray[Any]:
    value = np.array(array[i])
    if _holds_images(array):
        if len(value) == 1:
            return Image.fromarray(value[0])
        return Image.fromarray(value.transpose(1, 2, 0)) if len(value) == 3 else Planes(value)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise DataError(f"row {i} of {path}: {name} holds values that are not finite")
    return value
