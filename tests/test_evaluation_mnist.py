from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from adder_onnx.errors import DataError
from adder_onnx.evaluation import open_dataset
from tests import datasets


@pytest.mark.parametrize("format", ["auto", "mnist"])
@pytest.mark.parametrize("folder", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("split", "prefix"), [("auto", "t10k"), ("test", "t10k"), ("train", "train")]
)
def test_pixels_labels_and_order(
    tmp_path: Path, split: str, prefix: str, compressed: bool, folder: str, format: str
) -> None:
    datasets.write_files(tmp_path / folder, datasets.mnist_files(compressed, "train", "t10k"))
    dataset = open_dataset(tmp_path, format, split)
    pixels, labels = datasets.mnist_arrays(prefix)
    assert dataset.split == {"t10k": "test", "train": "train"}[prefix]
    assert dataset.images == len(pixels)
    assert dataset.labels is not None
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.classes == tuple("0123456789")
    for i, expected in enumerate(pixels):
        image = dataset.load(i)
        assert image.mode == "L"
        assert image.size == (4, 5)
        assert np.array_equal(np.asarray(image), expected)
    assert dataset.name_of(2) == f"image 2 of {tmp_path}"


@pytest.mark.parametrize("compressed", [False, True])
def test_a_single_file_of_images(tmp_path: Path, compressed: bool) -> None:
    files = datasets.mnist_files(compressed, "train", "t10k")
    datasets.write_files(tmp_path, files)
    images = "t10k-images-idx3-ubyte" + (".gz" if compressed else "")
    assert open_dataset(tmp_path / images).images == 3


def test_training_data_alone_are_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    datasets.write_files(tmp_path, datasets.mnist_files(True, "train"))
    assert open_dataset(tmp_path).split == "train"
    assert "taking the training data" in caplog.text
    with pytest.raises(DataError, match="has no test data, only train"):
        open_dataset(tmp_path, split="test")


_PIXELS, _LABELS = datasets.mnist_arrays("t10k")
_IMAGES, _NUMBERS = datasets.idx(_PIXELS), datasets.idx(_LABELS)
_ENORMOUS = struct.pack(">4B3I", 0, 0, 8, 3, *[1 << 31] * 3)

_WRONG: dict[str, tuple[bytes, bytes, str]] = {
    "images truncated": (_IMAGES[:-1], _NUMBERS, r"images.* has 59 bytes .* says 60"),
    "images too long": (_IMAGES + b"\0", _NUMBERS, r"images.*more bytes .* says 60"),
    "images without a header": (_IMAGES[:11], _NUMBERS, "images.*not an idx file"),
    "images empty": (b"", _NUMBERS, "images.*not an idx file"),
    "images of another type": (datasets.idx(_PIXELS, 13), _NUMBERS, "images.*not an idx file"),
    "images that say they are enormous": (_ENORMOUS, _NUMBERS, "images.* has 0 bytes"),
    "images without pixels": (datasets.idx(_PIXELS[:, :0]), _NUMBERS, "images of 0 x 4"),
    "no image": (datasets.idx(_PIXELS[:0]), datasets.idx(_LABELS[:0]), "has no images"),
    "mixed up": (_NUMBERS, _IMAGES, "images.*not an idx file"),
    "images twice": (_IMAGES, _IMAGES, "labels.*not an idx file"),
    "labels truncated": (_IMAGES, _NUMBERS[:-1], "labels.* has 2 bytes .* says 3"),
    "fewer labels": (_IMAGES, datasets.idx(_LABELS[:2]), "labels.* has 2 labels for the 3 images"),
    "label 10": (_IMAGES, datasets.idx(np.array([0, 10, 1], np.uint8)), "labels.*the label 10"),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("case", _WRONG)
def test_wrong_files_are_named(tmp_path: Path, case: str, compressed: bool) -> None:
    images, labels, message = _WRONG[case]
    files = {"t10k-images-idx3-ubyte": images, "t10k-labels-idx1-ubyte": labels}
    if compressed:
        files = {f"{name}.gz": gzip.compress(data) for name, data in files.items()}
    datasets.write_files(tmp_path, files)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("which", ["images-idx3", "labels-idx1"])
@pytest.mark.parametrize("damage", ["text", "half", "checksum", "flipped"])
def test_bad_gzip_is_named(tmp_path: Path, which: str, damage: str) -> None:
    datasets.write_files(tmp_path, datasets.mnist_files(True, "t10k"))
    path = tmp_path / f"t10k-{which}-ubyte.gz"
    data = bytearray(path.read_bytes())
    if damage == "text":
        data = bytearray(b"this is not gzip")
    elif damage == "half":
        del data[len(data) // 2 :]
    else:
        data[-6 if damage == "checksum" else 10] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"is not a gzip file, or is truncated") as caught:
        open_dataset(tmp_path)
    assert str(path) in str(caught.value)


def test_labels_must_be_there(tmp_path: Path) -> None:
    datasets.write_files(tmp_path, {"t10k-images-idx3-ubyte": _IMAGES})
    with pytest.raises(DataError, match=f"{tmp_path} has no t10k-labels-idx1-ubyte"):
        open_dataset(tmp_path)
