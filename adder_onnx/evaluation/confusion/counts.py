"""Which classes a model takes for which.

1. Classes are counted by the model's numbers, whatever the data set calls them.
2. An image counts for the class of its label and the model's first answer for it; images that
   were skipped do not count.
3. A model may have more classes than the data: it may take an image for any of them, but only
   classes that images have as their label have an accuracy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassAccuracy", "Confusion", "ConfusionCounter"]


@dataclass(frozen=True)
class ClassAccuracy:
    """How often a model is right about the images of one class.

    Attributes:
        number: of the class.
        images: with this label; at least 1.
        correct: how many of them the model takes for what they are.
        answers: how many images of all classes it takes for this one.
        mistaken_for: the class that the most of the others are taken for, the lower number among
            several, and how many; None if all are right.
    """

    number: int
    images: int
    correct: int
    answers: int
    mistaken_for: tuple[int, int] | None

    @property
    def share(self) -> float:
        """Of the images that are taken for what they are, 0 to 1."""
        return self.correct / self.images


@dataclass(frozen=True)
class Confusion:
    """How many images of each class a model takes for each.

    Attributes:
        counts: (pairs, 3) int64: the class of the label, the model's answer, how many images; of
            those pairs that there are, in ascending order.
        classes: how many the model tells apart.
    """

    counts: NDArray[np.int64]
    classes: int

    @property
    def images(self) -> int:
        """How many were counted."""
        return int(self.counts[:, 2].sum())

    @property
    def correct(self) -> int:
        """How many of them are taken for what they are."""
        return int(self.counts[self.counts[:, 0] == self.counts[:, 1], 2].sum())

    def per_class(self) -> list[ClassAccuracy]:
        """The accuracy of each class that images have as their label, by number."""
        answers: Counter[int] = Counter()
        rows: dict[int, dict[int, int]] = {}
        for true, answer, count in self.counts.tolist():
            answers[answer] += count
            rows.setdefault(true, {})[answer] = count
        return [_accuracy(true, row, answers[true]) for true, row in rows.items()]

    def mistakes(self) -> list[tuple[int, int, int]]:
        """The pairs of different classes and how many images, most first, then by number."""
        wrong = self.counts[self.counts[:, 0] != self.counts[:, 1]]
        order = np.argsort(-wrong[:, 2], kind="stable")
        return [(true, answer, count) for true, answer, count in wrong[order].tolist()]

    def as_json(self, names: Sequence[str] | None) -> dict[str, Any]:
        """The counts for programs.

        Args:
            names: of all classes, if they have any.
        """
        return {
            "labels": None if names is None else list(names),
            "counts": self.counts.tolist(),
        }


def _accuracy(true: int, row: dict[int, int], answers: int) -> ClassAccuracy:
    wrong = [(-count, answer) for answer, count in row.items() if answer != true]
    most = min(wrong, default=None)
    return ClassAccuracy(
        number=true,
        images=sum(row.values()),
        correct=row.get(true, 0),
        answers=answers,
        mistaken_for=None if most is None else (most[1], -most[0]),
    )


class ConfusionCounter:
    """Counts a confusion batch by batch.

    Args:
        classes: how many the model tells apart.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._pairs: Counter[tuple[int, int]] = Counter()

    def add(self, true: NDArray[np.int64], answers: NDArray[np.int64]) -> None:
        """Counts images with these labels (N,) and first answers (N,)."""
        self._pairs.update(zip(true.tolist(), answers.tolist(), strict=True))

    def confusion(self) -> Confusion:
        """What was counted so far."""
        rows = [(true, answer, count) for (true, answer), count in sorted(self._pairs.items())]
        return Confusion(np.array(rows, np.int64).reshape(-1, 3), self._classes)
