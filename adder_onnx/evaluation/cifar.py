"""CIFAR-10 as its authors distribute it: binary batches and Python batches."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.metadata import CIFAR10_LABELS

__all__ = ["find_cifar10", "is_cifar10", "read_cifar10"]

_PIXELS = 3 * 32 * 32
_RECORD = 1 + _PIXELS
_FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py")
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))


def find_cifar10(path: Path) -> dict[str, list[Path]]:
    """The batch files under a path, by split.

    The path is a folder of batches, the folder above it, or a single binary batch.
    """
    if path.is_file():
        split = "train" if path.stem in _TRAIN else "test"
        return {split: [path]} if path.suffix == ".bin" else {}
    for folder in _FOLDERS:
        for suffix in (".bin", ""):
            found = {
                split: [f for f in (path / folder / f"{n}{suffix}" for n in names) if f.is_file()]
                for split, names in (("train", _TRAIN), ("test", ("test_batch",)))
            }
            if any(found.values()):
                return {split: files for split, files in found.items() if files}
    return {}


def is_cifar10(path: Path) -> bool:
    """Whether there are CIFAR-10 batches at a path."""
    return bool(find_cifar10(path))


def read_cifar10(path: Path, split: str) -> Dataset:
    """Reads a split; ``auto`` takes the test batch where there is one.

    Raises:
        DataError: there are no batches of that split, or one is truncated or not a batch.
    """
    found = find_cifar10(path)
    chosen = ("test" if "test" in found else "train") if split == "auto" else split
    if chosen not in found:
        raise DataError(f"{path} has no {chosen} batches of CIFAR-10 (data_batch_1, test_batch)")
    parts = [_read_batch(file) for file in found[chosen]]
    images = np.concatenate([pixels for pixels, _ in parts])
    kind = "binary" if found[chosen][0].suffix == ".bin" else "Python"
    return Dataset(
        description=f"CIFAR-10, {kind} batches, split {chosen}",
        split=chosen,
        images=len(images),
        load=lambda i: Image.fromarray(images[i].reshape(3, 32, 32).transpose(1, 2, 0)),
        name_of=lambda i: f"image {i} of {path}",
        labels=np.concatenate([labels for _, labels in parts]),
        classes=CIFAR10_LABELS,
    )


def _read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, 3072), as planes of red, green and blue, and labels (N,)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if path.suffix == ".bin":
        if not data or len(data) % _RECORD:
            raise DataError(
                f"{path} has {len(data)} bytes, not a multiple of {_RECORD}: it is not a CIFAR-10 "
                "batch, or is truncated"
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
        pixels, labels = records[:, 1:], records[:, 0].astype(np.int64)
    else:
        pixels, labels = _unpickle_batch(data, path)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(CIFAR10_LABELS):
        raise DataError(f"{path} has labels outside 0 … 9: it is not a CIFAR-10 batch")
    return pixels, labels


def _unpickle_batch(data: bytes, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        values = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        pixels: Any = values["data"]
        labels: Sequence[int] = values["labels"]
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), _PIXELS):
            raise ValueError("wrong shape or type")
        return pixels, np.asarray(labels, np.int64)
    except Exception as error:  # a hostile pickle may raise anything
        raise DataError(f"{path} is not a Python batch of CIFAR-10, or is truncated") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers; no other class or function is ever called."""

    _ALLOWED = frozenset(
        {
            ("_codecs", "encode"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.numeric", "_frombuffer"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a batch")
        # NumPy 2 has renamed numpy.core, and either may read what the other has written.
        core = "numpy._core." if hasattr(np, "_core") else "numpy.core."
        module = re.sub(r"^numpy\._?core\.", core, module)
        return super().find_class(module, name)
