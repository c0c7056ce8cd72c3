"""Roots with splits, and images without classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation import Dataset, open_dataset


def _save(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2), value).save(path)
    return path


def _classes(folder: Path, *values: int) -> Path:
    """Class folders cat and dog, with an image of each value in each."""
    for value in values:
        _save(folder / "cat" / f"{value}.png", value)
        _save(folder / "dog" / f"{value}.png", value)
    return folder


def _values(dataset: Dataset) -> list[object]:
    return [dataset.load(i).getpixel((0, 0)) for i in range(dataset.images)]


def _labels(dataset: Dataset) -> list[int] | None:
    return None if dataset.labels is None else dataset.labels.tolist()


@pytest.mark.parametrize("format", ["auto", "imagefolder"])
@pytest.mark.parametrize(
    ("there", "split", "expected"),
    [
        (("train", "val"), "auto", "val"),
        (("train", "val"), "train", "train"),
        (("train", "val"), "val", "val"),
        (("train", "test"), "auto", "test"),
        (("train", "val", "test"), "auto", "test"),
        (("train", "val", "test"), "val", "val"),
        (("val",), "auto", "val"),
        (("train",), "train", "train"),
    ],
)
def test_splits(
    tmp_path: Path,
    there: tuple[str, ...],
    split: str,
    expected: str,
    format: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = {"train": (1, 2, 3), "val": (4,), "test": (5, 6)}
    for name in there:
        _classes(tmp_path / name, *values[name])
    (tmp_path / "LOC_synset_mapping.txt").write_text("classes")
    (tmp_path / "devkit").mkdir()
    dataset = open_dataset(tmp_path, format, split)
    count = len(values[expected])
    assert dataset.split == expected
    assert dataset.classes == ("cat", "dog")
    assert _values(dataset) == [*values[expected]] * 2
    assert _labels(dataset) == [0] * count + [1] * count
    assert dataset.description == f"image folder, 2 classes, split {expected}"
    assert caplog.text == ""


def test_training_data_alone_are_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _classes(tmp_path / "train", 1)
    assert open_dataset(tmp_path).split == "train"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{tmp_path} has neither test nor validation data" in caplog.text
    with pytest.raises(DataError, match=f"{tmp_path} has no val data, only train"):
        open_dataset(tmp_path, split="val")


def test_a_split_without_classes_is_taken_last(tmp_path: Path) -> None:
    """As ImageNet's test images come, in one folder and without labels."""
    _save(tmp_path / "test" / "one.png", 9)
    _classes(tmp_path / "val", 1)
    _classes(tmp_path / "train", 2)
    assert open_dataset(tmp_path).split == "val"
    test = open_dataset(tmp_path, split="test")
    assert (test.labels, test.classes, _values(test)) == (None, None, [9])
    shutil.rmtree(tmp_path / "val")
    assert open_dataset(tmp_path).split == "test"


def test_classes_that_are_called_like_splits(tmp_path: Path) -> None:
    _save(tmp_path / "train" / "steam.png")
    _save(tmp_path / "bus" / "red.png")
    assert open_dataset(tmp_path).classes == ("bus", "train")
    shutil.rmtree(tmp_path / "train")
    _save(tmp_path / "train" / "steam" / "one.png")
    assert open_dataset(tmp_path).classes == ("bus", "train")
    with pytest.raises(DataError, match="has no splits: leave out --split train"):
        open_dataset(tmp_path, split="train")


@pytest.mark.parametrize("format", ["auto", "imagefolder"])
def test_images_without_classes_have_no_labels(tmp_path: Path, format: str) -> None:
    for name, value in (("b.png", 2), ("a.PNG", 1), ("10.jpg", 200)):
        _save(tmp_path / name, value)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty").mkdir()
    dataset = open_dataset(tmp_path, format)
    assert (dataset.labels, dataset.classes, dataset.split) == (None, None, None)
    assert _values(dataset) == [200, 1, 2]
    assert [dataset.name_of(i) for i in range(3)] == [
        str(tmp_path / name) for name in ("10.jpg", "a.PNG", "b.png")
    ]
    assert dataset.description == "images without labels"
    with pytest.raises(DataError, match="has no splits"):
        open_dataset(tmp_path, format, "test")


def test_a_class_without_images_is_an_error_beside_others(tmp_path: Path) -> None:
    """Its number would shift those of the classes after it."""
    _classes(tmp_path, 1)
    (tmp_path / "cow").mkdir()
    _save(tmp_path / "loose.png")
    with pytest.raises(DataError, match="cow holds no images"):
        open_dataset(tmp_path)


def test_a_root_whose_split_is_empty(tmp_path: Path) -> None:
    _classes(tmp_path / "train", 1)
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="val holds no images"):
        open_dataset(tmp_path, split="val")
