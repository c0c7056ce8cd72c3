"""What a model says of each image, as CSV or NPZ."""

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
from adder_onnx.files import check_writable, write_atomically

__all__ = ["Answer", "Predictions", "check_output"]

_SUFFIXES = (".csv", ".npz")


@dataclass(frozen=True)
class Answer:
    """One of a model's answers for an image.

    Attributes:
        number: of the class.
        label: its name, or its number where the model has no labels.
        probability: by softmax of the logits.
    """

    number: int
    label: str
    probability: float


class Predictions:
    """Logits of a data set's images, collected batch by batch.

    Args:
        dataset: what the model is run over.
        classes: number of the model's classes.
        labels: the model's class labels, if it has any.
    """

    def __init__(self, dataset: Dataset, classes: int, labels: Sequence[str] | None) -> None:
        self._dataset = dataset
        self._labels = labels
        self._numbers = np.empty(dataset.images, np.int64)
        self._logits = np.empty((dataset.images, classes), np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, numbers: NDArray[np.int64], logits: NDArray[Any]) -> None:
        """Adds the logits (N, classes) of the images with these numbers (N,)."""
        last = self._count + len(numbers)
        self._numbers[self._count : last] = numbers
        self._logits[self._count : last] = logits
        self._count = last

    def name(self, row: int) -> str:
        """The name of the image added at that place."""
        return self._dataset.name_of(int(self._numbers[row]))

    def answers(self, row: int, k: int) -> list[Answer]:
        """The k best answers for the image added at that place, best first."""
        logits = self._logits[row].astype(np.float64)
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = best_classes(self._logits[row : row + 1], k)[0]
        return [Answer(int(c), self._label(int(c)), float(probabilities[c])) for c in best]

    def write(self, path: Path, k: int) -> None:
        """Writes a file, whole or not at all, as its suffix says.

        CSV has a line for each image: its name, its label where the set has labels, and for each of
        the k best classes ``class1``, ``label1``, ``probability1`` and so on. NPZ holds ``logits``
        (N, classes), float32, and ``labels`` (N,), int64, where the set has them. Images that were
        skipped are left out.

        Raises:
            AdderError: the file cannot be written.
        """
        write_atomically(path, self._csv(k) if path.suffix == ".csv" else self._npz())

    def _csv(self, k: int) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        places = range(1, min(k, self._logits.shape[1]) + 1)
        true = self._dataset.labels
        header = ["name"] if true is None else ["name", "label"]
        writer.writerow(
            header + [f"{c}{p}" for p in places for c in ("class", "label", "probability")]
        )
        for row in range(self._count):
            cells: list[object] = [self.name(row)]
            if true is not None:
                cells.append(self._label(int(true[self._numbers[row]])))
            for answer in self.answers(row, k):
                cells += [answer.number, answer.label, f"{answer.probability:.6g}"]
            writer.writerow(cells)
        # Names of files may not be Unicode.
        return text.getvalue().encode("utf-8", "backslashreplace")

    def _npz(self) -> bytes:
        arrays: dict[str, NDArray[Any]] = {"logits": self._logits[: self._count]}
        if self._dataset.labels is not None:
            arrays["labels"] = self._dataset.labels[self._numbers[: self._count]]
        data = io.BytesIO()
        np.savez(data, allow_pickle=False, **arrays)
        return data.getvalue()

    def _label(self, number: int) -> str:
        return self._labels[number] if self._labels else str(number)


def check_output(path: Path) -> None:
    """Finds out before the work whether predictions can be written to a file.

    Raises:
        AdderError: its suffix is neither .csv nor .npz, or it cannot be written.
    """
    if path.suffix not in _SUFFIXES:
        raise AdderError(f"cannot write {path}: --output takes a name that ends in .csv or .npz")
    check_writable(path)
