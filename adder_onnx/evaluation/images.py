"""Image files: one folder per class, a folder without classes, or a single image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.splits import SPLITS, choose_split

__all__ = ["find_splits", "is_image", "read_image", "read_image_folder"]

# Those that torchvision's ImageFolder takes.
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})


def is_image(path: Path) -> bool:
    """Whether a path is a file that is called like an image."""
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def find_splits(path: Path) -> dict[str, Path]:
    """The folders ``train``, ``val`` and ``test`` of a root such as ImageNet's, by split.

    Empty if it is no such root: they hold folders and no images, one of them at least, and no
    folder beside them holds images, which would make them classes that are called so.
    """
    folders = {folder.name: folder for folder in path.iterdir() if folder.is_dir()}
    splits = {split: folders[split] for split in SPLITS if split in folders}
    others = [folder for name, folder in folders.items() if name not in splits]
    if not any(_has_classes(folder) for folder in splits.values()):
        return {}
    return {} if any(_has_images(folder) for folder in others) else splits


def read_image_folder(path: Path, split: str) -> Dataset:
    """A folder with one folder of images per class, numbered in sorted order.

    A folder of images without classes has no labels. One with folders ``train``, ``val`` or
    ``test`` that hold the classes has splits.

    Args:
        path: the folder.
        split: one of `SPLITS`; ``auto`` takes ``test``, else ``val``, one with classes if possible.

    Raises:
        DataError: there are no images, or a class has none; the split is not there.
    """
    splits = find_splits(path)
    if splits:
        labelled = [name for name, folder in splits.items() if _has_classes(folder)]
        held_out = [name for name in labelled if name != "train"]
        chosen = choose_split(path, held_out if split == "auto" and held_out else splits, split)
        return _read_folder(splits[chosen], chosen)
    if split != "auto":
        raise DataError(f"{path} has no splits: leave out --split {split}")
    return _read_folder(path, None)


def _read_folder(path: Path, split: str | None) -> Dataset:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    classes = [sorted(file for file in f.rglob("*") if is_image(file)) for f in folders]
    flat = not any(classes)
    if flat:
        classes = [sorted(file for file in path.iterdir() if is_image(file))]
    files = [str(file) for images in classes for file in images]
    if not files and not folders:
        raise DataError(
            f"{path} holds no images and no folders of images; expected one folder per class, with "
            f"{', '.join(sorted(_SUFFIXES))} files"
        )
    for folder, images in zip(folders, classes, strict=False):
        if not images:
            raise DataError(f"{folder} holds no images ({', '.join(sorted(_SUFFIXES))})")
    labels = [number for number, images in enumerate(classes) for _ in images]
    kind = "images without labels" if flat else f"image folder, {len(folders)} classes"
    return Dataset(
        description=kind if split is None else f"{kind}, split {split}",
        split=split,
        images=len(files),
        load=lambda i: _open(Path(files[i])),
        name_of=lambda i: files[i],
        labels=None if flat else np.array(labels, np.int64),
        classes=None if flat else tuple(folder.name for folder in folders),
    )


def _has_images(folder: Path) -> bool:
    return any(is_image(file) for file in folder.iterdir())


def _has_classes(folder: Path) -> bool:
    return any(entry.is_dir() for entry in folder.iterdir()) and not _has_images(folder)


def read_image(path: Path) -> Dataset:
    """A single image, without a label."""
    return Dataset(
        description="one image",
        split=None,
        images=1,
        load=lambda _: _open(path),
        name_of=lambda _: str(path),
        single=True,
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
