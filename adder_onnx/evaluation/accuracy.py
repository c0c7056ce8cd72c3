"""How often a model is right."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DataError
from adder_onnx.evaluation.confusion import Confusion, ConfusionCounter
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.inference import Model, Outputs, infer
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.probabilities import Kind, KindOfScores
from adder_onnx.metadata import Preprocessing

__all__ = ["Accuracy", "best_classes", "evaluate"]


@dataclass(frozen=True)
class Accuracy:
    """How many images a model gets right.

    Attributes:
        images: number of images that the model was run over.
        skipped: number of images that could not be read.
        top1: how many have their label first; None where there are no labels, or no classes.
        top5: how many have it among the first five; None for class numbers, too.
        kind: what the output is that says the classes; None where there is none.
        seconds: from the first image read to the last result, decoding included.
        confusion: which classes it takes for which; None where top1 is.
    """

    images: int
    skipped: int
    top1: int | None
    top5: int | None
    kind: Kind | None
    seconds: float
    confusion: Confusion | None


def evaluate(
    model: Model,
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    classified: Classified | None,
    *,
    batch_size: int,
    workers: int,
    pad: bool = False,
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    collect: Callable[[NDArray[np.int64], Outputs], None] = lambda numbers, outputs: None,
) -> Accuracy:
    """Runs a model over a data set and counts right answers where it has labels.

    Args:
        model: what is evaluated.
        dataset: its labels number the model's classes.
        preprocessing: from image to input.
        classified: the output that says the classes; None if the model is no classifier.
        batch_size: images in a call of the model.
        workers: threads that decode images.
        pad: whether the model takes batches of that size only.
        skip_bad: whether images that cannot be read are left out and counted.
        progress: is called with the number of images after each batch.
        collect: is called with the numbers (N,) of images and what the model gives for them; the
            output that says the classes is (N, classes), or (N,) if it is class numbers.

    Returns:
        How many were right, and how long it took.

    Raises:
        DataError: there are no images, or one cannot be read or does not fit the model.
        ModelError: there are images, but no preprocessing; or an output is not as it should be.
    """
    if dataset.images == 0:
        raise DataError(f"{dataset.description} has no images")
    kinds = KindOfScores(None if classified is None else classified.kind)
    counter = None
    if classified is not None and dataset.labels is not None:
        counter = ConfusionCounter(classified.classes)
    top1 = top5 = done = 0
    start = time.perf_counter()
    batches = infer(
        model,
        dataset,
        preprocessing,
        batch_size=batch_size,
        workers=workers,
        pad=pad,
        skip_bad=skip_bad,
        progress=progress,
    )
    with closing(batches):
        for numbers, found in batches:
            outputs = dict(found)
            if classified is not None:
                rows = outputs[classified.name] = classified.rows(found)
                kinds.see(rows)
                if dataset.labels is not None and counter is not None:
                    best, true = best_classes(rows, 5), dataset.labels[numbers]
                    counter.add(true, best[:, 0])
                    hits = best == true[:, None]
                    top1 += int(hits[:, 0].sum())
                    top5 += int(hits.any(axis=1).sum())
            collect(numbers, outputs)
            done += len(numbers)
    if not done:
        raise DataError(f"none of the {dataset.images} images of {dataset.description} can be read")
    kind = None if classified is None else kinds.kind
    counted = counter is not None
    return Accuracy(
        images=done,
        skipped=dataset.images - done,
        top1=top1 if counted else None,
        top5=top5 if counted and kind != "class numbers" else None,
        kind=kind,
        seconds=time.perf_counter() - start,
        confusion=None if counter is None else counter.confusion(),
    )


def best_classes(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """The k classes with the highest scores (N, classes), best first, (N, k).

    Among equal scores the class with the lower number comes first. Fewer if there are fewer: only
    the one that is said by class numbers (N,).
    """
    if scores.ndim == 1:
        return scores.astype(np.int64)[:, None]
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
