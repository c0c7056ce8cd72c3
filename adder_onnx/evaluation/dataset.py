"""What a data set is, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx.errors import DataError

__all__ = ["Dataset", "Sample"]

Sample = Image.Image | tuple[Image.Image | NDArray[Any], ...]
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

    def with_model_classes(self, count: int, names: Sequence[str] | None) -> Dataset:
        """The data set with its labels in a model's numbering.

        Classes are matched by name where the model has a label for each; otherwise they keep their
        numbers, if there are as many as the model has.

        Args:
            count: number of the model's classes.
            names: the model's class labels, if it has any.

        Raises:
            DataError: the classes cannot be matched.
        """
        if self.labels is None:
            return self
        known = names is not None and set(self.classes or ()) <= set(names)
        if self.classes is None or (len(self.classes) == count and not known):
            if self.images and int(self.labels.max()) >= count:
                raise DataError(
                    f"{self.description} has the label {self.labels.max()}, but the model "
                    f"distinguishes {count} classes"
                )
            return self
        unknown = [name for name in self.classes if name not in (names or ())]
        if names is None or unknown:
            raise DataError(
                f"{self.description} has {len(self.classes)} classes and the model {count}, and "
                + (
                    "the model has no labels to match them by"
                    if names is None
                    else f"the model has no label {unknown[0]!r}"
                )
            )
        numbers = np.array([names.index(name) for name in self.classes], np.int64)
        return replace(self, labels=numbers[self.labels], classes=tuple(names))
