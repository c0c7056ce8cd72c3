"""How often a model is right."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.inference import Model, infer
from adder_onnx.metadata import Preprocessing

__all__ = ["Accuracy", "best_classes", "evaluate", "predict"]


@dataclass(frozen=True)
class Accuracy:
    """How many images a model gets right.

    Attributes:
        images: number of images that the model was run over.
        skipped: number of images that could not be read.
        top1: how many have their label first; None where there are no labels.
        top5: how many have it among the first five; None where there are no labels.
        seconds: from the first image read to the last result, decoding included.
    """

    images: int
    skipped: int
    top1: int | None
    top5: int | None
    seconds: float


def evaluate(
    model: Model,
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    *,
    batch_size: int,
    workers: int,
    pad: bool = False,
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda done: None,
    collect: Callable[[NDArray[np.int64], NDArray[Any]], None] = lambda numbers, logits: None,
) -> Accuracy:
    """Runs a model over a data set and counts right answers where it has labels.

    Args:
        model: what is evaluated.
        dataset: its labels number the model's classes.
        preprocessing: from image to input.
        batch_size: images in a call of the model.
        workers: threads that decode images.
        pad: whether the model takes batches of that size only.
        skip_bad: whether images that cannot be read are left out and counted.
        progress: is called with the number of images after each batch.
        collect: is called with the numbers (N,) of images and their logits (N, classes).

    Raises:
        DataError: there are no images, or one cannot be read or does not fit the model.
        ModelError: there are images, but no preprocessing.
    """
    if dataset.images == 0:
        raise DataError(f"{dataset.description} has no images")
    top1 = top5 = done = 0
    start = time.perf_counter()
    for numbers, logits in infer(
        model,
        dataset,
        preprocessing,
        batch_size=batch_size,
        workers=workers,
        pad=pad,
        skip_bad=skip_bad,
        progress=progress,
    ):
        if dataset.labels is not None:
            hits = best_classes(logits, 5) == dataset.labels[numbers][:, None]
            top1 += int(hits[:, 0].sum())
            top5 += int(hits.any(axis=1).sum())
        collect(numbers, logits)
        done += len(numbers)
    if not done:
        raise DataError(f"none of the {dataset.images} images of {dataset.description} can be read")
    labelled = dataset.labels is not None
    return Accuracy(
        images=done,
        skipped=dataset.images - done,
        top1=top1 if labelled else None,
        top5=top5 if labelled else None,
        seconds=time.perf_counter() - start,
    )


def predict(model: Model, batch: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k classes that a model prefers for each of a batch (N, C, H, W), see `best_classes`."""
    return best_classes(model(batch), k)


def best_classes(logits: NDArray[Any], k: int) -> NDArray[np.int64]:
    """The k classes with the highest logits (N, classes), best first, (N, k).

    Among equal logits the class with the lower number comes first. Fewer if there are fewer.
    """
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]
