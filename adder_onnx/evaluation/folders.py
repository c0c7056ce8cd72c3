"""What lies in folders of images: the images, the classes, the splits."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from adder_onnx.errors import DataError
from adder_onnx.evaluation.listed_folder import AnyPath, ListedPath
from adder_onnx.evaluation.splits import split_called

__all__ = [
    "class_folders",
    "empty_folders",
    "files_below",
    "find_splits",
    "has_images",
    "image_stem",
    "images_below",
    "images_in",
    "is_image",
    "is_unlabelled",
    "says_no_class",
    "suffixes",
]

# Those that torchvision's ImageFolder takes.
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})

# What archivers, file servers and file systems leave behind, beside what starts with a dot.
_IGNORED = frozenset({"__MACOSX", "__pycache__", "@eaDir", "lost+found"})

# What the only folder of a set without classes is called.
_NO_CLASSES = frozenset(
    {"all", "image", "images", "img", "imgs", "test", "unknown", "unlabeled", "unlabelled"}
)


def is_image(path: AnyPath) -> bool:
    """Whether a path is a file that is called like an image."""
    return path.suffix.lower() in _SUFFIXES and _is_file(path)


def image_stem(name: str) -> str:
    """The name of an image without its suffix, if it has one."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in _SUFFIXES else name


def suffixes() -> str:
    """How images are called, for messages."""
    return ", ".join(sorted(_SUFFIXES))


def images_in(folder: AnyPath) -> list[AnyPath]:
    """The images in a folder itself, sorted."""
    return sorted((path for path in _visible(folder) if is_image(path)), key=_by_parts)


def images_below(folder: AnyPath) -> list[AnyPath]:
    """The images in a folder and the folders in it, sorted; links are followed."""
    return sorted((path for path in files_below(folder) if is_image(path)), key=_by_parts)


def has_images(folder: AnyPath) -> bool:
    """Whether there are images in a folder or the folders in it."""
    return any(map(is_image, files_below(folder)))


def class_folders(folder: AnyPath) -> list[AnyPath]:
    """The folders in a folder that are not empty, sorted by their names."""
    return [path for path in _folders_in(folder) if any(files_below(path))]


def empty_folders(folder: AnyPath) -> list[AnyPath]:
    """The folders in a folder that nothing is in, not even deeper."""
    return [path for path in _folders_in(folder) if not any(files_below(path))]


def is_unlabelled(classes: Collection[str], known: Collection[str]) -> bool:
    """Whether folders of these names are no classes: it is one, around images without labels.

    Args:
        classes: names of the folders.
        known: the classes of other splits, if there are any; else the name decides.
    """
    (name, *more) = sorted(classes) or ("", "")
    return not more and name not in known and (bool(known) or says_no_class(name))


def says_no_class(name: str) -> bool:
    """Whether a folder is called as those around images without labels are."""
    return name.casefold() in _NO_CLASSES


def find_splits(path: AnyPath) -> dict[str, AnyPath]:
    """The folders of a root such as ImageNet's, by split: ``train``, ``val`` and ``test``.

    Empty if it is no such root: none of its folders is called like a split, or one beside them
    holds images, which makes all of them classes.

    Raises:
        DataError: two folders are the same split.
    """
    splits: dict[str, AnyPath] = {}
    others = []
    for folder in class_folders(path):
        split = split_called(folder.name)
        if split is None:
            others.append(folder)
        elif split in splits:
            raise DataError(
                f"{path} holds {splits[split].name} and {folder.name}: give --data one of these"
            )
        else:
            splits[split] = folder
    return {} if any(map(images_in, others)) else splits


def _is_file(path: AnyPath) -> bool:
    """Whether it is one.

    Raises:
        PermissionError: that may not be seen, which is not to say that it is none.
    """
    if isinstance(path, ListedPath):
        return path.is_file()
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        raise
    except OSError:  # a link to nowhere, or in a circle
        return False


def _folders_in(folder: AnyPath) -> list[AnyPath]:
    return sorted((path for path in _visible(folder) if path.is_dir()), key=_by_parts)


def _visible(folder: AnyPath) -> Iterator[AnyPath]:
    return (path for path in folder.iterdir() if not _is_ignored(path.name))


def _by_parts(path: AnyPath) -> tuple[str, ...]:
    """The order of paths themselves, which takes a second for fifty thousand."""
    return path.parts


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in _IGNORED


def files_below(folder: AnyPath) -> Iterator[AnyPath]:
    """All files that are not ignored; a folder that links lead back to is visited once."""
    return _listed_below(folder) if isinstance(folder, ListedPath) else _walk(folder)


def _listed_below(folder: ListedPath) -> Iterator[ListedPath]:
    seen = set()
    left = [folder]
    while left:
        parent = left.pop()
        if parent.identity in seen:
            continue
        seen.add(parent.identity)
        yield from (path for path in parent.files() if not _is_ignored(path.name))
        folders = (path for path in parent.folders() if not _is_ignored(path.name))
        left += sorted(folders, key=_by_parts, reverse=True)


def _walk(folder: Path) -> Iterator[Path]:
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not _is_ignored(name))
        yield from (Path(parent, name) for name in files if not _is_ignored(name))


def _raise(error: OSError) -> None:
    raise error
