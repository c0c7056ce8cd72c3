"""A model's accuracy on data in pieces."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DataError
from adder_onnx.evaluation import Accuracy, Dataset
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.probabilities import Kind
from adder_onnx.ray.evaluation.cluster import Pool
from adder_onnx.ray.evaluation.counts import AnswerCounts
from adder_onnx.ray.evaluation.data import Data
from adder_onnx.ray.evaluation.from_afar import is_afar, run_from_afar
from adder_onnx.ray.evaluation.pieces import Piece
from adder_onnx.ray.evaluation.results import PieceResult
from adder_onnx.ray.evaluation.run import run_pieces
from adder_onnx.ray.evaluation.worker import Work

__all__ = ["Evaluated", "choose_images", "evaluate_pieces", "images_of_a_piece", "judge"]

_MOST_IMAGES = 4096
_PIECES_OF_AN_ACTOR = 8


@dataclass(frozen=True)
class Evaluated:
    """All pieces, run.

    Attributes:
        results: by number of the piece, in order.
        seconds: that it took.
        run: numbers of the pieces that were run now, and not before.
    """

    results: Mapping[int, PieceResult]
    seconds: float
    run: frozenset[int]

    @property
    def images(self) -> int:
        """How many were run, now and before."""
        return sum(result.images for result in self.results.values())

    def actors(self) -> list[dict[str, object]]:
        """What each actor did in this run, for the JSON."""
        found: dict[str, list[PieceResult]] = defaultdict(list)
        for number in sorted(self.run):
            found[self.results[number].actor].append(self.results[number])
        return [
            {
                "actor": actor,
                "pieces": len(its),
                "images": sum(result.images for result in its),
                "seconds": sum(result.seconds for result in its),
                "images_per_second": _rate(its),
            }
            for actor, its in sorted(found.items())
        ]


def _rate(results: Sequence[PieceResult]) -> float:
    seconds = sum(result.seconds for result in results)
    return sum(result.images for result in results) / seconds if seconds else 0.0


def images_of_a_piece(images: int | None, batch_size: int, actors: int) -> int:
    """How many images a piece has: whole batches, and several pieces for each actor if possible."""
    if images is None:
        return _MOST_IMAGES
    share = -(-images // (actors * _PIECES_OF_AN_ACTOR))
    return max(1, min(share, _MOST_IMAGES) // batch_size) * batch_size


def choose_images(
    data: Data, skip: int, limit: int | None, *, first: bool
) -> NDArray[np.int64] | None:
    """Numbers of the images that are run, ascending, or None for all; see `Dataset.limit`.

    Raises:
        DataError: none is left.
    """
    if not skip and limit is None:
        return None
    total = data.count()
    known = data.dataset
    numbers = Dataset(
        known.description, known.split, total, known.load, known.name_of, np.arange(total)
    ).skip(skip)
    if limit is not None:
        numbers = numbers.first(limit) if first else numbers.limit(limit)
    return numbers.labels


def evaluate_pieces(
    model: bytes,
    pieces: Sequence[Piece],
    work: Work,
    pool: Pool,
    done: Mapping[int, PieceResult],
    progress: Callable[[int], None],
) -> Evaluated:
    """Runs the pieces that have not been.

    Args:
        model: serialized.
        pieces: in order.
        work: how they are run.
        pool: by which actors.
        done: what was found before, by number of the piece.
        progress: is called with the number of images after each piece.

    Raises:
        AdderError: see `run_pieces`.
    """
    left = {number: piece for number, piece in enumerate(pieces) if number not in done}
    results = dict(done)
    progress(sum(result.images + result.skipped for result in done.values()))
    start = time.perf_counter()
    run = run_from_afar if is_afar() else run_pieces
    with closing(run(model, left, work, pool)) as found:
        for result in found:
            results[result.number] = result
            progress(result.images + result.skipped)
    seconds = time.perf_counter() - start
    return Evaluated(dict(sorted(results.items())), seconds, frozenset(left))


def judge(
    evaluated: Evaluated,
    data: Data,
    classified: Classified,
    names: Sequence[str] | None,
    class_map: Path | None,
) -> tuple[Dataset, Accuracy]:
    """How often the model was right.

    Args:
        evaluated: what was found.
        data: what it was run over; labels of a folder of images are the model's numbers already.
        classified: the output that says the classes.
        names: of the model's classes, if it has any.
        class_map: a file that says which class of the model each of the data is.

    Returns:
        What the data are, with their classes in the model's numbers, and the counts.

    Raises:
        DataError: there are no images, or none can be read; or the classes cannot be matched.
    """
    results = evaluated.results.values()
    images = evaluated.images
    skipped = sum(result.skipped for result in results)
    counts = AnswerCounts()
    for result in results:
        counts.merge(result.counts)
    dataset = data.describe(counts.labels, images + skipped)
    if not images:
        if skipped:
            raise DataError(f"none of the {skipped} images of {dataset.description} can be read")
        raise DataError(f"{dataset.description} has no images")
    kind: Kind = classified.kind or (
        "probabilities" if all(result.sum_to_one for result in results) else "logits"
    )
    if counts.images not in (0, images):
        raise DataError(
            f"{images - counts.images} of the {images} images of {dataset.description} have no "
            "class, and the others have one"
        )
    accuracy = Accuracy(images, skipped, None, None, kind, evaluated.seconds, None)
    if not counts.images:
        return dataset, accuracy
    if data.dataset.labels is not None:
        classes = {label: int(label) for label in counts.labels}
    else:
        before = counts.labels
        dataset = dataset.with_model_classes(classified.classes, names, class_map)
        assert dataset.labels is not None
        classes = dict(zip(before, dataset.labels.tolist(), strict=True))
    confusion = counts.confusion(classes, classified.classes)
    return dataset, Accuracy(
        images,
        skipped,
        top1=confusion.correct,
        top5=None if kind == "class numbers" else counts.right_among_five(classes),
        kind=kind,
        seconds=evaluated.seconds,
        confusion=confusion,
    )
