"""The worst mistakes of a model, and small pictures of images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.evaluation.dataset import Planes, Sample
from adder_onnx.evaluation.mistakes.thumbnails import LONGEST_SIDE, Thumbnail, make_thumbnail
from adder_onnx.evaluation.mistakes.worst import Mistake, WorstMistakes
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.probabilities import Kind
from adder_onnx.metadata import Preprocessing


def _worst(
    rows: NDArray[Any],
    labels: NDArray[np.int64],
    kind: Kind | None = None,
    *,
    most: int = 100,
    batch: int = 5,
) -> WorstMistakes:
    mistakes = WorstMistakes(labels, Classified("scores", 4, kind), most)
    for first in range(0, len(rows), batch):
        numbers = np.arange(first, min(first + batch, len(rows)))
        mistakes.add(numbers, {"scores": rows[numbers]})
    return mistakes


def _softmax(row: NDArray[np.float64]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.exp(row - row.max())
    return powers / powers.sum()


def _expected(
    probabilities: Sequence[NDArray[np.float64]], labels: NDArray[np.int64]
) -> list[tuple[Any, ...]]:
    """All mistakes in order, by sorting."""
    found = []
    for i, (row, label) in enumerate(zip(probabilities, labels.tolist(), strict=True)):
        answer = int(row.argmax())
        if answer != label:
            found.append((-round(row[answer], 6), i, label, answer, round(row[label], 6)))
    return [(i, label, answer, -c, own) for c, i, label, answer, own in sorted(found)]


def _listed(mistakes: Sequence[Mistake]) -> list[tuple[Any, ...]]:
    return [(m.image, m.label, m.answer, m.confidence, m.label_confidence) for m in mistakes]


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
@pytest.mark.parametrize("most", [1, 10, 1000])
def test_the_surest_mistakes_of_logits(batch: int, most: int) -> None:
    rng = np.random.default_rng(1)
    rows, labels = rng.normal(0, 3, (200, 4)), rng.integers(0, 4, 200)
    mistakes = _worst(rows, labels, most=most, batch=batch)
    expected = _expected([_softmax(row) for row in rows], labels)
    assert mistakes.count == len(expected) > 100
    assert _listed(mistakes.worst()) == expected[:most]


@pytest.mark.parametrize("last", ["probabilities", "logits"])
def test_what_scores_are_may_show_at_the_end(last: str) -> None:
    """By the order of either kind, others are the worst: both are kept until it is known."""
    rng = np.random.default_rng(2)
    rows, labels = rng.dirichlet([1, 1, 1, 1], 300), rng.integers(0, 4, 300)
    if last == "logits":
        rows[-1] = [0, 5, 0, 0]
    probabilities = rows if last == "probabilities" else [_softmax(row) for row in rows]
    expected = _expected(list(probabilities), labels)
    assert _listed(_worst(rows, labels, most=5).worst()) == expected[:5]


def test_each_class_alone_keeps_its_probability() -> None:
    rows = np.array([[0.9, 0.8, 0, 0], [0.95, 0, 0.1, 0]])
    mistakes = _worst(rows, np.array([1, 2]), "independent probabilities").worst()
    assert _listed(mistakes) == [(1, 2, 0, 0.95, 0.1), (0, 1, 0, 0.9, 0.8)]


def test_class_numbers_are_in_the_order_of_images() -> None:
    answers = np.array([3, 1, 0, 2, 2, 1])
    mistakes = _worst(answers, np.array([3, 0, 0, 1, 1, 2]), "class numbers", most=3)
    assert mistakes.count == 4
    found = [(1, 0, 1, None, None), (3, 1, 2, None, None), (4, 1, 2, None, None)]
    assert _listed(mistakes.worst()) == found


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_equal_mistakes_are_in_the_order_of_images(batch: int) -> None:
    """Also where the last digits differ, as they may with the size of a batch."""
    rows = np.tile([0.0, 2.0, 0.0, 0.0], (8, 1))
    rows[:, 1] += np.linspace(0, 1e-9, 8)
    mistakes = _worst(rows, np.zeros(8, np.int64), batch=batch, most=4)
    assert [m.image for m in mistakes.worst()] == [0, 1, 2, 3]


def test_no_mistakes() -> None:
    mistakes = _worst(np.eye(4), np.arange(4))
    assert (mistakes.count, mistakes.worst()) == (0, [])


def _opened(thumbnail: Thumbnail | None) -> Image.Image:
    assert thumbnail is not None
    head, text = thumbnail.uri.split(",")
    picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    assert head == f"data:image/{(picture.format or '').lower()};base64"
    assert picture.size == (thumbnail.width, thumbnail.height)
    assert not {"exif", "icc_profile", "comment", "dpi"} & picture.info.keys()
    picture.load()
    return picture


def _pixels(*shape: int, seed: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _array(thumbnail: Thumbnail | None) -> NDArray[np.uint8]:
    return np.asarray(_opened(thumbnail))


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "LA", "RGBA", "PA", "CMYK", "YCbCr"])
def test_an_image_is_shown_as_it_is(mode: str) -> None:
    image = Image.fromarray(_pixels(9, 20, 3)).convert(mode)
    image.info |= {"icc_profile": b"private", "exif": b"private", "comment": b"private"}
    shown = _opened(make_thumbnail(image, None))
    kind = "L" if mode in ("L", "1", "LA") else "RGB"
    assert (shown.format, shown.mode, shown.size) == ("PNG", kind, (20, 9))
    assert np.array_equal(np.asarray(shown), np.asarray(image.convert(kind)))


@pytest.mark.parametrize(
    ("channels", "taken"), [(1, [0]), (2, [0, 1, 1]), (3, [0, 1, 2]), (5, [0, 1, 2])]
)
def test_planes_of_any_number_are_shown(channels: int, taken: list[int]) -> None:
    planes = _pixels(channels, 6, 7)
    shown = _array(make_thumbnail(Planes(planes), None))
    expected = planes[taken].transpose(1, 2, 0) if channels > 1 else planes[0]
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_preprocessing_is_turned_back(dtype: Any) -> None:
    how = Preprocessing(3, 6, 7, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    planes = _pixels(3, 6, 7)
    mean, std = (np.array(v)[:, None, None] for v in (how.mean, how.std))
    array = ((planes / 255 - mean) / std).astype(dtype)
    shown = _array(make_thumbnail((array,), how))
    assert np.abs(shown.transpose(2, 0, 1).astype(int) - planes).max() <= (dtype == np.float16)


@pytest.mark.parametrize("how", [None, Preprocessing(1, 1, 2, (0.5,), (0.1,))])
def test_values_that_are_no_pixels_are_spread_from_black_to_white(
    how: Preprocessing | None,
) -> None:
    array = np.array([[[-200.0, 0.0, 200.0]]], np.float32)
    assert _array(make_thumbnail((array,), how)).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("value", [0.0, 7.0, 3e38])
def test_equal_values_are_grey(value: float) -> None:
    array = np.full((2, 2, 2), value, np.float32)
    assert set(_array(make_thumbnail((array,), None)).ravel().tolist()) == {128}


def test_values_as_far_apart_as_can_be() -> None:
    array = np.array([[[-1.7e308, 0, 1.7e308]]])
    assert _array(make_thumbnail((array,), None)).tolist() == [[0, 128, 255]]


def test_the_first_input_that_is_an_image_is_shown() -> None:
    array, image = np.zeros((1, 2, 2)), Image.fromarray(_pixels(3, 4, 3))
    sample: Sample = (np.arange(5), array, image, Planes(_pixels(1, 1, 1)))
    assert np.array_equal(_array(make_thumbnail(sample, None)), np.asarray(image))
    assert _opened(make_thumbnail((np.arange(5), array), None)).size == (2, 2)


@pytest.mark.parametrize(
    "array",
    [np.zeros(4), np.zeros((2, 2)), np.zeros((0, 2, 2)), np.zeros((1, 2, 2), "U3"), np.zeros(())],
)
def test_other_arrays_have_no_picture(array: NDArray[Any]) -> None:
    assert make_thumbnail((array,), None) is None


@pytest.mark.parametrize(
    ("size", "shown", "kind"),
    [
        ((64, 64), (64, 64), "PNG"),
        ((65, 10), (65, 10), "JPEG"),
        ((128, 100), (128, 100), "JPEG"),
        ((1280, 640), (128, 64), "JPEG"),
        ((3, 3000), (1, 128), "JPEG"),
        ((20_000, 1), (128, 1), "JPEG"),
        ((1, 1), (1, 1), "PNG"),
    ],
)
def test_large_images_are_made_smaller(
    size: tuple[int, int], shown: tuple[int, int], kind: str
) -> None:
    picture = _opened(make_thumbnail(Image.new("RGB", size, (10, 200, 30)), None))
    assert (picture.size, picture.format) == (shown, kind)
    assert max(picture.size) <= LONGEST_SIDE
    red, green, blue = np.asarray(picture).reshape(-1, 3).mean(axis=0)
    assert abs(red - 10) + abs(green - 200) + abs(blue - 30) < 10


def test_a_page_of_the_largest_pictures_is_small() -> None:
    """Noise takes the most bytes."""
    for size in (64, 128, 500):
        thumbnail = make_thumbnail(Image.fromarray(_pixels(size, size, 3)), None)
        assert thumbnail is not None
        assert 100 * len(thumbnail.uri) < 4_000_000
