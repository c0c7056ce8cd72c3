"""The real ResNet-20 on the real images in every layout that people keep CIFAR-10 in."""

from __future__ import annotations

import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.cli import run
from adder_onnx.metadata import CIFAR10_LABELS


@pytest.fixture(scope="module")
def records(shared: Path) -> NDArray[np.uint8]:
    """A label and 3,072 bytes of planes for each image."""
    data: NDArray[np.uint8] = np.fromfile(shared / "cifar10" / "test_batch.bin", np.uint8)
    return data.reshape(-1, 3073)


def python_batches(records: NDArray[np.uint8], folder: Path) -> Path:
    root = folder / "cifar-10-batches-py"
    root.mkdir()
    batch = {b"data": records[:, 1:], b"labels": [int(v) for v in records[:, 0]]}
    (root / "test_batch").write_bytes(pickle.dumps(batch, 2))
    meta = {b"label_names": [name.encode() for name in CIFAR10_LABELS]}
    (root / "batches.meta").write_bytes(pickle.dumps(meta, 2))
    return folder


def archive(records: NDArray[np.uint8], folder: Path) -> Path:
    python_batches(records, folder)
    path = folder / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    return path


def class_folders(records: NDArray[np.uint8], folder: Path) -> Path:
    for i, record in enumerate(records):
        path = folder / "images" / CIFAR10_LABELS[record[0]] / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0)).save(path)
    return folder / "images"


def pixels(records: NDArray[np.uint8], folder: Path) -> Path:
    path = folder / "pixels.npz"
    np.savez(path, images=records[:, 1:].reshape(-1, 3, 32, 32), labels=records[:, 0])
    return path


def inputs(records: NDArray[np.uint8], folder: Path) -> Path:
    path = folder / "inputs.npz"
    mean = np.array([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
    std = np.array([0.2023, 0.1994, 0.2010]).reshape(3, 1, 1)
    values = (records[:, 1:].reshape(-1, 3, 32, 32) / 255 - mean) / std
    np.savez(path, input=values.astype(np.float32), labels=records[:, 0].astype(np.int64))
    return path


@pytest.mark.parametrize("layout", [python_batches, archive, class_folders, pixels, inputs])
def test_accuracy(
    layout: object,
    records: NDArray[np.uint8],
    resnet20: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(layout)
    data = layout(records, tmp_path)
    assert run.main([str(resnet20), "--data", str(data), "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["top1_correct"], result["top5_correct"]) == (500, 456, 499)
