"""The real ResNet-20 on the real images in every layout that people keep CIFAR-10 in."""

from __future__ import annotations

import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.cli import run
from adder_onnx.metadata import CIFAR10_LABELS

IMAGES, RIGHT, RIGHT_IN_5 = 120, 116, 119
"""Of the data set's first images, those that the network has right."""


@pytest.fixture(scope="module")
def records(shared: Path) -> NDArray[np.uint8]:
    """A label and 3,072 bytes of planes for each of the first images, which are of all classes."""
    data: NDArray[np.uint8] = np.fromfile(shared / "cifar10" / "test_batch.bin", np.uint8)
    return data.reshape(-1, 3073)[:IMAGES]


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


def save_images(records: NDArray[np.uint8], folder: Path, name: Callable[[int, int], str]) -> Path:
    """The images as files, called by their number and their label."""
    for i, record in enumerate(records):
        path = folder / "images" / name(i, int(record[0]))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0)).save(path)
    return folder / "images"


def class_folders(records: NDArray[np.uint8], folder: Path) -> Path:
    return save_images(records, folder, lambda i, k: f"{CIFAR10_LABELS[k]}/{i:04}.png")


TUTORIAL = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def tutorial_folders(records: NDArray[np.uint8], folder: Path) -> Path:
    return save_images(records, folder, lambda i, k: f"{TUTORIAL[k]}/{i:04}.png")


def plural_folders(records: NDArray[np.uint8], folder: Path) -> Path:
    return save_images(records, folder, lambda i, k: f"{CIFAR10_LABELS[k].upper()}S/{i:04}.png")


def numbered_folders(records: NDArray[np.uint8], folder: Path) -> Path:
    return save_images(records, folder, lambda i, k: f"{k}/{i:04}.png")


def splits(records: NDArray[np.uint8], folder: Path) -> Path:
    """A root whose test images have no labels, as in a competition."""
    root = save_images(records, folder, lambda i, k: f"valid/{CIFAR10_LABELS[k]}/{i:04}.png")
    for name in ("Train/ship/1.png", *(f"Train/{name}/0.png" for name in CIFAR10_LABELS)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(root / name)
    (root / "test" / "unknown").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(root / "test" / "unknown" / "1.png")
    (root / "valid" / ".ipynb_checkpoints").mkdir()
    return root


def flat(records: NDArray[np.uint8], folder: Path) -> Path:
    return save_images(records, folder, lambda i, k: f"{i + 1}.png")


def competition(records: NDArray[np.uint8], folder: Path) -> list[object]:
    """Images in one folder and a table, as CIFAR-10 comes at Kaggle."""
    rows = [f"{i},{CIFAR10_LABELS[record[0]]}" for i, record in enumerate(records, 1)]
    (folder / "trainLabels.csv").write_text("\n".join(["id,label", *rows]))
    return [flat(records, folder), "--labels-csv", folder / "trainLabels.csv"]


def numbered_list(records: NDArray[np.uint8], folder: Path) -> list[object]:
    rows = [f"images/{i}.png {record[0]}" for i, record in enumerate(records, 1)]
    (folder / "list.txt").write_text("\n".join(rows))
    return [flat(records, folder), "--labels-csv", folder / "list.txt"]


def other_names(records: NDArray[np.uint8], folder: Path) -> Path:
    """Class folders that only a class map can tell."""
    return save_images(records, folder, lambda i, k: f"Klasse {chr(ord('Z') - k)}/{i:04}.png")


def class_map_by_number(records: NDArray[np.uint8], folder: Path) -> list[object]:
    rows = [f"Klasse {chr(ord('Z') - k)},{k}" for k in range(10)]
    (folder / "map.csv").write_text("\n".join(rows))
    return [other_names(records, folder), "--class-map", folder / "map.csv"]


def class_map_by_label(records: NDArray[np.uint8], folder: Path) -> list[object]:
    names = {f"Klasse {chr(ord('Z') - k)}": label for k, label in enumerate(CIFAR10_LABELS)}
    (folder / "map.json").write_text(json.dumps(names))
    return [other_names(records, folder), "--class-map", folder / "map.json"]


def class_map_in_order(records: NDArray[np.uint8], folder: Path) -> list[object]:
    rows = [f"Klasse {chr(ord('Z') - k)}" for k in range(10)]
    (folder / "map.txt").write_text("\n".join(rows))
    return [other_names(records, folder), "--class-map", folder / "map.txt"]


def keras(records: NDArray[np.uint8], folder: Path) -> Path:
    """Channels last, labels in a column, and a training set beside."""
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    arrays = {"x_train": images[:1], "y_train": [[0]], "x_test": images, "y_test": records[:, :1]}
    np.savez(folder / "cifar10.npz", **arrays)
    return folder / "cifar10.npz"


def medmnist(records: NDArray[np.uint8], folder: Path) -> Path:
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    arrays = {}
    for split in ("train", "val"):
        arrays |= {f"{split}_images": images[:1], f"{split}_labels": records[:1, :1]}
    np.savez(folder / "set.npz", **arrays, test_images=images, test_labels=records[:, :1])
    return folder / "set.npz"


def one_hot(records: NDArray[np.uint8], folder: Path) -> Path:
    images = records[:, 1:].reshape(-1, 3, 32, 32)
    np.savez(folder / "set.npz", X=images, y=np.eye(10, dtype=np.float32)[records[:, 0]])
    return folder / "set.npz"


def named_labels(records: NDArray[np.uint8], folder: Path) -> Path:
    images = records[:, 1:].reshape(-1, 3, 32, 32)
    np.savez(folder / "set.npz", data=images, target=np.array(TUTORIAL)[records[:, 0]])
    return folder / "set.npz"


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


@pytest.mark.parametrize(
    "layout",
    [
        python_batches,
        archive,
        class_folders,
        tutorial_folders,
        plural_folders,
        numbered_folders,
        splits,
        competition,
        numbered_list,
        class_map_by_number,
        class_map_by_label,
        class_map_in_order,
        pixels,
        inputs,
        keras,
        medmnist,
        one_hot,
        named_labels,
    ],
)
def test_accuracy(
    layout: Callable[[NDArray[np.uint8], Path], Path | list[object]],
    records: NDArray[np.uint8],
    resnet20: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = layout(records, tmp_path)
    arguments = map(str, data if isinstance(data, list) else [data])
    assert run.main([str(resnet20), "--data", *arguments, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    found = (result["images"], result["top1_correct"], result["top5_correct"])
    assert found == (IMAGES, RIGHT, RIGHT_IN_5)
    assert result["class_matching"]["guess"] is False
    assert caplog.text == ""


def test_classes_that_no_rule_tells(
    records: NDArray[np.uint8], resnet20: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main([str(resnet20), "--data", str(other_names(records[:50], tmp_path))]) == 2
    assert "'Klasse Q', 'Klasse R'" in capsys.readouterr().err
