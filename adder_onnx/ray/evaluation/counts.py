"""What a model says of images of each class, counted piece by piece.

The classes of some data are known only once all of them were read, and whether the model's are
these is found out after that. So images are counted by what the data call their class:

1. for each class of the data and each of the model, how many images of the one have the other as
   the first answer, and how many have it among the first five;
2. once the classes are matched, the first count is a confusion, and an image is right among five
   where the class that its own was matched to is among these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.evaluation.accuracy import best_classes
from adder_onnx.evaluation.confusion import Confusion
from adder_onnx.ray.evaluation.pieces import Label

__all__ = ["AnswerCounts"]

_Pairs = Counter[tuple[Label, int]]


class AnswerCounts:
    """How often a model gives each of its classes for images of each class of the data."""

    def __init__(self) -> None:
        self._first: _Pairs = Counter()
        self._among_five: _Pairs = Counter()

    def add(self, labels: Sequence[Label | None], scores: NDArray[Any]) -> None:
        """Counts images of these classes (N), those with None for it left out.

        Args:
            labels: what the data call their classes.
            scores: (N, classes), or class numbers (N,).
        """
        best = best_classes(scores, 5).tolist()
        for label, answers in zip(labels, best, strict=True):
            if label is not None:
                self._first[label, answers[0]] += 1
                self._among_five.update((label, answer) for answer in answers)

    def merge(self, other: AnswerCounts) -> None:
        """Adds what was counted of other images."""
        self._first.update(other._first)
        self._among_five.update(other._among_five)

    @property
    def images(self) -> int:
        """How many were counted."""
        return self._first.total()

    @property
    def labels(self) -> list[Label]:
        """The classes of the data, numbers before names, in ascending order."""
        return sorted(
            {label for label, _ in self._first}, key=lambda one: (isinstance(one, str), one)
        )

    def confusion(self, classes: Mapping[Label, int], count: int) -> Confusion:
        """Which classes the model takes for which.

        Args:
            classes: the model's class for each of the data.
            count: how many the model tells apart.
        """
        pairs: Counter[tuple[int, int]] = Counter()
        for (label, answer), images in self._first.items():
            pairs[classes[label], answer] += images
        rows = [(true, answer, images) for (true, answer), images in sorted(pairs.items())]
        return Confusion(np.array(rows, np.int64).reshape(-1, 3), count)

    def right_among_five(self, classes: Mapping[Label, int]) -> int:
        """How many images have their class among the first five answers.

        Args:
            classes: the model's class for each of the data.
        """
        return sum(n for (label, answer), n in self._among_five.items() if classes[label] == answer)

    def as_json(self) -> dict[str, Any]:
        """The counts for a file; see `from_json`."""
        return {
            name: [[label, answer, count] for (label, answer), count in pairs.items()]
            for name, pairs in (("first", self._first), ("among_five", self._among_five))
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> AnswerCounts:
        """The counts that `as_json` gave."""
        counts = cls()
        for name, pairs in (("first", counts._first), ("among_five", counts._among_five)):
            pairs.update({(label, answer): count for label, answer, count in found[name]})
        return counts
