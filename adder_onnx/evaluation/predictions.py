"""What a model says of each image, for people and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import AdderError
from adder_onnx.evaluation.accuracy import best_classes
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.inference import Outputs
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.probabilities import KindOfScores, to_probabilities
from adder_onnx.files import check_writable, write_atomically

__all__ = ["Answer", "Predictions", "check_output"]

_SUFFIXES = (".csv", ".npz")


@dataclass(frozen=True)
class Answer:
    """One of a model's answers for an image.

    Attributes:
        number: of the class.
        label: its name, or its number where the model has no labels.
        probability: see `adder_onnx.evaluation.probabilities`; None where the model gives nothing
            but the class's number.
    """

    number: int
    label: str
    probability: float | None

    def __str__(self) -> str:
        if self.probability is None:
            return self.label
        return f"{100 * self.probability:6.2f} %  {self.label}"

    def as_json(self) -> dict[str, Any]:
        """The answer for programs; without a probability if there is none."""
        found: dict[str, Any] = {"class": self.number, "label": self.label}
        return found if self.probability is None else found | {"probability": self.probability}


class Predictions:
    """What a model says of a data set's images, collected batch by batch.

    Args:
        dataset: what the model is run over.
        classified: the output that says the classes.
        labels: the model's class labels, if it has any.
    """

    def __init__(
        self, dataset: Dataset, classified: Classified, labels: Sequence[str] | None
    ) -> None:
        self._dataset = dataset
        self._output = classified.name
        self._kinds = KindOfScores(classified.kind)
        self._labels = labels
        self._numbers = np.empty(dataset.images, np.int64)
        self._rows = np.empty(0)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, numbers: NDArray[np.int64], outputs: Outputs) -> None:
        """Adds what the model gives for the images with these numbers (N,).

        The output is (N, classes), or (N,) for class numbers.
        """
        rows = outputs[self._output]
        self._kinds.see(rows)
        if self._count == 0:
            self._rows = np.empty((self._dataset.images, *rows.shape[1:]), rows.dtype)
        last = self._count + len(numbers)
        self._numbers[self._count : last] = numbers
        self._rows[self._count : last] = rows
        self._count = last

    def name(self, row: int) -> str:
        """The name of the image added at that place."""
        return self._dataset.name_of(int(self._numbers[row]))

    def answers(self, row: int, k: int) -> list[Answer]:
        """The k best answers for the image added at that place, best first.

        There are fewer where there are fewer classes, and one where the output is class numbers.
        """
        best = [int(number) for number in best_classes(self._rows[row : row + 1], k)[0]]
        if self._kinds.kind == "class numbers":
            return [Answer(number, self._label(number), None) for number in best]
        probabilities = to_probabilities(self._rows[row], self._kinds.kind)
        return [Answer(n, self._label(n), float(probabilities[n])) for n in best]

    def write_csv(self, path: Path, k: int) -> None:
        """Writes a file, whole or not at all.

        It has a line for each image: its name, its label where the set has labels, and for each of
        the k best classes ``class1``, ``label1``, ``probability1`` and so on; no probability where
        the output is class numbers. Images that were skipped are left out.

        Raises:
            AdderError: the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        true = self._dataset.labels
        header = ["name"] if true is None else ["name", "label"]
        for place, answer in enumerate(self.answers(0, k), 1):
            header += [f"{head}{place}" for head in answer.as_json()]
        writer.writerow(header)
        for row in range(self._count):
            cells: list[object] = [self.name(row)]
            if true is not None:
                cells.append(self._label(int(true[self._numbers[row]])))
            for answer in self.answers(row, k):
                cells += [answer.number, answer.label]
                if answer.probability is not None:
                    cells.append(f"{answer.probability:.6g}")
            writer.writerow(cells)
        # Names of files may not be Unicode.
        write_atomically(path, text.getvalue().encode("utf-8", "backslashreplace"))

    def _label(self, number: int) -> str:
        return self._labels[number] if self._labels else str(number)


def check_output(path: Path) -> None:
    """Finds out before the work whether a model's answers can be written to a file.

    Raises:
        AdderError: its suffix is neither .csv nor .npz, or it cannot be written.
    """
    if path.suffix not in _SUFFIXES:
        raise AdderError(f"cannot write {path}: --output takes a name that ends in .csv or .npz")
    check_writable(path)
