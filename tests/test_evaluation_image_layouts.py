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


def test_a_class_folder_with_other_files_is_an_error(tmp_path: Path) -> None:
    """Its images may be of a format that is not read."""
    _classes(tmp_path, 1)
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow" / "image.heic").write_bytes(b"")
    with pytest.raises(DataError, match="cow holds no images"):
        open_dataset(tmp_path)


def test_empty_folders_are_no_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _classes(tmp_path, 1)
    (tmp_path / "ape" / "deeper").mkdir(parents=True)
    (tmp_path / "bee").mkdir()
    (tmp_path / "bee" / ".gitkeep").write_text("")
    dataset = open_dataset(tmp_path)
    assert (dataset.classes, _labels(dataset)) == (("cat", "dog"), [0, 1])
    assert f"{tmp_path} has empty folders, which are no classes: 'ape', 'bee'" in caplog.text


def test_what_is_hidden_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _classes(tmp_path, 1)
    for folder in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".cache", "__pycache__"):
        _save(tmp_path / folder / "image.png")
        _save(tmp_path / folder / "cat" / "image.png")
        _save(tmp_path / "cat" / folder / "image.png")
    _save(tmp_path / "cat" / "._1.png")
    (tmp_path / ".DS_Store").write_text("")
    dataset = open_dataset(tmp_path)
    assert (dataset.classes, _labels(dataset)) == (("cat", "dog"), [0, 1])
    assert caplog.text == ""
    flat = tmp_path / "flat"
    for name in ("a.png", "._a.png", ".hidden.png"):
        _save(flat / name)
    assert open_dataset(flat).images == 1
    assert open_dataset(_save(tmp_path / ".one.png")).single


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    _classes(tmp_path, 1)
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    (tmp_path / "dog" / "up").symlink_to(tmp_path / "dog")
    assert open_dataset(tmp_path).images == 2


def test_a_root_whose_split_is_empty(tmp_path: Path) -> None:
    _classes(tmp_path / "train", 1)
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="has no val data, only train"):
        open_dataset(tmp_path, split="val")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("validation", "val"),
        ("valid", "val"),
        ("Val", "val"),
        ("VALIDATION", "val"),
        ("validation_set", "val"),
        ("ILSVRC2012_img_val", "val"),
        ("Test", "test"),
        ("testing", "test"),
        ("test_set", "test"),
        ("testset", "test"),
    ],
)
@pytest.mark.parametrize("train", ["train", "Training", "training_set", "ILSVRC2012_img_train"])
def test_other_names_of_splits(tmp_path: Path, name: str, split: str, train: str) -> None:
    _classes(tmp_path / train, 1, 2)
    _classes(tmp_path / name, 3)
    for asked in ("auto", split):
        dataset = open_dataset(tmp_path, split=asked)
        assert (dataset.split, _values(dataset)) == (split, [3, 3])
    assert open_dataset(tmp_path, split="train").images == 4


def test_a_split_of_two_names(tmp_path: Path) -> None:
    _classes(tmp_path / "val", 1)
    _classes(tmp_path / "validation", 1)
    with pytest.raises(DataError, match="holds val and validation: give --data one of these"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("folder", ["", "images", "unknown", "test", "test/test", "some name"])
@pytest.mark.parametrize("labelled", ["train", "val"])
def test_unlabelled_test_images_beside_labelled_ones(
    tmp_path: Path, folder: str, labelled: str, caplog: pytest.LogCaptureFixture
) -> None:
    _save(tmp_path / "test" / folder / "one.png", 9)
    _classes(tmp_path / labelled, 1)
    dataset = open_dataset(tmp_path, split="test")
    assert (dataset.labels, dataset.classes, _values(dataset)) == (None, None, [9])
    assert dataset.description == "images without labels, split test"
    odd = "called like no class of the other splits" in caplog.text
    assert odd == (folder == "some name")
    caplog.clear()
    chosen = open_dataset(tmp_path)
    # Training data are not preferred to images without labels.
    assert chosen.split == ("val" if labelled == "val" else "test")
    assert (chosen.classes == ("cat", "dog")) == (labelled == "val")


def test_an_unlabelled_validation_set_is_not_preferred_either(tmp_path: Path) -> None:
    _save(tmp_path / "val" / "images" / "one.png", 9)
    _classes(tmp_path / "test", 1)
    assert open_dataset(tmp_path).split == "test"


def test_a_single_class_that_others_have_is_one(tmp_path: Path) -> None:
    _save(tmp_path / "test" / "unknown" / "one.png", 9)
    for name in ("train", "val"):
        _save(tmp_path / name / "unknown" / "one.png")
        _save(tmp_path / name / "yes" / "one.png")
    dataset = open_dataset(tmp_path)
    assert (dataset.split, dataset.classes, _labels(dataset)) == ("test", ("unknown", "yes"), [0])


def test_images_in_one_folder_inside(tmp_path: Path) -> None:
    """As unlabelled images come for Keras, and Oxford's pets beside what is no image."""
    _save(tmp_path / "images" / "one.png", 9)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "one.xml").write_text("<xml/>")
    dataset = open_dataset(tmp_path)
    assert (dataset.labels, _values(dataset)) == (None, [9])
    _save(tmp_path / "cats" / "cat" / "one.png", 9)
    assert open_dataset(tmp_path / "cats").classes == ("cat",)


def test_classes_in_one_folder_inside(tmp_path: Path) -> None:
    """As in Food-101."""
    _classes(tmp_path / "food" / "images", 1)
    (tmp_path / "food" / "meta").mkdir()
    (tmp_path / "food" / "meta" / "classes.txt").write_text("cat")
    dataset = open_dataset(tmp_path / "food")
    assert (dataset.classes, _labels(dataset)) == (("cat", "dog"), [0, 1])
    _classes(tmp_path / "splits" / "images" / "train", 1, 2)
    _classes(tmp_path / "splits" / "images" / "val", 3)
    dataset = open_dataset(tmp_path / "splits")
    assert (dataset.split, dataset.classes, _values(dataset)) == ("val", ("cat", "dog"), [3, 3])
    _classes(tmp_path / "deep" / "train" / "images", 1)
    _classes(tmp_path / "deep" / "val" / "images", 3)
    dataset = open_dataset(tmp_path / "deep")
    assert (dataset.split, dataset.classes, _values(dataset)) == ("val", ("cat", "dog"), [3, 3])


def test_splits_without_classes(tmp_path: Path) -> None:
    """They are not taken for the classes test and train."""
    _save(tmp_path / "train" / "one.png", 1)
    _save(tmp_path / "test" / "two.png", 2)
    dataset = open_dataset(tmp_path)
    assert (dataset.split, dataset.labels, _values(dataset)) == ("test", None, [2])


def test_classes_are_counted_over_all_splits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else those after the one that is missing would have other numbers than in training."""
    for name in ("ant", "bee", "cat"):
        _save(tmp_path / "train" / name / "one.png")
    for name in ("ant", "cat"):
        _save(tmp_path / "val" / name / "one.png")
    dataset = open_dataset(tmp_path)
    assert (dataset.classes, _labels(dataset)) == (("ant", "bee", "cat"), [0, 2])
    assert f"the splits of {tmp_path} have other classes, val has not 'bee'" in caplog.text
    caplog.clear()
    _save(tmp_path / "val" / "auk" / "one.png")
    _save(tmp_path / "val" / "bee" / "one.png")
    dataset = open_dataset(tmp_path)
    assert (dataset.classes, _labels(dataset)) == (("ant", "auk", "bee", "cat"), [0, 1, 2, 3])
    assert "only val has 'auk'" in caplog.text
