"""Answers counted piece by piece, and judged once all are known: as `evaluate` counts them at once.

Images here are of one pixel, whose value says which one it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError, ModelError
from adder_onnx.evaluation import Accuracy, Dataset, evaluate
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.probabilities import Kind
from adder_onnx.metadata import Preprocessing

pytest.importorskip("ray", reason="needs adder-onnx[ray]")
pytest.importorskip("pyarrow", reason="needs adder-onnx[ray]")

import pyarrow as pa

from adder_onnx.ray.evaluation.counts import AnswerCounts
from adder_onnx.ray.evaluation.data import Data, of_dataset
from adder_onnx.ray.evaluation.evaluation import Evaluated, images_of_a_piece, judge
from adder_onnx.ray.evaluation.pieces import Label, Sample
from adder_onnx.ray.evaluation.results import PieceResult
from adder_onnx.ray.evaluation.scores import kind_of_first
from adder_onnx.ray.evaluation.worker import Answering, Work, _run

_HOW = Preprocessing(1, 1, 1, (0.0,), (1.0,))
_ANIMALS = ("tabby cat", "dog", "cow", "emu", "fox", "gnu", "hen")


class Table:
    """A model that gives each of those images the scores in its row, as a `Network` does."""

    seconds = 0.0

    def __init__(self, scores: NDArray[Any], batch_size: int | None = None) -> None:
        self._scores = scores
        self.batch_size = batch_size

    def __call__(self, batch: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        assert self.batch_size in (None, len(batch))
        return {"logits": self._scores[np.round(batch[:, 0, 0, 0] * 255).astype(int)]}

    def preprocessing(self) -> Preprocessing:
        return _HOW


@dataclass(frozen=True)
class Pixels:
    """A piece: the images from one number on, those in ``bad`` are none."""

    start: int
    labels: tuple[Label | None, ...]
    bad: frozenset[int] = frozenset()

    @property
    def images(self) -> int:
        return len(self.labels)

    def describe(self) -> str:
        return f"the images from {self.start}"

    def samples(self) -> Any:
        for i, label in enumerate(self.labels, self.start):
            yield Sample(f"pixel {i}", lambda i=i: self._open(i), label)

    def _open(self, i: int) -> Image.Image:
        if i in self.bad:
            raise DataError("no image")
        return Image.new("L", (1, 1), i)


def work(classified: Classified, **changes: Any) -> Work:
    options: dict[str, Any] = {
        "classified": classified,
        "batch_size": 4,
        "threads": 2,
        "device": "cpu",
        "arithmetic": "fast",
        "timeout": None,
        "skip_bad": False,
        "answering": None,
    }
    return Work(**(options | changes))


def in_pieces(labels: Sequence[Label | None], size: int, bad: Sequence[int] = ()) -> list[Pixels]:
    starts = range(0, len(labels), size)
    return [Pixels(i, tuple(labels[i : i + size]), frozenset(bad)) for i in starts]


def run(scores: NDArray[Any], pieces: Sequence[Pixels], its: Work, batch: Any = None) -> Evaluated:
    """All pieces, with what is known of each once it was a file."""
    results = {}
    for number, piece in enumerate(pieces):
        found = _run(Table(scores, batch), its, piece, PieceResult(number))  # type: ignore[arg-type]
        assert found.answers is None
        results[number] = PieceResult.from_json(json.loads(json.dumps(found.as_json())))
        assert results[number].as_json() == found.as_json()
    return Evaluated(results, 1.0, frozenset(results))


def data_of(description: str = "numbered pixels") -> Data:
    """What is known of such images before they are read."""
    nothing = Dataset(description, None, 0, lambda _: (), str)
    return Data(nothing, None, lambda *_: [], lambda: 0)


def at_once(
    scores: NDArray[Any],
    labels: Sequence[int] | None,
    classes: Sequence[str] | None,
    classified: Classified,
    names: Sequence[str] | None,
    class_map: Path | None,
    skip_bad: bool = False,
    bad: Sequence[int] = (),
) -> tuple[Dataset, Accuracy]:
    """The same by a data set that is known before."""

    def load(i: int) -> Image.Image:
        if i in bad:
            raise DataError("no image")
        return Image.new("L", (1, 1), i)

    dataset = Dataset(
        "numbered pixels",
        None,
        len(scores),
        load,
        str,
        labels=None if labels is None else np.array(labels, np.int64),
        classes=None if classes is None else tuple(classes),
    ).with_model_classes(classified.classes, names, class_map)
    return dataset, evaluate(
        Table(scores), dataset, _HOW, classified, batch_size=7, workers=1, skip_bad=skip_bad
    )


def assert_same(found: Accuracy, wanted: Accuracy) -> None:
    for name in ("images", "skipped", "top1", "top5", "kind"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert (found.confusion is None) == (wanted.confusion is None)
    if found.confusion is not None and wanted.confusion is not None:
        assert found.confusion.as_json(None) == wanted.confusion.as_json(None)


def random_scores(seed: int, count: int = 100, classes: int = 7) -> NDArray[np.float32]:
    """With ties, so that the order of equal ones counts."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 6, (count, classes)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 8, 100])
@pytest.mark.parametrize("bad", [(), (0, 13, 99)])
def test_numbers(size: int, bad: tuple[int, ...]) -> None:
    scores = random_scores(0)
    labels = np.random.default_rng(1).integers(0, 7, 100).tolist()
    classified = Classified("logits", 7)
    pieces = in_pieces(labels, size, bad)
    evaluated = run(scores, pieces, work(classified, skip_bad=bool(bad)))
    dataset, found = judge(evaluated, data_of(), classified, None, None)
    _, wanted = at_once(scores, labels, None, classified, None, None, bool(bad), bad)
    assert_same(found, wanted)
    assert dataset.images == 100
    assert dataset.matching is not None
    assert dataset.matching.how == "by number"


def test_names() -> None:
    """Matched to the model's in another order, and some classes are not there at all."""
    scores, names = random_scores(2), ["Dog", "tabby-cat", "hen", "fox"]
    numbers = np.random.default_rng(3).integers(0, 4, 100).tolist()
    classified = Classified("logits", 7)
    evaluated = run(scores, in_pieces([names[i] for i in numbers], 9), work(classified))
    dataset, found = judge(evaluated, data_of(), classified, _ANIMALS, None)
    known, wanted = at_once(scores, numbers, names, classified, _ANIMALS, None)
    assert_same(found, wanted)
    assert (dataset.classes, dataset.matching) == (known.classes, known.matching)


def test_a_class_map(tmp_path: Path) -> None:
    scores, names = random_scores(4), ["x", "y", "z"]
    path = tmp_path / "classes.csv"
    path.write_text("x,6\ny,0\nz,3\n")
    numbers = np.random.default_rng(5).integers(0, 3, 100).tolist()
    classified = Classified("logits", 7)
    evaluated = run(scores, in_pieces([names[i] for i in numbers], 30), work(classified))
    dataset, found = judge(evaluated, data_of(), classified, None, path)
    known, wanted = at_once(scores, numbers, names, classified, None, path)
    assert_same(found, wanted)
    assert (dataset.classes, dataset.matching) == (known.classes, known.matching)
    path.write_text("x,6\ny,0\n")
    with pytest.raises(DataError, match="does not say what the classes 'z' are"):
        judge(evaluated, data_of(), classified, None, path)


def test_labels_that_are_the_model_s_already() -> None:
    """As of a folder of images, whose classes are matched before the run."""
    scores, labels = random_scores(6), np.random.default_rng(7).integers(0, 7, 100).tolist()
    classified = Classified("logits", 7)
    known, wanted = at_once(scores, labels, None, classified, _ANIMALS, None)
    evaluated = run(scores, in_pieces(labels, 64), work(classified))
    dataset, found = judge(evaluated, of_dataset(known), classified, _ANIMALS, None)
    assert_same(found, wanted)
    assert dataset.labels is known.labels


def test_class_numbers() -> None:
    numbers = np.random.default_rng(8).integers(0, 7, 100)
    labels = np.random.default_rng(9).integers(0, 7, 100).tolist()
    classified = Classified("logits", 7, "class numbers")
    evaluated = run(numbers, in_pieces(labels, 11), work(classified))
    _, found = judge(evaluated, data_of(), classified, None, None)
    _, wanted = at_once(numbers, labels, None, classified, None, None)
    assert_same(found, wanted)
    assert found.top5 is None


@pytest.mark.parametrize("batch", [None, 4])
def test_a_batch_of_one_size(batch: int | None) -> None:
    scores, labels = random_scores(10, 10), [i % 7 for i in range(10)]
    classified = Classified("logits", 7)
    evaluated = run(scores, in_pieces(labels, 6), work(classified), batch)
    _, found = judge(evaluated, data_of(), classified, None, None)
    assert_same(found, at_once(scores, labels, None, classified, None, None)[1])


def test_images_without_classes() -> None:
    scores, classified = random_scores(11, 20), Classified("logits", 7)
    evaluated = run(scores, in_pieces([None] * 20, 6), work(classified))
    dataset, found = judge(evaluated, data_of(), classified, None, None)
    assert_same(found, at_once(scores, None, None, classified, None, None)[1])
    assert dataset.labels is None
    evaluated = run(scores, in_pieces([None] * 17 + [1, 2, 3], 6), work(classified))
    with pytest.raises(
        DataError, match="17 of the 20 images of numbered pixels have no class, and"
    ):
        judge(evaluated, data_of(), classified, None, None)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 7], None, "has the label 7, but the model distinguishes 7 classes, 0 to 6"),
        (["dog", "bat"], _ANIMALS, "bat"),
        ([1, "dog", "bat"], _ANIMALS, "bat"),
    ],
)
def test_classes_that_the_model_has_not(
    labels: list[Label], names: Sequence[str] | None, message: str
) -> None:
    classified = Classified("logits", 7)
    evaluated = run(random_scores(12, len(labels)), in_pieces(labels, 1), work(classified))
    with pytest.raises(DataError, match=message) as error:
        judge(evaluated, data_of(), classified, names, None)
    assert "numbered pixels" in str(error.value)


def test_nothing_to_judge() -> None:
    classified = Classified("logits", 7)
    with pytest.raises(DataError, match=r"^numbered pixels has no images$"):
        judge(Evaluated({}, 1.0, frozenset()), data_of(), classified, None, None)
    evaluated = run(
        random_scores(13, 3), in_pieces([1, 2, 3], 2, (0, 1, 2)), work(classified, skip_bad=True)
    )
    with pytest.raises(DataError, match=r"^none of the 3 images of numbered pixels can be read$"):
        judge(evaluated, data_of(), classified, None, None)
    with pytest.raises(DataError, match=r"^pixel 1: no image$"):
        run(random_scores(13, 3), in_pieces([1, 2, 3], 2, (1,)), work(classified))


def probabilities(count: int) -> NDArray[np.float64]:
    powers = np.exp(np.random.default_rng(14).standard_normal((count, 7)))
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("bad", "kind"), [(None, "probabilities"), (19, "logits"), (0, "logits")])
def test_the_kind_of_scores_is_that_of_all(bad: int | None, kind: Kind) -> None:
    scores = probabilities(20)
    if bad is not None:
        scores[bad] *= 2
    classified = Classified("logits", 7)
    evaluated = run(scores, in_pieces([1] * 20, 5), work(classified))
    _, found = judge(evaluated, data_of(), classified, None, None)
    assert found.kind == kind
    assert_same(found, at_once(scores, [1] * 20, None, classified, None, None)[1])


def test_a_piece_without_good_images_says_nothing_of_the_kind() -> None:
    classified = Classified("logits", 7)
    pieces = in_pieces([1] * 20, 5, range(5, 10))
    evaluated = run(probabilities(20), pieces, work(classified, skip_bad=True))
    assert judge(evaluated, data_of(), classified, None, None)[1].kind == "probabilities"


def test_a_later_piece_that_contradicts(tmp_path: Path) -> None:
    """Answers are written by what the first images say: what is written cannot be mended."""
    scores, classified = probabilities(20), Classified("logits", 7)
    scores[13] *= 2
    pieces = in_pieces([1] * 20, 5)
    kind = kind_of_first(Table(scores), classified, pieces, 4)  # type: ignore[arg-type]
    assert kind == "probabilities"
    answering = Answering(kind, 5, False, None, False, str(tmp_path))
    its = work(classified, answering=answering)
    run(scores, pieces[:2], its)
    with pytest.raises(
        ModelError, match=r"output logits sums to 1 .* not for the images from 10: "
    ):
        run(scores, pieces[2:], its)
    assert len(list(tmp_path.iterdir())) == 2
    run(
        scores,
        pieces,
        work(classified, answering=Answering("logits", 5, False, None, False, str(tmp_path))),
    )


@pytest.mark.parametrize("batch", [None, 4])
def test_the_kind_of_the_first_images(batch: int | None) -> None:
    classified, scores = Classified("logits", 7), probabilities(20)
    scores[4:] *= 2
    table: Any = Table(scores, batch)
    assert kind_of_first(table, classified, in_pieces([1] * 20, 3), 4) == "probabilities"
    assert kind_of_first(table, classified, in_pieces([1] * 20, 3, (2,)), 4) == "probabilities"
    assert kind_of_first(table, classified, in_pieces([1] * 20, 3)[1:], 4) == "logits"
    known = Classified("logits", 7, "log probabilities")
    assert kind_of_first(table, known, [], 4) == "log probabilities"


def test_answers_may_be_of_any_names(tmp_path: Path) -> None:
    """Arrow takes Unicode alone."""
    names = ("\ud800", "\udcff", "</script>", "x" * 10_000, "\u202e'\"\0", "", "\n")
    scores, classified = random_scores(15, 7), Classified("logits", 7)
    answering = Answering("logits", 1, True, names, True, None)
    piece = Pixels(0, (0, 1, 2, 3, 4, 5, 6))
    table: Any = Table(scores)
    found = _run(table, work(classified, answering=answering), piece, PieceResult(0))
    rows = pa.ipc.open_stream(found.answers).read_all().to_pylist()
    shown = ["\\ud800", "\\udcff", *names[2:]]
    assert [row["label"] for row in rows] == shown
    assert [row["answers"] for row in rows] == [[shown[i]] for i in scores.argmax(axis=1)]
    np.testing.assert_array_equal([row["logits"] for row in rows], scores)


def test_counts_are_sums() -> None:
    labels: list[Label | None] = ["b", 10, None, "a", 2, "b"]
    scores = random_scores(16, 6)
    whole, parts = AnswerCounts(), AnswerCounts()
    whole.add(labels, scores)
    for i in range(6):
        one = AnswerCounts()
        one.add(labels[i : i + 1], scores[i : i + 1])
        parts.merge(AnswerCounts.from_json(json.loads(json.dumps(one.as_json()))))
    assert whole.images == parts.images == 5
    assert whole.labels == parts.labels == [2, 10, "a", "b"]
    classes = {2: 0, 10: 1, "a": 2, "b": 3}
    assert whole.confusion(classes, 7).as_json(None) == parts.confusion(classes, 7).as_json(None)
    assert whole.right_among_five(classes) == parts.right_among_five(classes)


@pytest.mark.parametrize(
    ("images", "batch_size", "actors", "size"),
    [
        (None, 128, 4, 4096),
        (10, 128, 4, 128),
        (0, 8, 1, 8),
        (8 * 16 * 4, 16, 4, 16),
        (8 * 16 * 4 + 1, 16, 4, 16),
        (1_281_167, 128, 8, 4096),
        (50_000, 100, 8, 700),
        (50_000, 5000, 1, 5000),
    ],
)
def test_the_size_of_pieces(images: int | None, batch_size: int, actors: int, size: int) -> None:
    assert images_of_a_piece(images, batch_size, actors) == size
