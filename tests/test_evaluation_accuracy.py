from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation import Dataset, evaluate
from adder_onnx.evaluation.accuracy import best_classes
from adder_onnx.evaluation.inference import Outputs
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.metadata import Preprocessing

_HOW = Preprocessing(1, 1, 1, (0.0,), (1.0,))


def _dataset(labels: Sequence[int] | None, images: int | None = None) -> Dataset:
    """Images of one pixel, whose value is the image's number."""
    count = len(labels) if labels is not None else images or 0
    return Dataset(
        description="numbered pixels",
        split=None,
        images=count,
        load=lambda i: Image.new("L", (1, 1), i),
        name_of=lambda i: f"pixel {i}",
        labels=None if labels is None else np.array(labels, np.int64),
    )


def _model(
    logits: Sequence[Sequence[float]],
) -> Callable[[NDArray[np.float32]], Outputs]:
    """Gives each of those images the logits in its row."""
    table = np.array(logits, np.float32)

    def model(batch: NDArray[np.float32]) -> Outputs:
        assert batch.dtype == np.float32
        assert batch.shape[1:] == (1, 1, 1)
        return {"logits": table[np.round(batch[:, 0, 0, 0] * 255).astype(int)]}

    return model


def _logits(count: int) -> Classified:
    return Classified("logits", count)


# Seven classes; the label's place among the logits is in the comment.
_LOGITS = [
    [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    [-3.0, -1.0, -2.0, -9.0, -9.0, -9.0, -9.0],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [1.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.0],
    [1.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.0],
    [1.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.0],
]
_LABELS = [
    0,  # first
    6,  # second
    3,  # fifth
    2,  # sixth
    1,  # seventh
    1,  # first, among negative logits
    0,  # first of seven equal
    4,  # fifth of seven equal
    5,  # sixth of seven equal
    1,  # first of two equal
    2,  # second of two equal
    5,  # sixth: the last of the four equal ones after those two
]
_TOP1, _TOP5 = 4, 8


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 11, 12, 13, 100])
@pytest.mark.parametrize("workers", [1, 3])
def test_counts(batch_size: int, workers: int) -> None:
    steps: list[int] = []
    accuracy = evaluate(
        _model(_LOGITS),
        _dataset(_LABELS),
        _HOW,
        _logits(7),
        batch_size=batch_size,
        workers=workers,
        progress=steps.append,
    )
    assert (accuracy.images, accuracy.top1, accuracy.top5) == (12, _TOP1, _TOP5)
    assert accuracy.seconds > 0
    whole, rest = divmod(12, batch_size)
    assert steps == [batch_size] * whole + [rest] * (rest > 0)


@pytest.mark.parametrize("place", range(7))
def test_a_label_counts_by_its_place(place: int) -> None:
    ranked = np.argsort(-np.array(_LOGITS[0]))
    dataset = _dataset([int(ranked[place])])
    accuracy = evaluate(_model(_LOGITS), dataset, _HOW, _logits(7), batch_size=1, workers=1)
    assert (accuracy.top1, accuracy.top5) == (int(place < 1), int(place < 5))


def test_ties_go_to_the_lower_class() -> None:
    logits = np.array([[1, 3, 3, 2, 3], [0, 0, 0, 0, 0], [5, 4, 5, 4, 5]], np.float32)
    ranked = best_classes(logits, 4)
    assert ranked.tolist() == [[1, 2, 4, 3], [0, 1, 2, 3], [0, 2, 4, 1]]


def test_many_ties_keep_their_order() -> None:
    """More classes than a sort treats by insertion, which would hide an unstable one."""
    logits = np.tile(np.array([1, 0], np.float32), 500)[None]
    ranked = best_classes(logits, 1000)
    assert ranked[0].tolist() == [*range(0, 1000, 2), *range(1, 1000, 2)]


def test_fewer_than_five_classes() -> None:
    logits = [[0.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
    assert best_classes(np.array(logits[:1]), 5).tolist() == [[1, 2, 0]]
    accuracy = evaluate(
        _model(logits), _dataset([1, 2, 2]), _HOW, _logits(3), batch_size=2, workers=2
    )
    assert (accuracy.top1, accuracy.top5) == (2, 3)


def test_order_is_kept_when_images_are_decoded_out_of_order() -> None:
    """Each image of a batch of four waits until the next one is decoded."""
    count = 12
    decoded = [threading.Event() for _ in range(count)]

    def load(i: int) -> Image.Image:
        if i % 4 != 3:
            assert decoded[i + 1].wait(30)
        decoded[i].set()
        return Image.new("L", (1, 1), i)

    labels = np.arange(count, dtype=np.int64)
    dataset = Dataset("late images", None, count, load, str, labels)
    seen: list[int] = []
    one_hot = np.eye(count, dtype=np.float32)

    def model(batch: NDArray[np.float32]) -> Outputs:
        numbers = np.round(batch[:, 0, 0, 0] * 255).astype(int)
        seen.extend(numbers.tolist())
        return {"logits": one_hot[numbers]}

    accuracy = evaluate(model, dataset, _HOW, _logits(count), batch_size=4, workers=4)
    assert seen == list(range(count))
    assert accuracy.top1 == count


def test_images_are_decoded_only_a_few_batches_ahead() -> None:
    loaded: list[int] = []
    ahead: list[int] = []
    evaluated = 0

    def load(i: int) -> Image.Image:
        loaded.append(i)
        return Image.new("L", (1, 1), i)

    def model(batch: NDArray[np.float32]) -> Outputs:
        nonlocal evaluated
        evaluated += len(batch)
        ahead.append(len(loaded) - evaluated)
        return {"logits": np.eye(2, dtype=np.float32)[np.zeros(len(batch), int)]}

    dataset = Dataset("many images", None, 200, load, str, np.zeros(200, np.int64))
    evaluate(model, dataset, _HOW, _logits(2), batch_size=2, workers=4)
    assert sorted(loaded) == list(range(200))
    assert max(ahead) <= 8


@pytest.mark.parametrize("message", ["it is broken", "cannot read pixel 5: it is broken"])
def test_a_corrupt_image_is_named_once(message: str) -> None:
    def load(i: int) -> Image.Image:
        if i == 5:
            raise DataError(message)
        return Image.new("L", (1, 1), i)

    dataset = Dataset("pixels", None, 9, load, lambda i: f"pixel {i}", np.zeros(9, np.int64))
    with pytest.raises(DataError) as caught:
        evaluate(_model(_LOGITS), dataset, _HOW, _logits(7), batch_size=2, workers=2)
    assert str(caught.value).count("pixel 5") == 1
    assert "it is broken" in str(caught.value)


def test_an_image_of_wrong_size_is_named() -> None:
    dataset = Dataset(
        "pixels",
        None,
        3,
        lambda i: Image.new("L", (1 + i, 1)),
        lambda i: f"pixel {i}",
        np.zeros(3, np.int64),
    )
    with pytest.raises(DataError, match=r"^pixel 1: the image is 2 x 1 pixels"):
        evaluate(_model(_LOGITS), dataset, _HOW, _logits(7), batch_size=3, workers=1)


def test_without_labels_the_model_runs_and_nothing_is_counted() -> None:
    seen: dict[int, list[float]] = {}

    def collect(numbers: NDArray[np.int64], outputs: Outputs) -> None:
        seen.update(zip(numbers.tolist(), outputs["logits"].tolist(), strict=True))

    accuracy = evaluate(
        _model(_LOGITS),
        _dataset(None, 3),
        _HOW,
        _logits(7),
        batch_size=2,
        workers=1,
        collect=collect,
    )
    assert (accuracy.images, accuracy.top1, accuracy.top5) == (3, None, None)
    assert seen == dict(enumerate(_LOGITS[:3]))


def test_nothing_to_count() -> None:
    with pytest.raises(DataError, match="numbered pixels has no images"):
        evaluate(_model(_LOGITS), _dataset([]), _HOW, _logits(7), batch_size=1, workers=1)


def _values(dataset: Dataset) -> list[object]:
    return [dataset.load(i).getpixel((0, 0)) for i in range(dataset.images)]


@pytest.mark.parametrize(
    ("images", "count", "expected"),
    [
        (10, 1, [0]),
        (10, 2, [0, 5]),
        (10, 3, [0, 3, 6]),
        (10, 4, [0, 2, 5, 7]),
        (10, 9, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (10, 10, list(range(10))),
        (10, 11, list(range(10))),
        (7, 5, [0, 1, 2, 4, 5]),
    ],
)
def test_limit_is_evenly_spaced(images: int, count: int, expected: list[int]) -> None:
    limited = _dataset([i * 3 for i in range(images)]).limit(count)
    assert limited.images == len(expected)
    assert _values(limited) == expected
    assert [limited.name_of(i) for i in range(limited.images)] == [f"pixel {i}" for i in expected]
    assert limited.labels is not None
    assert limited.labels.tolist() == [i * 3 for i in expected]


@pytest.mark.parametrize(("images", "count"), [(10000, 97), (1000, 999), (12, 5), (101, 100)])
def test_limit_leaves_gaps_that_differ_by_at_most_one(images: int, count: int) -> None:
    gaps = np.diff([int(n) for n in _names(_dataset(range(images)).limit(count))])
    assert len(gaps) == count - 1
    assert gaps.max() - gaps.min() <= 1
    assert gaps.min() >= 1


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 1, 2]), (4, 4), (9, 4)])
def test_first_takes_the_beginning(count: int, expected: list[int] | int) -> None:
    dataset = _dataset([5, 6, 7, 8]).first(count)
    assert _values(dataset) == (expected if isinstance(expected, list) else list(range(expected)))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [5, 6, 7, 8][:count]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_skip_leaves_out_the_beginning(count: int) -> None:
    dataset = _dataset([5, 6, 7, 8]).skip(count)
    assert _values(dataset) == [0, 1, 2, 3][count:]
    assert [dataset.name_of(i) for i in range(dataset.images)] == [
        f"pixel {i}" for i in range(count, 4)
    ]
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [5, 6, 7, 8][count:]
    assert _values(_dataset(range(10)).skip(4).limit(3)) == [4, 6, 8]


@pytest.mark.parametrize("count", [4, 5])
def test_skip_leaves_something(count: int) -> None:
    with pytest.raises(DataError, match=f"has 4 images, so that --skip {count} leaves none"):
        _dataset([5, 6, 7, 8]).skip(count)


def _names(dataset: Dataset) -> list[str]:
    return [dataset.name_of(i).removeprefix("pixel ") for i in range(dataset.images)]


def test_select_follows_the_order_given_also_twice() -> None:
    chosen = _dataset([5, 6, 7, 8]).select([3, 0, 3]).select([2, 1])
    assert _values(chosen) == [3, 0]
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [8, 5]
    assert _dataset(None, 4).limit(2).labels is None
