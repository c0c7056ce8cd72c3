"""Running a model over a data set."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.preprocessing import preprocess
from adder_onnx.metadata import Preprocessing

__all__ = ["Accuracy", "Model", "evaluate", "load_input", "predict"]

Model = Callable[[NDArray[np.float32]], NDArray[Any]]
"""A function from inputs (N, C, H, W) to logits (N, classes)."""

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Accuracy:
    """How many images a model gets right.

    Attributes:
        images: number of images.
        top1: how many have their label first.
        top5: how many have it among the first five.
        seconds: from the first image read to the last result, decoding included.
    """

    images: int
    top1: int
    top5: int
    seconds: float


def evaluate(
    model: Model,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Accuracy:
    """Counts right answers over a data set that has labels.

    Args:
        model: what is evaluated.
        dataset: its labels number the model's classes.
        preprocessing: from image to input.
        batch_size: images in a call of the model.
        workers: threads that decode images.
        progress: is called with the number of images after each batch.

    Raises:
        DataError: an image cannot be read or does not fit the model; there are no labels.
    """
    if dataset.labels is None:
        raise DataError(f"{dataset.description} has no labels")
    if dataset.images == 0:
        raise DataError(f"{dataset.description} has no images")
    top1 = top5 = done = 0
    start = time.perf_counter()
    for batch in _batches(dataset, preprocessing, batch_size, workers):
        ranked = predict(model, batch, 5)
        labels = dataset.labels[done : done + len(batch)]
        hits = ranked == labels[:, None]
        top1 += int(hits[:, 0].sum())
        top5 += int(hits.any(axis=1).sum())
        done += len(batch)
        progress(len(batch))
    return Accuracy(done, top1, top5, time.perf_counter() - start)


def predict(model: Model, batch: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k classes with the highest logits, best first, (N, k); fewer if there are fewer.

    Among equal logits the class with the lower number comes first.
    """
    logits = model(batch)
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def load_input(dataset: Dataset, i: int, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The model's input (C, H, W) for one image.

    Raises:
        DataError: the image cannot be read or does not fit the model; the message names it.
    """
    try:
        return preprocess(dataset.load(i), preprocessing)
    except DataError as error:
        name = dataset.name_of(i)
        raise DataError(str(error) if name in str(error) else f"{name}: {error}") from error


def _batches(
    dataset: Dataset, preprocessing: Preprocessing, batch_size: int, workers: int
) -> Iterator[NDArray[np.float32]]:
    """Preprocessed batches in order, decoded by threads while the model runs."""
    load = partial(load_input, dataset, preprocessing=preprocessing)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[list[Future[NDArray[np.float32]]]] = deque()
        first = 0
        try:
            while pending or first < dataset.images:
                while first < dataset.images and len(pending) <= _BATCHES_AHEAD:
                    last = min(first + batch_size, dataset.images)
                    pending.append([pool.submit(load, i) for i in range(first, last)])
                    first = last
                yield np.stack([future.result() for future in pending.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)
