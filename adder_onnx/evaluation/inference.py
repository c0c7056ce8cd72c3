"""Decoding a data set and running a model over it, both at once."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx import memory
from adder_onnx.errors import DataError, ModelError
from adder_onnx.evaluation.dataset import Dataset, Planes
from adder_onnx.evaluation.preprocessing import preprocess
from adder_onnx.metadata import Preprocessing

__all__ = ["Inputs", "Model", "Outputs", "infer", "infer_each", "load_inputs", "to_input"]

_logger = logging.getLogger(__name__)

Inputs = tuple[NDArray[Any], ...]
"""A value for each of the model's inputs."""

Outputs = Mapping[str, NDArray[Any]]
"""The model's outputs, or some of them, by name."""

Model = Callable[..., Outputs]
"""A function from a batch (N, …) for each input, in the model's order, to outputs (N, …)."""


_MOST_WORKERS = 256
_COPIES = 2  # decoded, and side by side


def infer(
    model: Model,
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    *,
    batch_size: int,
    workers: int,
    pad: bool = False,
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Generator[tuple[NDArray[np.int64], Outputs], None, None]:
    """Runs a model over a data set, in order, while threads decode the images that come next.

    At most ``3 * batch_size + workers`` images are held at a time, whatever the set's size.

    Args:
        model: what is run.
        dataset: what it is run over.
        preprocessing: from image to input.
        batch_size: images in a call of the model.
        workers: threads that decode images.
        pad: whether the last batch is filled up to ``batch_size``, for a model that takes no other;
            the results of what fills it are dropped.
        skip_bad: whether images that cannot be read are left out, instead of an error.
        progress: is called with the number of images after each batch, those left out included.

    Yields:
        Numbers (N,) of images and what the model gives for them, each (N, …).

    Raises:
        DataError: an image cannot be read or does not fit the model; the message names it. Or a
            batch takes more memory than it may.
        ModelError: there are images, but no preprocessing; or the first axis of an output is not
            the batch.
    """
    loads = (partial(load_inputs, dataset, i, preprocessing) for i in range(dataset.images))
    yield from infer_each(
        model,
        loads,
        images=dataset.images,
        batch_size=batch_size,
        workers=workers,
        pad=pad,
        skip_bad=skip_bad,
        progress=progress,
    )


def infer_each(
    model: Model,
    loads: Iterable[Callable[[], Inputs]],
    *,
    batch_size: int,
    workers: int,
    images: int | None = None,
    pad: bool = False,
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Generator[tuple[NDArray[np.int64], Outputs], None, None]:
    """Runs a model over images that come one after the other, as `infer` does.

    Args:
        model: what is run.
        loads: give the inputs of one image each, and raise DataError for one that cannot be read;
            called by threads.
        batch_size: images in a call of the model.
        workers: threads that decode images.
        images: how many there are, where that is known.
        pad: see `infer`.
        skip_bad: see `infer`.
        progress: see `infer`.

    Yields:
        Numbers (N,) of images, counted from 0 in the order they come, and what the model gives for
        them, each (N, …).

    Raises:
        DataError: see `infer`.
        ModelError: see `infer`.
    """
    numbers: list[int] = []
    inputs: list[Inputs] = []
    seen = 0
    checked = False

    def run() -> tuple[NDArray[np.int64], Outputs]:
        samples = inputs + [inputs[-1]] * (batch_size - len(inputs) if pad else 0)
        batch = [np.stack(values) for values in zip(*samples, strict=True)]
        inputs.clear()
        outputs = model(*batch)
        _check_rows(outputs, batch[0])
        rows = {name: array[: len(numbers)] for name, array in outputs.items()}
        return np.array(numbers, np.int64), rows

    ahead = batch_size + workers
    with closing(_decoded(loads, ahead, workers, skip_bad)) as decoded:
        for i, sample in enumerate(decoded):
            seen += 1
            if sample is not None:
                if not checked:
                    most = batch_size if pad or images is None else min(batch_size, images)
                    _check_memory(sample, most)
                    checked = True
                numbers.append(i)
                inputs.append(sample)
            if len(numbers) == batch_size:
                yield run()
                numbers.clear()
                progress(seen)
                seen = 0
    if numbers:
        yield run()
    if seen:
        progress(seen)


def _check_memory(sample: Inputs, batch_size: int) -> None:
    """Refuses a batch that would be larger than the memory, before it is filled."""
    size = batch_size * sum(value.nbytes for value in sample)
    memory.require(_COPIES * size, f"a batch of {batch_size} images", DataError)


def _check_rows(outputs: Outputs, batch: NDArray[Any]) -> None:
    for name, array in outputs.items():
        if array.shape[:1] != batch.shape[:1]:
            raise ModelError(
                f"the model's output {name} has shape {list(array.shape)} for inputs of shape "
                f"{list(batch.shape)}: expected a row for each of the {len(batch)}"
            )


def load_inputs(dataset: Dataset, i: int, preprocessing: Preprocessing | None) -> Inputs:
    """The model's inputs for one image.

    Args:
        dataset: where it is from.
        i: its number.
        preprocessing: from image to input; None where the data set has arrays.

    Returns:
        A value for each input, without the batch's axis: (C, H, W) of an image.

    Raises:
        DataError: the image cannot be read or does not fit the model; the message names it.
        ModelError: it is an image, but there is no preprocessing.
    """
    try:
        sample = dataset.load(i)
        values = sample if isinstance(sample, tuple) else (sample,)
        return tuple(to_input(value, preprocessing) for value in values)
    except DataError as error:
        name = dataset.name_of(i)
        raise DataError(str(error) if name in str(error) else f"{name}: {error}") from error


def to_input(
    value: Image.Image | Planes | NDArray[Any], preprocessing: Preprocessing | None
) -> NDArray[Any]:
    """A value of the model's input: (C, H, W) float32 of an image, an array as it is.

    Raises:
        DataError: an image does not fit.
        ModelError: it is an image, but there is no preprocessing.
    """
    if isinstance(value, np.ndarray):
        return value
    if preprocessing is None:
        raise ModelError(
            "the model does not say how images are preprocessed (metadata "
            "ai.addernet.preprocessing); export it with adder-export"
        )
    return preprocess(value, preprocessing)


def _decoded(
    loads: Iterable[Callable[[], Inputs]], ahead: int, workers: int, skip_bad: bool
) -> Generator[Inputs | None, None, None]:
    """Each image's inputs in order, None for a bad one; decoded ahead by threads."""
    following = iter(loads)
    with ThreadPoolExecutor(min(workers, _MOST_WORKERS)) as pool:
        pending = deque(_begin(pool, load) for load in islice(following, ahead))
        try:
            while pending:
                try:
                    sample = pending.popleft()()
                except DataError:
                    if not skip_bad:
                        raise
                    sample = None
                yield sample
                pending.extend(_begin(pool, load) for load in islice(following, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(pool: ThreadPoolExecutor, load: Callable[[], Inputs]) -> Callable[[], Inputs]:
    """Begins to decode an image; gives what waits for it, or decodes it if there is no thread."""
    try:
        return pool.submit(load).result
    except RuntimeError as error:
        _logger.warning("images are decoded by fewer threads than --workers says: %s", error)
        return load
