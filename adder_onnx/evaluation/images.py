"""Image files, and a single one as a data set."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from adder_onnx import memory
from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.listed_folder import AnyPath, ListedPath
from adder_onnx.files import check_readable

__all__ = ["decode_image", "open_image", "read_image"]

_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "DIB", "MPO", "JPEG2000", "AVIF")
"""What image files are, whatever they are called; Pillow's others are rare, or run programs."""

_COPIES = 3  # decoded, copied, and converted
# What Pillow finds odd in an image is no reason for a second line beside an error, or for any where
# the image can be read. Filters hold for all threads, and are not safe to set in one of them.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(path: Path) -> Dataset:
    """A single image, without a label."""
    return Dataset(
        description="one image",
        split=None,
        images=1,
        load=lambda _: open_image(path),
        name_of=lambda _: str(path),
        files=True,
        single=True,
    )


def open_image(path: AnyPath) -> Image.Image:
    """The image in a file, of any mode.

    Raises:
        DataError: it cannot be read, is no whole image, or is larger than Pillow's limit or the
            memory that may be taken.
    """
    source: Path | IO[bytes]
    if isinstance(path, ListedPath):
        source = io.BytesIO(path.read())
    else:
        check_readable(path, DataError)
        source = path
    return _load(source, str(path), f"the image {path}", _formats(), None)


def decode_image(
    data: bytes, *, formats: Sequence[str] | None = None, most_pixels: int | None = None
) -> Image.Image:
    """The image in the bytes of a file, of any mode.

    Args:
        data: all of the file.
        formats: names that Pillow has for what it may be, such as ``PNG``; None for all that
            the commands read.
        most_pixels: how many it may have, which is looked at before they are decoded; None for as
            many as memory allows.

    Returns:
        The image, with all pixels in memory.

    Raises:
        DataError: it cannot be read, is no whole image of these formats, has more pixels, or is
            larger than Pillow's limit or the memory that may be taken.
    """
    allowed = [f for f in _formats() if formats is None or f in formats]
    return _load(io.BytesIO(data), "the data", "the image", allowed, most_pixels)


def _load(
    source: Path | IO[bytes], name: str, what: str, formats: list[str], most_pixels: int | None
) -> Image.Image:
    try:
        with Image.open(source, formats=formats) as image:
            if most_pixels is not None and image.width * image.height > most_pixels:
                raise DataError(
                    f"{what} is {image.width} x {image.height} pixels, more than {most_pixels}"
                )
            pixels = image.width * image.height * len(image.getbands())
            memory.require(_COPIES * pixels, what, DataError)
            image.load()
            copy: Image.Image = image.copy()
            # Only colours count, and Pillow warns when it converts a palette with transparency.
            copy.info.pop("transparency", None)
            return copy
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is not an image that Pillow can read") from error
    except DataError:
        raise
    except Exception as error:  # decoders of corrupt images may raise anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        why = str(reason) or type(error).__name__
        raise DataError(f"cannot read {what}: {why}") from error


@functools.cache
def _formats() -> list[str]:
    """Those that this Pillow has."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]
