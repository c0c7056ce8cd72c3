"""A model that says what is on an image: from images to scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx import memory
from adder_onnx.errors import DataError, ModelError
from adder_onnx.evaluation.dataset import Planes
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.outputs import choose_output
from adder_onnx.evaluation.preprocessing import preprocess
from adder_onnx.runtime import InferenceSession

__all__ = ["ImageModel"]


class ImageModel:
    """A classifier of images, which says itself how they are preprocessed.

    Args:
        model: a file's path, or its bytes.
        device: as `InferenceSession` has it.
        threads: as `InferenceSession` has it.

    Attributes:
        how: images are preprocessed.
        classes: how many there are.
        kind: of the scores, where the graph tells.
        batch_size: the only one that the model takes, or None.

    Raises:
        AdderError: the model cannot be read or executed, does not classify images, or does not say
            how they are preprocessed; or the device cannot be used.
    """

    def __init__(
        self, model: str | os.PathLike[str] | bytes, *, device: str, threads: int | None
    ) -> None:
        session = InferenceSession(model, device=device, threads=threads)
        everything = Network(session)
        everything.check_takes_images()
        how = everything.preprocessing()
        if how is None:
            raise ModelError(
                "the model does not say how images are preprocessed (metadata "
                "ai.addernet.preprocessing); export it with adder-export"
            )
        self.how = how
        self._labels = everything.metadata.labels
        self._output = choose_output(session, self._labels)
        self._network = Network(session, [self._output.name])
        self.classes = self._output.classes
        self.kind = self._output.kind
        self.batch_size = self._network.batch_size

    def prepare(self, image: Image.Image | Planes) -> NDArray[np.float32]:
        """The model's input (C, H, W) for an image.

        Raises:
            DataError: the model does not take such an image.
        """
        return preprocess(image, self.how)

    def blank(self) -> NDArray[np.float32]:
        """An input (C, H, W) of zeros, to try the model with."""
        return np.zeros((self.how.channels, self.how.height, self.how.width), np.float32)

    def scores(self, inputs: Sequence[NDArray[np.float32]]) -> NDArray[Any]:
        """The scores (N, classes), or class numbers (N,), of N inputs (C, H, W).

        Raises:
            DataError: they take more memory than they may.
            ModelError: what the model gives is not what it says.
        """
        if not inputs:
            return self.scores([self.blank()])[:0]
        size = self.batch_size or len(inputs)
        what = f"a batch of {len(inputs)} images"
        memory.require(2 * size * inputs[0].nbytes, what, DataError)
        return np.concatenate(
            [self._run(inputs[i : i + size], size) for i in range(0, len(inputs), size)]
        )

    def label(self, number: int) -> str:
        """The name of a class, or its number where the model has no labels; always Unicode."""
        label = self._labels[number] if self._labels else str(number)
        return label.encode("utf-8", "backslashreplace").decode()

    def _run(self, inputs: Sequence[NDArray[np.float32]], size: int) -> NDArray[Any]:
        """One run, filled up to the size; the results of what fills it are dropped."""
        filled = [*inputs, *[inputs[-1]] * (size - len(inputs))]
        outputs = self._network(np.stack(filled))
        return self._output.rows(outputs)[: len(inputs)]
