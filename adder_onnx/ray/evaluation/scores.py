"""What scores are, found out before all of them are known."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

from adder_onnx.errors import DataError
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.evaluation.probabilities import Kind, KindOfScores
from adder_onnx.ray.evaluation.pieces import Piece
from adder_onnx.ray.evaluation.worker import load_image

__all__ = ["kind_of_first"]


def kind_of_first(
    network: Network, classified: Classified, pieces: Iterable[Piece], batch_size: int
) -> Kind:
    """What the scores are, by the graph, or by those of the first images, a batch of them.

    Raises:
        DataError: the pieces cannot be read; images that cannot be are left out.
        ModelError: the output is not as it should be.
    """
    if classified.kind is not None:
        return classified.kind
    images = []
    samples = (sample for piece in pieces for sample in piece.samples())
    for sample in islice(samples, batch_size):
        try:
            images.append(load_image(sample, network.preprocessing())[0])
        except DataError:  # the run will say so, if it is to
            continue
    kinds = KindOfScores(None)
    if images:
        images += [images[-1]] * (batch_size - len(images) if network.batch_size else 0)
        kinds.see(classified.rows(network(np.stack(images))))
    return kinds.kind
