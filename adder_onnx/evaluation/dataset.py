"""What a data set is, whatever its format."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError
from adder_onnx.evaluation.class_map import read_class_map
from adder_onnx.evaluation.classes import Classes, Matching, match_classes, match_numbers

__all__ = ["Dataset", "Planes", "Sample"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planes:
    """An image of any number of channels.

    Attributes:
        pixels: (C, H, W) uint8.
    """

    pixels: NDArray[np.uint8]


Sample = Image.Image | tuple[Image.Image | Planes | NDArray[Any], ...]
"""An image for a model with one input, or a value for each input: an image, which is preprocessed,
or an array without the batch's axis, which is not."""


@dataclass(frozen=True)
class Dataset:
    """Images, with labels or without.

    Attributes:
        description: for people: the format, the split.
        split: ``train``, ``val`` or ``test``, or None where the format knows no splits.
        images: number of images.
        load: gives the image with a number below ``images``; raises DataError if it is corrupt;
            may be called by several threads at once.
        name_of: names that image, for messages.
        labels: (images,) int64, numbers of classes, or None.
        classes: names of the classes in the order of their numbers, or None.
        published: whether the data set comes with these numbers, which otherwise only count the
            names.
        label_span: the lowest and the highest number in the list that labels without names are
            from, where that has more images than the set; else None.
        matching: how the labels came to be in a model's numbering, where they are.
        files: whether each image is a file of its own, at the path or URI that ``name_of`` gives.
        arrays: whether ``load`` gives a value for each of the model's inputs, not an image.
        single: whether it is no set but one image.
    """

    description: str
    split: str | None
    images: int
    load: Callable[[int], Sample]
    name_of: Callable[[int], str]
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] | None = None
    published: bool = False
    label_span: tuple[int, int] | None = None
    matching: Matching | None = None
    files: bool = False
    arrays: bool = False
    single: bool = False

    def select(self, indices: Sequence[int] | NDArray[Any]) -> Dataset:
        """The images with these numbers, in this order."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            images=len(chosen),
            load=lambda i: self.load(int(chosen[i])),
            name_of=lambda i: self.name_of(int(chosen[i])),
            labels=None if self.labels is None else self.labels[chosen],
        )

    def limit(self, count: int) -> Dataset:
        """At most ``count`` images, evenly spaced over the set."""
        if count >= self.images:
            return self
        return self.select(np.arange(count) * self.images // count)

    def first(self, count: int) -> Dataset:
        """At most the first ``count`` images."""
        return self if count >= self.images else self.select(np.arange(count))

    def skip(self, count: int) -> Dataset:
        """All images but the first ``count``.

        Raises:
            DataError: none is left.
        """
        if count >= self.images:
            raise DataError(
                f"{self.description} has {self.images} images, so that --skip {count} leaves none"
            )
        return self.select(np.arange(count, self.images)) if count else self

    def with_model_classes(
        self, count: int, names: Sequence[str] | None, class_map: Path | None = None
    ) -> Dataset:
        """The data set with its labels in a model's numbering, by the rules of `classes`.

        Args:
            count: number of the model's classes.
            names: the model's class labels, if it has any.
            class_map: a file that says which class of the model each of the data set is.

        Returns:
            The same images, with other labels, and the model's names of classes; where it has none,
            those that the data set has for them, and numbers for others. Itself where it has no
            labels.

        Raises:
            DataError: the classes cannot be matched.
        """
        if self.labels is None:
            if class_map is not None:
                raise DataError(f"{self.description}: --class-map needs images with labels")
            return self
        model = Classes(count, names)
        used = [int(number) for number in np.unique(self.labels)]
        if class_map is not None:
            called = [str(i) if self.classes is None else self.classes[i] for i in used]
            numbers = dict(zip(used, read_class_map(class_map, called, model), strict=True))
            matching = Matching(f"by {class_map}")
        elif self.classes is not None:
            numbers, matching = match_classes(
                self.description, self.classes, used, model, published=self.published
            )
        else:
            span = self.label_span or (used[0], used[-1])
            matching = match_numbers(self.description, used, span, model)
            numbers = {i: i for i in used}
        if matching.guess:
            _logger.warning(
                "the classes of %s are matched by a guess, %s; --class-map FILE says it",
                self.description,
                matching.how,
            )
        if names is None and self.classes is not None:
            own = {numbers[i]: self.classes[i] for i in used}
            if self.published and all(i == number for i, number in numbers.items()):
                own = dict(enumerate(self.classes))
            names = [own.get(i, str(i)) for i in range(count)]
        renumbered = np.array([numbers[i] for i in used], np.int64)
        return replace(
            self,
            labels=renumbered[np.searchsorted(used, self.labels)],
            classes=None if names is None else tuple(names),
            matching=matching,
        )
