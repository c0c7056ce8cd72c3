"""Images in a column of a batch.

A value is one of

1. the bytes of an image file;
2. a struct ``{bytes, path}``, as data sets of Hugging Face have them, with the bytes of a file;
3. pixels, (H, W) or (H, W, C), uint8;
4. an image of Pillow.

Where no column is named, it is the first called image, img, bytes, jpg and so on whose values are
such; otherwise the only one whose values are. Of a batch without rows the name alone counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Planes
from adder_onnx.evaluation.images import decode_image
from adder_onnx.text import shorten

__all__ = ["Column", "find_images", "name_of_row", "to_image"]

Column = Sequence[Any] | NDArray[Any]
"""A value for each row."""

_NAMES = ("image", "img", "bytes", "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm")
_NAMES_OF_ROWS = ("path", "file_name", "filename", "name", "__key__", "key", "id")
_FILE = (bytes, bytearray, memoryview)
_BANDS = (1, 2, 3, 4)
_CELLS = 60
_DESCRIBED = 12


def find_images(batch: Mapping[str, Column]) -> str | None:
    """The name of the column that has the images, by the rules above.

    Returns:
        The name; None only where there are no rows.

    Raises:
        DataError: there is none, or several may be it.
    """
    if not any(len(column) for column in batch.values()):
        return next((name for name in _NAMES if name in batch), None)
    found = [name for name, column in batch.items() if _has_images(column)]
    for name in _NAMES:
        if name in found:
            return name
    if len(found) == 1:
        return found[0]
    columns = ", ".join(_describe(name, column) for name, column in [*batch.items()][:_DESCRIBED])
    if len(batch) > _DESCRIBED:
        columns += f", and {len(batch) - _DESCRIBED} more"
    wrong = "several columns may be the images" if found else "no column has images"
    raise DataError(f"{wrong}: say which by image_column; there are {columns or 'none'}")


def to_image(value: Any, channels: int) -> Image.Image | Planes:
    """The image that a value of the column is.

    Args:
        value: see above.
        channels: that the model takes.

    Raises:
        DataError: it is none, or cannot be read.
    """
    if isinstance(value, Mapping) and "bytes" in value:
        value = value["bytes"]
        if value is None:
            raise DataError("the image has no bytes, at most a path: read the files themselves")
    if value is None:
        raise DataError("the image is missing")
    if isinstance(value, _FILE):
        return decode_image(bytes(value))
    if isinstance(value, Image.Image):
        return _loaded(value)
    if isinstance(value, np.ndarray):
        return _from_pixels(value, channels)
    raise DataError(
        f"the image is {_type(value)}; expected the bytes of an image file, pixels (H, W, C) "
        "of uint8, or an image of Pillow"
    )


def name_of_row(batch: Mapping[str, Column], column: str, row: int) -> str:
    """What a message calls a row: its number in the batch, and a name where there is one."""
    value = batch[column][row]
    names = [value.get("path")] if isinstance(value, Mapping) else []
    names += [batch[name][row] for name in _NAMES_OF_ROWS if name in batch and name != column]
    name = next((str(n) for n in names if isinstance(n, str | int | np.integer)), None)
    return f"row {row} of the batch" + (f" ({shorten(name, _CELLS)})" if name else "")


def _has_images(column: Column) -> bool:
    """Whether the first value is an image, or all are missing."""
    if isinstance(column, np.ndarray) and column.dtype != object:
        bytes_ = column.dtype.kind == "S"
        return bytes_ or (column.dtype == np.uint8 and column.ndim in (3, 4))
    value = next((v for v in column if v is not None), None)
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and value.ndim in (2, 3)
    is_struct = isinstance(value, Mapping) and "bytes" in value
    return value is None or is_struct or isinstance(value, (*_FILE, Image.Image))


def _describe(name: str, column: Column) -> str:
    if isinstance(column, np.ndarray) and column.dtype != object:
        shape = f" {list(column.shape[1:])}" if column.ndim > 1 else ""
        return f"{shorten(name, _CELLS)} ({column.dtype}{shape})"
    return f"{shorten(name, _CELLS)} ({_type(next((v for v in column if v is not None), None))})"


def _type(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {list(value.shape)}"
    return type(value).__name__


def _loaded(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # decoders of corrupt images may raise anything
        raise DataError(f"cannot read the image: {error or type(error).__name__}") from error
    return image


def _from_pixels(pixels: NDArray[Any], channels: int) -> Image.Image | Planes:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise DataError(f"the image is {_type(pixels)}; expected uint8, (H, W) or (H, W, C)")
    if pixels.ndim == 2:
        return Image.fromarray(pixels)
    bands = pixels.shape[2]
    if bands not in _BANDS or (bands == channels and channels not in (1, 3)):
        return Planes(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels)
