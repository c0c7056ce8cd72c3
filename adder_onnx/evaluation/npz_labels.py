"""Labels in an array: numbers, names, or a one in the column of the class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx import memory
from adder_onnx.errors import DataError

__all__ = ["Labels", "read_labels"]


@dataclass(frozen=True)
class Labels:
    """Labels of images.

    Attributes:
        numbers: (N,) int64.
        classes: the names that these number, or None.
        published: whether the numbers were there, and do not only count the names.
        span: the lowest and the highest number that there may be, where that is known.
    """

    numbers: NDArray[np.int64]
    classes: tuple[str, ...] | None = None
    published: bool = False
    span: tuple[int, int] | None = None


def read_labels(path: Path, name: str, array: NDArray[Any], classes: NDArray[Any] | None) -> Labels:
    """The labels in an array.

    Args:
        path: of the file, for messages.
        name: of the array.
        array: (N,) or (N, 1), integers or texts, or (N, classes) with one 1 in each row, all other
            values 0.
        classes: the names of the classes by their numbers, if the file has them.

    Raises:
        DataError: it is no such array, or numbers are negative or have no name.
    """
    found = f"{path}: the array {name} is {array.dtype} {list(array.shape)}"
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim == 1 and flat.dtype.kind in "US":
        names, numbers = np.unique(_texts(found, flat), return_inverse=True)
        return Labels(numbers.astype(np.int64), tuple(str(text) for text in names))
    span = None
    if flat.ndim == 2 and flat.shape[1] and flat.dtype.kind in "biuf" and _is_one_hot(flat):
        span = (0, flat.shape[1] - 1)
        flat = flat.argmax(axis=1)
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise DataError(
            f"{found}; expected integers or names (N,), or rows of one 1 and zeros (N, classes)"
        )
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < 1 << 31:
        raise DataError(
            f"{path}: the array {name} has the values {flat.min()} … {flat.max()}; expected "
            "numbers of classes, from 0"
        )
    numbers = flat.astype(np.int64)
    if classes is None:
        return Labels(numbers, span=span)
    texts = [str(text) for text in _texts(f"{path}: the names of the classes", classes)]
    if len(numbers) and int(numbers.max()) >= len(texts):
        raise DataError(
            f"{path}: the array {name} has the value {numbers.max()}, but there are "
            f"{len(texts)} names of classes"
        )
    return Labels(numbers, tuple(texts), published=True)


def _is_one_hot(array: NDArray[Any]) -> bool:
    return bool(((array == 1).sum(axis=1) == 1).all() and ((array != 0).sum(axis=1) == 1).all())


def _texts(what: str, array: NDArray[Any]) -> NDArray[np.str_]:
    width = array.dtype.itemsize * (4 if array.dtype.kind == "S" else 1)
    memory.require(3 * len(array) * width, what, DataError)  # decoded, stripped and sorted
    try:
        texts = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    except UnicodeDecodeError as error:
        raise DataError(f"{what}: a text is not in UTF-8: {error.reason}") from error
    return np.char.strip(texts)
