"""Tiny data sets in the forms that their authors distribute, for tests."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CIFAR10_BINARY = "cifar-10-batches-bin"
CIFAR10_PYTHON = "cifar-10-batches-py"
CIFAR100_BINARY = "cifar-100-binary"
CIFAR100_PYTHON = "cifar-100-python"


def cifar_pixels(count: int, seed: int) -> NDArray[np.uint8]:
    """Random images (N, 3, 32, 32)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def cifar_labels(count: int, seed: int, classes: int) -> list[int]:
    """Labels that differ from image to image and from seed to seed."""
    return [(7 * i + 3 * seed + 1) % classes for i in range(count)]


def cifar10_batch(binary: bool, count: int, seed: int) -> bytes:
    """A batch of CIFAR-10."""
    pixels, labels = cifar_pixels(count, seed), cifar_labels(count, seed, 10)
    if binary:
        return b"".join(bytes([n]) + p.tobytes() for n, p in zip(labels, pixels, strict=True))
    flat = pixels.reshape(count, -1)
    return pickle.dumps({b"batch_label": b"a batch", b"labels": labels, b"data": flat}, 2)


def cifar100_batch(binary: bool, count: int, seed: int) -> bytes:
    """A batch of CIFAR-100; the coarse label is the fine one's fifth."""
    pixels, labels = cifar_pixels(count, seed), cifar_labels(count, seed, 100)
    if binary:
        return b"".join(
            bytes([n // 5, n]) + p.tobytes() for n, p in zip(labels, pixels, strict=True)
        )
    return pickle.dumps(
        {
            b"batch_label": b"a batch",
            b"fine_labels": labels,
            b"coarse_labels": [n // 5 for n in labels],
            b"data": pixels.reshape(count, -1),
        },
        2,
    )


def cifar10_files(binary: bool) -> dict[str, bytes]:
    """Training batches of two images with the seeds 1 to 5, three for test with the seed 9."""
    suffix = ".bin" if binary else ""
    files = {f"data_batch_{i}{suffix}": cifar10_batch(binary, 2, i) for i in range(1, 6)}
    files[f"test_batch{suffix}"] = cifar10_batch(binary, 3, 9)
    files["batches.meta.txt" if binary else "batches.meta"] = b"names of classes"
    return files


def cifar100_files(binary: bool) -> dict[str, bytes]:
    """Four images for training with the seed 1, three for test with the seed 9."""
    suffix = ".bin" if binary else ""
    meta = "fine_label_names.txt" if binary else "meta"
    return {
        f"train{suffix}": cifar100_batch(binary, 4, 1),
        f"test{suffix}": cifar100_batch(binary, 3, 9),
        meta: b"names of classes",
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Writes files into a folder, which is made."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tar_bytes(files: Mapping[str, bytes], extra: tarfile.TarInfo | None = None) -> bytes:
    """A .tar.gz of files, with one more member, without contents, in the middle."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1) as archive:
        for i, (name, content) in enumerate(files.items()):
            if extra is not None and i == len(files) // 2:
                archive.addfile(extra)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def idx(array: NDArray[np.uint8], kind: int = 8) -> bytes:
    """An idx file: two zeros, the type, the rank, big-endian sizes, the data."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def mnist_arrays(prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Six images (N, 5, 4) for training or three for test, and labels (N,)."""
    count, seed = {"train": (6, 1), "t10k": (3, 2)}[prefix]
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 5, 4), dtype=np.uint8)
    return pixels, np.array([(3 * i + seed) % 10 for i in range(count)], np.uint8)


def mnist_files(compressed: bool, *prefixes: str) -> dict[str, bytes]:
    """MNIST's files for these prefixes, ``train`` and ``t10k``."""
    files = {}
    for prefix in prefixes:
        pixels, labels = mnist_arrays(prefix)
        files[f"{prefix}-images-idx3-ubyte"] = idx(pixels)
        files[f"{prefix}-labels-idx1-ubyte"] = idx(labels)
    if compressed:
        return {f"{name}.gz": gzip.compress(data) for name, data in files.items()}
    return files


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)
