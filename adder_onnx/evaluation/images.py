"""Image files, and a single one as a data set."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset

__all__ = ["open_image", "read_image"]


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
        DataError: it cannot be read, or is no whole image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            copy: Image.Image = image.copy()
            # Only colours count, and Pillow warns when it converts a palette with transparency.
            copy.info.pop("transparency", None)
            return copy
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that Pillow can read") from error
    except Exception as error:  # decoders of corrupt images may raise anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"cannot read the image {path}: {reason}") from error
