"""Arrays as Keras, MedMNIST and others save them: names, splits, labels, the order of axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation import Dataset, load_inputs, open_dataset
from adder_onnx.metadata import Preprocessing
from adder_onnx.runtime import NodeArg


def _how(channels: int, height: int = 6, width: int = 5, **values: Any) -> Preprocessing:
    return Preprocessing(channels, height, width, (0.0,) * channels, (1.0,) * channels, **values)


def _open(
    tmp_path: Path,
    how: Preprocessing | None,
    arrays: dict[str, Any],
    *,
    shape: Sequence[int | str | None] | None = None,
    split: str = "auto",
) -> Dataset:
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    if shape is None:
        shape = ["N", 3, 6, 5] if how is None else ["N", how.channels, how.height, how.width]
    inputs = [NodeArg("input", "tensor(float)", list(shape))]
    return open_dataset(path, split=split, inputs=inputs, preprocessing=how)


def _pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def _read(dataset: Dataset, how: Preprocessing | None) -> NDArray[Any]:
    return np.stack([load_inputs(dataset, i, how)[0] for i in range(dataset.images)])


def _scaled(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(255)


_NAMES: dict[str, tuple[str, str, dict[str, str]]] = {
    "Keras": ("x_{}", "y_{}", {"train": "train", "test": "test"}),
    "MedMNIST": ("{}_images", "{}_labels", {"train": "train", "val": "val", "test": "test"}),
    "scikit-learn": ("X_{}", "y_{}", {"train": "train", "val": "valid", "test": "test"}),
    "humps": ("{}Data", "{}Targets", {"train": "train", "test": "test"}),
    "no separator": ("x{}", "y{}", {"train": "train", "test": "test"}),
    "validation": ("{}_x", "{}_y", {"train": "training", "val": "validation"}),
}


@pytest.mark.parametrize("split", ["auto", "train", "val", "test"])
@pytest.mark.parametrize("kind", _NAMES)
def test_splits(tmp_path: Path, kind: str, split: str, caplog: pytest.LogCaptureFixture) -> None:
    images, labels, splits = _NAMES[kind]
    arrays = {}
    for n, word in enumerate(splits.values(), 1):
        arrays[images.format(word)] = _pixels(n, 3, 6, 5) + n
        arrays[labels.format(word)] = np.arange(n) + n
    how = _how(3)
    if split not in (*splits, "auto"):
        with pytest.raises(DataError, match=f"has no {split} data, only "):
            _open(tmp_path, how, arrays, split=split)
        return
    dataset = _open(tmp_path, how, arrays, split=split)
    expected = split if split != "auto" else "test" if "test" in splits else "val"
    n = list(splits).index(expected) + 1
    assert (dataset.split, dataset.images) == (expected, n)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == list(range(n, 2 * n))
    assert np.array_equal(_read(dataset, how), _scaled(_pixels(n, 3, 6, 5) + n))
    assert dataset.description.endswith(f" of an .npz file, split {expected}")
    assert caplog.text == ""


def test_training_data_alone_are_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = _open(tmp_path, _how(3), {"x_train": _pixels(2, 3, 6, 5), "y_train": [0, 1]})
    assert dataset.split == "train"
    assert "neither test nor validation data" in caplog.text


@pytest.mark.parametrize("images", ["x", "X", "images", "data", "img", "input", "anything"])
@pytest.mark.parametrize("labels", ["y", "labels", "label", "target", "targets"])
def test_names(tmp_path: Path, images: str, labels: str) -> None:
    dataset = _open(tmp_path, _how(3), {images: _pixels(2, 3, 6, 5), labels: [4, 1]})
    assert dataset.labels is not None
    assert (dataset.labels.tolist(), dataset.split) == ([4, 1], None)
    with pytest.raises(DataError, match="has no splits: leave out --split test"):
        _open(tmp_path, _how(3), {images: _pixels(2, 3, 6, 5)}, split="test")


def test_labels_are_those_called_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = {"x": _pixels(2, 3, 6, 5), "y": [0, 1], "labels": [3, 4]}
    dataset = _open(tmp_path, _how(3), arrays)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [3, 4]
    assert "also holds y, which" in caplog.text


def test_arrays_of_no_use_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = {"images": _pixels(2, 3, 6, 5), "y": [0, 1], "ids": [7, 8], "classes": [1.5]}
    assert _open(tmp_path, _how(3), arrays).images == 2
    assert "also holds ids, classes, which the model has no input for" in caplog.text


_LABELS: dict[str, tuple[Any, list[int], tuple[str, ...] | None, tuple[int, int] | None]] = {
    "integers": ([3, 0, 3, 1], [3, 0, 3, 1], None, None),
    "a column": ([[3], [0], [3], [1]], [3, 0, 3, 1], None, None),
    "one-hot": (np.eye(5, dtype=np.uint8)[[3, 0, 3, 1]], [3, 0, 3, 1], None, (0, 4)),
    "one-hot floats": (np.eye(5)[[3, 0, 3, 1]], [3, 0, 3, 1], None, (0, 4)),
    "one-hot booleans": (np.eye(5, dtype=bool)[[3, 0, 3, 1]], [3, 0, 3, 1], None, (0, 4)),
    "names": (["dog", "ant", "dog", "bee"], [2, 0, 2, 1], ("ant", "bee", "dog"), None),
    "names in a column": (
        [["dog"], ["ant"], ["dog"], ["bee "]],
        [2, 0, 2, 1],
        ("ant", "bee", "dog"),
        None,
    ),
    "names of bytes": (
        np.array(["dog", "é", "dog", "bee"]).astype("U"),
        [1, 2, 1, 0],
        ("bee", "dog", "é"),
        None,
    ),
}


@pytest.mark.parametrize("case", _LABELS)
def test_labels(tmp_path: Path, case: str) -> None:
    array, numbers, classes, span = _LABELS[case]
    dataset = _open(tmp_path, _how(3), {"x": _pixels(4, 3, 6, 5), "y": array})
    assert dataset.labels is not None
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == numbers
    assert (dataset.classes, dataset.label_span, dataset.published) == (classes, span, False)


def test_names_of_bytes(tmp_path: Path) -> None:
    labels = np.array(["ü".encode(), b"ant"])
    dataset = _open(tmp_path, _how(3), {"x": _pixels(2, 3, 6, 5), "y": labels})
    assert dataset.classes == ("ant", "ü")


@pytest.mark.parametrize("name", ["class_names", "label_names", "classes", "target_names"])
def test_names_of_the_classes(tmp_path: Path, name: str) -> None:
    arrays = {"x": _pixels(2, 3, 6, 5), "y": [2, 0], name: ["cat", "dog", "ant"]}
    dataset = _open(tmp_path, _how(3), arrays)
    assert (dataset.classes, dataset.published) == (("cat", "dog", "ant"), True)
    matched = dataset.with_model_classes(3, ("ants", "dogs", "cats"))
    assert matched.labels is not None
    assert matched.labels.tolist() == [0, 2]


def test_a_column_for_each_class_must_be_one_of_the_model_s(tmp_path: Path) -> None:
    dataset = _open(tmp_path, _how(3), {"x": _pixels(2, 3, 6, 5), "y": np.eye(4)[:2]})
    assert dataset.with_model_classes(4, None).labels is not None
    with pytest.raises(DataError, match="has the label 3, but the model distinguishes 3 classes"):
        dataset.with_model_classes(3, None)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("name", ["x", "input"])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_channels_last(tmp_path: Path, channels: int, name: str, kind: str) -> None:
    how = _how(channels)
    first = _pixels(4, channels, 6, 5)
    values: NDArray[Any] = first if kind == "bytes" else first.astype(np.float32)
    expected = _scaled(first) if kind == "bytes" else values
    for array in (values, np.moveaxis(values, 1, 3), np.moveaxis(values, 1, 3).copy()):
        assert np.array_equal(_read(_open(tmp_path, how, {name: array}), how), expected)


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_grey_images_without_channels(tmp_path: Path, kind: str) -> None:
    pixels = _pixels(4, 6, 5)
    values: NDArray[Any] = pixels if kind == "bytes" else pixels.astype(np.float32)
    expected = _scaled(pixels) if kind == "bytes" else values
    found = _read(_open(tmp_path, _how(1), {"x": values}), _how(1))
    assert np.array_equal(found, expected[:, None])


def test_grey_images_for_a_colour_model(tmp_path: Path) -> None:
    pixels = _pixels(4, 6, 5)
    for array in (pixels, pixels[:, None], pixels[..., None]):
        found = _read(_open(tmp_path, _how(3), {"x": array}), _how(3))
        assert np.array_equal(found, np.repeat(_scaled(pixels)[:, None], 3, axis=1))


def test_images_that_are_resized(tmp_path: Path) -> None:
    """Their height and width say nothing, their channels do."""
    how = _how(2, 4, 4, resize=4, crop=True)
    pixels = _pixels(3, 2, 8, 8)
    last = _read(_open(tmp_path, how, {"x": np.moveaxis(pixels, 1, 3)}), how)
    assert last.shape == (3, 2, 4, 4)
    assert np.array_equal(last, _read(_open(tmp_path, how, {"x": pixels}), how))


_AMBIGUOUS: dict[str, tuple[Preprocessing, NDArray[Any]]] = {
    "channels at both ends": (_how(3, 4, 4, resize=4, crop=True), _pixels(2, 3, 8, 3)),
    "one or three channels": (_how(3, 4, 4, resize=4, crop=True), _pixels(2, 1, 8, 3)),
    "a cube": (_how(3, 3, 3), _pixels(2, 3, 3, 3)),
    "a cube of floats": (_how(4, 4, 4), _pixels(2, 4, 4, 4).astype(np.float32)),
    "one colour image": (_how(3), _pixels(3, 6, 5)),
    "one colour image, channels last": (_how(3, 6, 3), _pixels(6, 6, 3)),
}


@pytest.mark.parametrize("case", _AMBIGUOUS)
def test_what_fits_twice_is_refused(tmp_path: Path, case: str) -> None:
    how, array = _AMBIGUOUS[case]
    with pytest.raises(DataError, match=r"x is .*(both fit; give|is it one image, or grey)"):
        _open(tmp_path, how, {"x": array})
    if array.ndim == 4:  # the name says that the order is the model's
        named = _open(tmp_path, how, {"input": array}).load(0)
        assert isinstance(named, tuple)
        images = array if array.shape[1] != 1 or array.dtype.kind == "f" else array[:, 0]
        value = named[0]
        if isinstance(value, Image.Image):
            found = np.asarray(value)
            assert np.array_equal(np.moveaxis(found, 2, 0) if found.ndim == 3 else found, images[0])
        else:
            assert np.array_equal(value, images[0])
    else:  # and labels, that the first axis counts images
        assert _open(tmp_path, how, {"x": array, "y": range(len(array))}).images == len(array)


def test_height_and_width_decide_between_channels_at_both_ends(tmp_path: Path) -> None:
    pixels = _pixels(2, 3, 8, 3)
    assert np.array_equal(
        _read(_open(tmp_path, _how(3, 8, 3), {"x": pixels}), _how(3, 8, 3)), _scaled(pixels)
    )
    found = _read(_open(tmp_path, _how(3, 3, 8), {"x": pixels}), _how(3, 3, 8))
    assert np.array_equal(found, _scaled(np.moveaxis(pixels, 3, 1)))


_WRONG: dict[str, tuple[Callable[[], Preprocessing], NDArray[Any], str]] = {
    "four channels for a colour model": (lambda: _how(3), _pixels(2, 4, 6, 5), "1 or 3 channels"),
    "three for a model of four": (lambda: _how(4), _pixels(2, 3, 6, 5), "with 4 channels"),
    "none for a model of four": (lambda: _how(4), _pixels(2, 6, 5), "expected images"),
    "floats without channels": (lambda: _how(3), _pixels(2, 6, 5) / 255, "expected images"),
    "a single grey image": (lambda: _how(1), _pixels(6, 5), "expected images"),
    "integers": (lambda: _how(3), _pixels(2, 6, 5, 3).astype(int), "expected images"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_wrong_arrays(tmp_path: Path, case: str) -> None:
    how, array, message = _WRONG[case]
    with pytest.raises(DataError, match=message):
        _open(tmp_path, how(), {"x": array})


_NORMALIZED = Preprocessing(3, 6, 5, (0.5,) * 3, (0.25,) * 3)
_SCALED = Preprocessing(3, 6, 5, (0.0,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("how", "factor", "offset", "warned"),
    [
        (_NORMALIZED, 1 / 255, 0.0, True),
        (_NORMALIZED, 1.0, 0.0, True),
        (_NORMALIZED, 4 / 255, -2.0, False),
        (_how(3), 1 / 255, 0.0, False),
        (_how(3), 1.0, 0.0, False),
        (_SCALED, 2 / 255, 0.0, False),
        (_SCALED, 1.0, 0.0, True),
        (None, 1.0, 0.0, False),
    ],
)
def test_floats_that_look_like_pixels(
    tmp_path: Path,
    how: Preprocessing | None,
    factor: float,
    offset: float,
    warned: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = (_pixels(70, 3, 6, 5) * factor + offset).astype(np.float32)
    _open(tmp_path, how, {"x": values})
    assert ("taken as already preprocessed" in caplog.text) == warned
    assert len(caplog.records) == warned


def test_floats_without_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert _open(tmp_path, _NORMALIZED, {"x": np.zeros((2, 3, 0, 5), np.float32)}).images == 2
    assert caplog.text == ""


@pytest.mark.parametrize("channels", [2, 4])
def test_image_files_for_a_model_of_other_channels(tmp_path: Path, channels: int) -> None:
    Image.new("RGBA", (5, 6)).save(tmp_path / "one.png")
    for path in (tmp_path, tmp_path / "one.png"):
        with pytest.raises(DataError, match=rf"takes images of {channels} channels.*\.npz file"):
            open_dataset(path, preprocessing=_how(channels))
