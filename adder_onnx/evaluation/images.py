"""Image files, and a single one as a data set."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from adder_onnx import memory
from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.files import check_readable

__all__ = ["open_image", "read_image"]

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
        single=True,
    )


def open_image(path: Path) -> Image.Image:
    """The image in a file, of any mode.

    Raises:
        DataError: it cannot be read, is no whole image, or is larger than Pillow's limit or the
            memory that may be taken.
    """
    check_readable(path, DataError)
    try:
        with Image.open(path, formats=_formats()) as image:
            pixels = image.width * image.height * len(image.getbands())
            memory.require(_COPIES * pixels, f"the image {path}", DataError)
            image.load()
            copy: Image.Image = image.copy()
            # Only colours count, and Pillow warns when it converts a palette with transparency.
            copy.info.pop("transparency", None)
            return copy
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that Pillow can read") from error
    except DataError:
        raise
    except Exception as error:  # decoders of corrupt images may raise anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        what = str(reason) or type(error).__name__
        raise DataError(f"cannot read the image {path}: {what}") from error


@functools.cache
def _formats() -> list[str]:
    """Those that this Pillow has."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]
