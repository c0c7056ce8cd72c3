"""Where CIFAR's batches may lie, CIFAR-100's own form, and archives."""

from __future__ import annotations

import gzip
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adder_onnx.errors import DataError
from adder_onnx.evaluation import open_dataset
from tests import datasets

_FILES: dict[str, Callable[[bool], dict[str, bytes]]] = {
    "cifar10": datasets.cifar10_files,
    "cifar100": datasets.cifar100_files,
}
_FOLDERS = {
    ("cifar10", True): datasets.CIFAR10_BINARY,
    ("cifar10", False): datasets.CIFAR10_PYTHON,
    ("cifar100", True): datasets.CIFAR100_BINARY,
    ("cifar100", False): datasets.CIFAR100_PYTHON,
}
_ARCHIVES = {
    ("cifar10", True): "cifar-10-binary.tar.gz",
    ("cifar10", False): "cifar-10-python.tar.gz",
    ("cifar100", True): "cifar-100-binary.tar.gz",
    ("cifar100", False): "cifar-100-python.tar.gz",
}
# For each split of what `datasets` writes, the (number of images, seed) of its batches.
_BATCHES = {
    ("cifar10", "train"): [(2, seed) for seed in range(1, 6)],
    ("cifar10", "test"): [(3, 9)],
    ("cifar100", "train"): [(4, 1)],
    ("cifar100", "test"): [(3, 9)],
}


def _folder_itself(tmp_path: Path, name: str, binary: bool) -> Path:
    return datasets.write_files(tmp_path / "any name", _FILES[name](binary))


def _folder_above(tmp_path: Path, name: str, binary: bool) -> Path:
    datasets.write_files(tmp_path / _FOLDERS[name, binary], _FILES[name](binary))
    return tmp_path


def _tar(name: str, binary: bool, extra: tarfile.TarInfo | None = None) -> bytes:
    folder = _FOLDERS[name, binary]
    files = {f"{folder}/{file}": data for file, data in _FILES[name](binary).items()}
    return datasets.tar_bytes(files, extra)


def _archive(tmp_path: Path, name: str, binary: bool) -> Path:
    path = tmp_path / "downloaded.tar.gz"
    path.write_bytes(_tar(name, binary))
    return path


def _archive_in_a_folder(tmp_path: Path, name: str, binary: bool) -> Path:
    (tmp_path / _ARCHIVES[name, binary]).write_bytes(_tar(name, binary))
    return tmp_path


@pytest.mark.parametrize("format", ["auto", "named"])
@pytest.mark.parametrize("split", ["auto", "train", "test"])
@pytest.mark.parametrize("layout", [_folder_itself, _folder_above, _archive, _archive_in_a_folder])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", _FILES)
def test_every_layout_gives_the_same_images(
    tmp_path: Path, name: str, binary: bool, layout: Any, split: str, format: str
) -> None:
    path = layout(tmp_path, name, binary)
    before = sorted(tmp_path.rglob("*"))
    dataset = open_dataset(path, name if format == "named" else "auto", split)
    assert sorted(tmp_path.rglob("*")) == before
    chosen = "test" if split == "auto" else split
    batches = _BATCHES[name, chosen]
    classes = 10 if name == "cifar10" else 100
    assert dataset.split == chosen
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [
        label for batch in batches for label in datasets.cifar_labels(*batch, classes)
    ]
    pixels = np.concatenate([datasets.cifar_pixels(*batch) for batch in batches])
    assert dataset.images == len(pixels)
    for i, expected in enumerate(pixels):
        image = dataset.load(i)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), np.moveaxis(expected, 0, 2))
    assert dataset.classes is not None
    assert len(dataset.classes) == classes
    assert dataset.description == (
        f"CIFAR-{classes}, {'binary' if binary else 'Python'} batches, split {chosen}"
    )


def test_the_names_of_cifar100_are_in_alphabetical_order() -> None:
    """As in its meta file: 100 different ones; some places are known from its documentation."""
    from adder_onnx.evaluation.cifar import CIFAR100_LABELS

    assert len(set(CIFAR100_LABELS)) == 100
    assert list(CIFAR100_LABELS) == sorted(CIFAR100_LABELS)
    places = {0: "apple", 1: "aquarium_fish", 19: "cattle", 49: "mountain", 99: "worm"}
    assert {place: CIFAR100_LABELS[place] for place in places} == places


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", _FILES)
def test_a_single_batch(tmp_path: Path, name: str, binary: bool) -> None:
    folder = _folder_itself(tmp_path, name, binary)
    file = {"cifar10": "test_batch", "cifar100": "test"}[name] + (".bin" if binary else "")
    dataset = open_dataset(folder / file)
    assert (dataset.split, dataset.images) == ("test", 3)
    assert dataset.labels is not None
    classes = 10 if name == "cifar10" else 100
    assert dataset.labels.tolist() == datasets.cifar_labels(3, 9, classes)


def test_two_data_sets_in_one_root_are_told_apart_by_format(tmp_path: Path) -> None:
    _folder_above(tmp_path, "cifar10", False)
    _folder_above(tmp_path, "cifar100", False)
    datasets.write_files(tmp_path / "MNIST" / "raw", datasets.mnist_files(False, "t10k"))
    with pytest.raises(DataError, match="cifar10 and cifar100 and mnist: choose one with --format"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, "cifar10").description.startswith("CIFAR-10,")
    assert open_dataset(tmp_path, "cifar100").description.startswith("CIFAR-100,")
    assert open_dataset(tmp_path, "mnist").description.startswith("MNIST")


@pytest.mark.parametrize(
    ("name", "other"), [("cifar10", "cifar100"), ("cifar100", "cifar10"), ("cifar10", "mnist")]
)
@pytest.mark.parametrize("layout", [_folder_itself, _folder_above, _archive])
def test_another_format_is_refused(tmp_path: Path, name: str, other: str, layout: Any) -> None:
    with pytest.raises(DataError, match="holds no "):
        open_dataset(layout(tmp_path, name, True), other)


def _cifar100_with(**changes: object) -> bytes:
    batch = pickle.loads(datasets.cifar100_batch(False, 3, 9))
    return pickle.dumps(batch | {key.encode(): value for key, value in changes.items()})


def _records(byte: int, value: int) -> bytes:
    data = bytearray(datasets.cifar100_batch(True, 3, 9))
    data[3074 + byte] = value
    return bytes(data)


_WRONG_CIFAR100: dict[str, tuple[str, bytes, str]] = {
    "truncated": ("test.bin", datasets.cifar100_batch(True, 3, 9)[:-1], "truncated"),
    "CIFAR-10's records": (
        "test.bin",
        datasets.cifar10_batch(True, 3, 9),
        "not a multiple of 3074",
    ),
    "empty": ("test.bin", b"", "truncated"),
    "fine label 100": ("test.bin", _records(1, 100), "labels outside 0 … 99"),
    "coarse label 20": ("test.bin", _records(0, 20), "coarse labels outside 0 … 19"),
    "truncated pickle": ("test", datasets.cifar100_batch(False, 3, 9)[:-9], "not a Python batch"),
    "CIFAR-10's pickle": ("test", datasets.cifar10_batch(False, 3, 9), "not a Python batch"),
    "label 100 in a pickle": ("test", _cifar100_with(fine_labels=[0, 100, 2]), "labels outside"),
    "label -1 in a pickle": ("test", _cifar100_with(fine_labels=[0, -1, 2]), "labels outside"),
    "halves as labels": ("test", _cifar100_with(fine_labels=[0.5, 1.0, 2.0]), "not a Python batch"),
    "too few labels": ("test", _cifar100_with(fine_labels=[0, 1]), "not a Python batch"),
}


@pytest.mark.parametrize("case", _WRONG_CIFAR100)
def test_wrong_batches_of_cifar100_are_named(tmp_path: Path, case: str) -> None:
    name, data, message = _WRONG_CIFAR100[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path, "cifar100")
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("key", ["fine_labels", "data", "filenames"])
def test_a_hostile_pickle_of_cifar100_runs_nothing(
    tmp_path: Path, key: str, archived: bool
) -> None:
    marker = tmp_path / "marker"
    data = _cifar100_with(**{key: datasets.Touch(marker)})
    pickle.loads(data)
    assert marker.exists()
    marker.unlink()

    files = {f"{datasets.CIFAR100_PYTHON}/test": data}
    path = datasets.write_files(tmp_path / "set", files)
    if archived:
        path = tmp_path / "set.tar.gz"
        path.write_bytes(datasets.tar_bytes(files))
    with pytest.raises(DataError, match="test is not a Python batch of CIFAR-100"):
        open_dataset(path)
    assert not marker.exists()


def test_a_batch_missing_from_an_archive_is_named(tmp_path: Path) -> None:
    files = datasets.cifar10_files(True)
    del files["data_batch_3.bin"]
    path = tmp_path / "set.tar.gz"
    path.write_bytes(
        datasets.tar_bytes({f"{datasets.CIFAR10_BINARY}/{n}": d for n, d in files.items()})
    )
    assert open_dataset(path).images == 3
    with pytest.raises(DataError, match=r"set\.tar\.gz is incomplete.*data_batch_3\.bin is miss"):
        open_dataset(path, split="train")


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


_HOSTILE = {
    "above": (_member("../above"), "outside"),
    "above inside": (_member("cifar-10-batches-bin/../../above"), "outside"),
    "absolute": (_member("/tmp/absolute"), "outside"),
    "symbolic link": (_member("link", tarfile.SYMTYPE, "/etc/passwd"), "a link or a device"),
    "link called like a batch": (
        _member("test_batch.bin", tarfile.SYMTYPE, "/etc/passwd"),
        "a link or a device",
    ),
    "hard link": (_member("link", tarfile.LNKTYPE, "../../x"), "a link or a device"),
    "device": (_member("null", tarfile.CHRTYPE), "a link or a device"),
    "pipe": (_member("pipe", tarfile.FIFOTYPE), "a link or a device"),
}


@pytest.mark.parametrize("case", _HOSTILE)
@pytest.mark.parametrize("format", ["auto", "cifar10"])
def test_a_hostile_archive_is_refused(tmp_path: Path, case: str, format: str) -> None:
    extra, message = _HOSTILE[case]
    path = tmp_path / "folder" / "set.tar.gz"
    path.parent.mkdir()
    path.write_bytes(_tar("cifar10", True, extra))
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(path, format)
    assert str(path) in str(caught.value)
    assert repr(extra.name) in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "set.tar.gz"]


def _flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


_DAMAGED = {
    "empty": lambda data: b"",
    "text": lambda data: b"this is not an archive",
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-10],
    "checksum": lambda data: _flip(data, len(data) - 6),
    "flipped": lambda data: _flip(data, len(data) // 2),
    "gzip of text": lambda data: gzip.compress(b"this is not an archive" * 99),
    "tar cut in a member": lambda data: gzip.compress(gzip.decompress(data)[:5000]),
}


@pytest.mark.parametrize("case", _DAMAGED)
def test_a_damaged_archive_is_named(tmp_path: Path, case: str) -> None:
    path = tmp_path / "set.tar.gz"
    path.write_bytes(_DAMAGED[case](_tar("cifar10", False)))
    with pytest.raises(DataError, match=r"set\.tar\.gz") as caught:
        open_dataset(path)
    assert os.linesep not in str(caught.value)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "set.tar.gz"
    path.write_bytes(datasets.tar_bytes({"readme.txt": b"nothing"}))
    with pytest.raises(DataError, match=r"set\.tar\.gz is an archive without batches"):
        open_dataset(path)


def test_a_member_that_says_it_is_enormous_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("test_batch.bin")
    info.size = 1 << 40
    path = tmp_path / "set.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf() + bytes(1024)))
    with pytest.raises(DataError, match=f"'test_batch.bin' of {1 << 40} bytes"):
        open_dataset(path)
