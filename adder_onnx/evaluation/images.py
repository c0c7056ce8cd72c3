"""Image files: one folder per class, or a single image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset

__all__ = ["is_image", "read_image", "read_image_folder"]

# Those that torchvision's ImageFolder takes.
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})


def is_image(path: Path) -> bool:
    """Whether a path is a file that is called like an image."""
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def read_image_folder(path: Path) -> Dataset:
    """A folder with one folder of images per class, numbered in sorted order.

    Raises:
        DataError: there are no such folders, or a class has no image.
    """
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    files: list[Path] = []
    labels: list[int] = []
    for number, folder in enumerate(folders):
        images = sorted(file for file in folder.rglob("*") if is_image(file))
        if not images:
            raise DataError(f"{folder} holds no images ({', '.join(sorted(_SUFFIXES))})")
        files += images
        labels += [number] * len(images)
    if not files:
        raise DataError(
            f"{path} holds no folders of images; expected one folder per class, with "
            f"{', '.join(sorted(_SUFFIXES))} files"
        )
    return Dataset(
        description=f"image folder, {len(folders)} classes",
        split=None,
        images=len(files),
        load=lambda i: _open(files[i]),
        name_of=lambda i: str(files[i]),
        labels=np.array(labels, np.int64),
        classes=tuple(folder.name for folder in folders),
    )


def read_image(path: Path) -> Dataset:
    """A single image, without a label."""
    return Dataset(
        description="one image",
        split=None,
        images=1,
        load=lambda _: _open(path),
        name_of=lambda _: str(path),
    )


def _open(path: Path) -> Image.Image:
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
