"""The worst mistakes of a model.

1. A mistake is an image whose label is not the model's first answer for it.
2. It is the worse the more probable the model finds its answer. Where it gives class numbers only,
   all are alike.
3. Of mistakes that are alike in six decimals, that of the earlier image is the worse: what a
   batch's size or the threads change is less than that.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.evaluation.accuracy import best_classes
from adder_onnx.evaluation.inference import Outputs
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.probabilities import Kind, KindOfScores, to_probabilities

__all__ = ["Mistake", "WorstMistakes"]

_DECIMALS = 6


@dataclass(frozen=True)
class Mistake:
    """An image that a model is wrong about.

    Attributes:
        image: its number in the data set.
        label: the class that it is of.
        answer: the class that the model takes it for.
        confidence: the probability that the model gives its answer, in six decimals; None where it
            gives class numbers only.
        label_confidence: the same for the label.
    """

    image: int
    label: int
    answer: int
    confidence: float | None
    label_confidence: float | None

    def order(self) -> tuple[float, int]:
        """By which the worst is first."""
        return -(self.confidence or 0), self.image


class WorstMistakes:
    """Keeps the worst mistakes and nothing else, batch by batch.

    What scores are may be known only once all of them were seen: until then the worst are kept for
    each of the kinds that they may be.

    Args:
        labels: of the data set's images, in the model's numbers.
        classified: the output that says the classes.
        most: how many are kept.

    Attributes:
        count: how many mistakes there were.
    """

    def __init__(self, labels: NDArray[np.int64], classified: Classified, most: int) -> None:
        self.count = 0
        self._labels = labels
        self._output = classified.name
        self._most = most
        self._kinds = KindOfScores(classified.kind)
        possible: tuple[Kind, ...] = ("logits", "probabilities")
        if classified.kind is not None:
            possible = (classified.kind,)
        self._worst: dict[Kind, list[Mistake]] = {kind: [] for kind in possible}

    def add(self, numbers: NDArray[np.int64], outputs: Outputs) -> None:
        """Adds what the model gives for the images with these numbers (N,).

        The output is (N, classes), or (N,) for class numbers.
        """
        rows = outputs[self._output]
        self._kinds.see(rows)
        if self._kinds.kind == "logits":
            self._worst.pop("probabilities", None)
        answers, labels = best_classes(rows, 1)[:, 0], self._labels[numbers]
        wrong = np.flatnonzero(answers != labels)
        self.count += len(wrong)
        for kind, worst in self._worst.items():
            new = [
                _mistake(int(numbers[i]), int(labels[i]), int(answers[i]), rows[i], kind)
                for i in wrong
            ]
            self._worst[kind] = heapq.nsmallest(self._most, worst + new, key=Mistake.order)

    def worst(self) -> list[Mistake]:
        """The worst so far, worst first."""
        return self._worst[self._kinds.kind]


def _mistake(image: int, label: int, answer: int, row: NDArray[Any], kind: Kind) -> Mistake:
    if kind == "class numbers":
        return Mistake(image, label, answer, None, None)
    found = to_probabilities(row, kind)
    return Mistake(
        image, label, answer, *(round(float(found[i]), _DECIMALS) for i in (answer, label))
    )
