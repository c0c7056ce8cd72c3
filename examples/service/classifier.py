"""From the bytes of images to a model's answers."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adder_onnx import InferenceSession
from adder_onnx.errors import ModelError
from adder_onnx.evaluation import (
    KindOfScores,
    Network,
    choose_output,
    decode_image,
    preprocess,
    to_probabilities,
)

__all__ = ["Classifier"]


class Classifier:
    """A model that says what is on an image.

    Args:
        path: of a model that says how images are preprocessed, as exported ones do.
        threads: that a run may use; None for all cores.
        timeout: how many seconds a run may take.
        most_pixels: that an image may have.

    Attributes:
        batch_size: the only one that the model takes, or None.

    Raises:
        ModelError: the model cannot be read, or does not classify images.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        timeout: float | None = None,
        most_pixels: int = 25_000_000,
    ) -> None:
        session = InferenceSession(path, threads=threads)
        self._most_pixels = most_pixels
        everything = Network(session)
        everything.check_takes_images()
        how = everything.preprocessing()
        if how is None:
            raise ModelError(f"{path} does not say how images are preprocessed")
        self._how = how
        self._labels = everything.metadata.labels
        self._output = choose_output(session, self._labels)
        self._network = Network(session, [self._output.name], timeout=timeout)
        self.batch_size = self._network.batch_size

    def prepare(self, data: bytes) -> NDArray[np.float32]:
        """The input (C, H, W) for a PNG or JPEG file's bytes.

        Raises:
            DataError: they are no such image, or one that the model does not take.
        """
        image = decode_image(data, formats=["PNG", "JPEG"], most_pixels=self._most_pixels)
        return preprocess(image, self._how)

    def classify(self, images: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
        """An answer for each image (C, H, W), all in one run: its class, as JSON has it.

        Raises:
            ModelError: what the model gives is not finite.
            RunTimeoutError: the run takes longer than it may.
        """
        left = max((self.batch_size or 0) - len(images), 0)
        scores = self._output.rows(self._network(np.stack([*images, *[images[-1]] * left])))
        return [self._answer(row) for row in scores[: len(images)]]

    def warm_up(self, images: int) -> None:
        """Does once what the first requests would wait for.

        Args:
            images: in the largest run.

        Raises:
            AdderError: the model cannot be run with images of its own size.
        """
        file = io.BytesIO()
        mode = "L" if self._how.channels == 1 else "RGB"
        Image.new(mode, (self._how.width, self._how.height)).save(file, "PNG")
        image = self.prepare(file.getvalue())
        for count in (1, images):
            self.classify([image] * min(count, self.batch_size or count))

    def _answer(self, row: NDArray[Any]) -> dict[str, Any]:
        if self._output.kind == "class numbers":
            return self._named(int(row))
        kinds = KindOfScores(self._output.kind)
        kinds.see(row[None])
        probabilities = to_probabilities(row, kinds.kind)
        best = int(row.argmax())
        return self._named(best) | {"probabilities": probabilities.tolist()}

    def _named(self, number: int) -> dict[str, Any]:
        return {"class": number, "label": self._labels[number] if self._labels else str(number)}
