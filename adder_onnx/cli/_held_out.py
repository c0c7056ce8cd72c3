"""What a quantized model loses on images that its calibration has not seen."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import onnx
from numpy.typing import NDArray

from adder_onnx.evaluation import Dataset
from adder_onnx.evaluation.inference import infer
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.runtime import InferenceSession
from adder_onnx.runtime.threads import available_cores

__all__ = ["HeldOut"]


class HeldOut:
    """Images, and the float model's answers.

    Args:
        model: the float model.
        dataset: labels, if there are any, number the model's classes.
        classified: the output that says the classes.
        batch_size: images at a time, for a model that takes any number.
        threads: for the runs.

    Attributes:
        labelled: whether the loss is one of right answers; else it counts those that change.
    """

    def __init__(
        self,
        model: InferenceSession,
        dataset: Dataset,
        classified: Classified,
        batch_size: int,
        threads: int | None,
    ) -> None:
        self._dataset, self._classified = dataset, classified
        self._batch_size, self._threads = batch_size, threads
        self.labelled = dataset.labels is not None
        self._answers = self._run(model)

    def loss(self, model: onnx.ModelProto) -> float:
        """Right answers of the float model less those of another one, in percent of the images.

        Where there are no labels, the answers that differ.
        """
        answers = self._run(InferenceSession(model, threads=self._threads))
        if self._dataset.labels is None:
            return 100 * float(np.mean(answers != self._answers))
        labels = self._dataset.labels
        return 100 * float(np.mean(self._answers == labels) - np.mean(answers == labels))

    def _run(self, session: InferenceSession) -> NDArray[np.int64]:
        network = Network(session, [self._classified.name])
        size = network.batch_size
        answers = np.empty(self._dataset.images, np.int64)
        batches = infer(
            network,
            self._dataset,
            network.preprocessing(),
            batch_size=size or self._batch_size,
            workers=self._threads or available_cores(),
            pad=size is not None,
        )
        with closing(batches):
            for numbers, outputs in batches:
                rows = self._classified.rows(outputs)
                answers[numbers] = rows if rows.ndim == 1 else rows.argmax(axis=1)
        return answers
