"""A model as a step of a pipeline of Ray Data: from a column of images to columns of answers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import DataError, InputError
from adder_onnx.evaluation.probabilities import Kind
from adder_onnx.ray.answers import answer_columns
from adder_onnx.ray.image_columns import Column, find_images, name_of_row, to_image
from adder_onnx.ray.image_model import ImageModel
from adder_onnx.ray.kinds import KindOfBatches, choose_kind
from adder_onnx.ray.workers import Model, assigned_threads, fetch_model
from adder_onnx.runtime.threads import resolve_threads
from adder_onnx.text import shorten

__all__ = ["Classifier"]

_CELLS = 60

Batch = dict[str, Any]
"""Columns by name, each with a value for every row."""


class Classifier:
    """Says what is on the images of a batch: for ``map_batches`` of a data set of Ray.

        dataset.map_batches(
            adder_onnx.ray.Classifier,
            fn_constructor_kwargs={"model": ray.put(Path("resnet20.onnx").read_bytes())},
            batch_size=128, concurrency=4, num_cpus=2,
        )

    A call takes a batch of NumPy columns, Ray's default, and gives one: the same rows, without the
    images, with these columns, whose types are the same in all batches:

    | column | value |
    | --- | --- |
    | ``class`` | the number of the most probable class, int64 |
    | ``label`` | its name, or its number where the model has no labels |
    | ``probability`` | its probability, float64 |
    | ``classes``, ``probabilities`` | the ``topk`` best, best first, unless that is one |
    | ``logits`` | all scores as the model gives them, where asked for |
    | ``error`` | with ``skip_bad``: why an image has no answer, or nothing |

    Of a model that gives nothing but classes' numbers there are only the first two, and ``error``.
    An image without an answer has -1, no label, and NaN. All numbers are those of adder-run.

    Images are the bytes of files, as ``read_binary_files``, ``read_parquet`` and
    ``read_webdataset(decoder=None)`` give them, structs ``{bytes, path}`` with such bytes, pixels
    (H, W) or (H, W, C) of uint8, as ``read_images`` gives, or images of Pillow.

    Outside Ray an object of this class is a function from a dict of columns to another.

    Args:
        model: a path, which all machines must have, the bytes of a file, or a ``ray.ObjectRef`` of
            these, which go once to each machine, and are there as long as who has put them is.
        image_column: the images' column. Found if not given: the first called image, img, bytes,
            jpg, jpeg, png and so on that has images, or the only one.
        threads: of a run of the model, and as many that decode; None for as many as Ray gave CPUs
            to the actor, outside Ray for all cores that this process may use.
        device: as `adder_onnx.InferenceSession` has it; with ``num_gpus``, ``cuda`` is the GPU that
            Ray gave the actor.
        topk: how many answers an image has.
        logits: whether there is a column of all scores.
        skip_bad: whether images that cannot be read get no answer, instead of an error.
        keep_image: whether the images stay.
        prefix: of the names of all columns that are added, where the batch has one called
            ``label``, for example.
        kind: what the model's scores are: ``logits``, ``probabilities``, ``log probabilities`` or
            ``independent probabilities``. None for what the graph tells, or the first batch that
            an actor gets.

    Raises:
        InputError: an argument is not one of its choices.
        ModelError: the model cannot be read or executed, or does not classify images.
        DeviceError: the device does not exist or cannot be used.
    """

    def __init__(
        self,
        model: Model,
        *,
        image_column: str | None = None,
        threads: int | None = None,
        device: str = "cpu",
        topk: int = 5,
        logits: bool = False,
        skip_bad: bool = False,
        keep_image: bool = False,
        prefix: str = "",
        kind: Kind | None = None,
    ) -> None:
        if isinstance(topk, bool) or not isinstance(topk, int) or topk < 1:
            raise InputError(f"topk is {topk!r}; expected a number of answers, at least 1")
        self._threads = resolve_threads(assigned_threads() if threads is None else threads)
        self._model = ImageModel(fetch_model(model), device=device, threads=self._threads)
        self._kinds = KindOfBatches(choose_kind(kind, self._model.kind))
        self._image_column = image_column
        self._topk, self._logits = topk, logits
        self._skip_bad, self._keep_image = skip_bad, keep_image
        self._prefix = prefix

    def __call__(self, batch: Batch) -> Batch:
        """The batch with answers.

        Raises:
            InputError: the batch is no dict of columns.
            DataError: there are no images in it, one cannot be read or does not fit the model, or
                the batch has a column already that is to be added.
            ModelError: what the model gives is not what it says, or is no more what it was.
        """
        _check_format(batch)
        column = self._find_column(batch)
        images: Column = [] if column is None else batch[column]
        inputs, errors = self._decode(batch, column, images)
        good = np.array([not error for error in errors], bool)
        answers = self._answers([image for image in inputs if image is not None], good)
        if self._skip_bad:
            answers["error"] = np.array(errors, object)
        kept = {name: v for name, v in batch.items() if self._keep_image or name != column}
        added = {self._prefix + name: values for name, values in answers.items()}
        self._check_names(kept, added)
        return kept | added

    def _find_column(self, batch: Batch) -> str | None:
        """The images' column, which stays the same; None where there are no rows and no such one.

        Of no rows at all Ray may not even tell the columns.
        """
        name = self._image_column
        if name is not None and name in batch:
            return name
        rows = any(len(column) for column in batch.values())
        if name is not None and rows:
            there = ", ".join(shorten(column, _CELLS) for column in batch)
            raise DataError(f"there is no column {shorten(name, _CELLS)}, but {there}")
        found = find_images(batch)
        if rows:
            self._image_column = found
        return found

    def _decode(
        self, batch: Batch, column: str | None, images: Column
    ) -> tuple[list[NDArray[np.float32] | None], list[str]]:
        """For each image the model's input, or None, and why it is None, or nothing."""
        if column is None:
            return [], []

        def decode(row: int) -> tuple[NDArray[np.float32] | None, str]:
            try:
                image = to_image(images[row], self._model.how.channels)
                return self._model.prepare(image), ""
            except DataError as error:
                if self._skip_bad:
                    return None, str(error)
                raise DataError(f"{name_of_row(batch, column, row)}: {error}") from error

        with ThreadPoolExecutor(self._threads) as pool:
            decoded = list(pool.map(decode, range(len(images))))
        return [image for image, _ in decoded], [error for _, error in decoded]

    def _answers(self, inputs: list[NDArray[np.float32]], good: NDArray[np.bool_]) -> Batch:
        """The columns of answers, with empty ones for images that are not good."""
        scores = self._model.scores(inputs)
        found = answer_columns(scores, self._kinds.of(scores), self._topk, logits=self._logits)
        labels = [self._model.label(int(number)) for number in found["classes"][:, 0]]
        columns = {"class": found["classes"][:, 0], "label": np.array(labels, object)}
        if "probabilities" in found:
            columns["probability"] = found["probabilities"][:, 0]
        if found["classes"].shape[1] == 1:
            found = {"logits": found["logits"]} if "logits" in found else {}
        return {name: _spread(values, good) for name, values in (columns | found).items()}

    def _check_names(self, kept: Batch, added: Batch) -> None:
        both = [name for name in added if name in kept]
        if both:
            raise DataError(
                f"the data has a column {shorten(both[0], _CELLS)} already: rename it, or give "
                'the answers other names, such as prefix="predicted_"'
            )


def _check_format(batch: object) -> None:
    if not isinstance(batch, Mapping):
        kind = f"{type(batch).__module__.partition('.')[0]}.{type(batch).__name__}"
        raise InputError(
            f'the batch is a {kind}; expected a dict of columns: leave batch_format at "numpy"'
        )


def _spread(values: NDArray[Any], good: NDArray[np.bool_]) -> NDArray[Any]:
    """Values (good, …) in their rows (N, …), and what says that there is none in the others."""
    if good.all():
        return values
    none = {"i": -1, "f": np.nan, "O": ""}[values.dtype.kind]
    spread = np.full((len(good), *values.shape[1:]), none, values.dtype)
    spread[good] = values
    return spread
